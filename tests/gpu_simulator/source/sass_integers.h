// SASS instructions: integers, in R and UR, and predicates.

// Integers, in R and UR: IADD3 (with carries in and out of predicates), VIADD, MOV, IMAD (.WIDE, .HI), LEA (.HI, .X,
// .SX32), SHF, LOP3 (truth table).
SASS(iadd3) {
  SASS_OPERANDS;
  u64 s = 0;
  for (auto& o : ops.sources) {
    u32 v = raw_of(t, o);
    if (o.inv) v = ~v;
    if (o.neg) {
      v = ~v;
      s += 1;
    }
    s += v;
  }
  for (auto& o : ops.predicates_in) s += predicate_of(t, o);
  set_register(t, ops.destinations[0], u32(s));
  set_carries(t, ops, u32(s >> 32));
}
SASS(viadd) {
  SASS_OPERANDS;
  set_register(t, ops.destinations[0], int_of(t, ops.sources[0]) + int_of(t, ops.sources[1]));
}
SASS(mov) {
  SASS_OPERANDS;
  set_register(t, ops.destinations[0], int_of(t, ops.sources[0]));
}
SASS(imad) {
  SASS_OPERANDS;
  u64 a = raw_of(t, ops.sources[0]), b = raw_of(t, ops.sources[1]);
  u32 m = u32(a * b);
  if (ops.sources[0].neg != ops.sources[1].neg) m = 0 - m;
  if (ops.sources[0].inv || ops.sources[1].inv) fault(&t, "imad ~");
  u32 c = ops.sources.size() > 2 ? int_of(t, ops.sources[2]) : 0;
  u64 s = u64(m) + c;
  for (auto& o : ops.predicates_in) s += predicate_of(t, o);
  set_register(t, ops.destinations[0], u32(s));
  set_carries(t, ops, u32(s >> 32));
}
static u64 product_of(Thread& t, const SassOperands& ops, bool sg) {
  u64 m = sg ? u64(i64(i32(raw_of(t, ops.sources[0]))) * i64(i32(raw_of(t, ops.sources[1]))))
             : u64(raw_of(t, ops.sources[0])) * u64(raw_of(t, ops.sources[1]));
  if (ops.sources[0].neg != ops.sources[1].neg) m = 0 - m;
  return m;
}
SASS(imadwide) {
  SASS_OPERANDS;
  u64 m = product_of(t, ops, i.variant == 1);
  unsigned __int128 s = (unsigned __int128)m + int64_of(t, ops.sources[2]);
  for (auto& o : ops.predicates_in) s += predicate_of(t, o);
  set_register64(t, ops.destinations[0], u64(s));
  set_carries(t, ops, u32(s >> 64));
}
SASS(imadhi) {
  SASS_OPERANDS;
  u64 m = product_of(t, ops, i.variant == 1);
  unsigned __int128 s = (unsigned __int128)m + int64_of(t, ops.sources[2]);
  for (auto& o : ops.predicates_in) s += predicate_of(t, o);
  set_register(t, ops.destinations[0], u32(u64(s) >> 32));
  set_carries(t, ops, u32(s >> 64));
}
SASS(lea) {
  SASS_OPERANDS;
  u32 sh = u32(ops.sources.back().imm) & 31;
  bool hi = i.variant & 1, x = i.variant & 2, sx = i.variant & 4;
  u32 a = int_of(t, ops.sources[0]);
  u64 v;
  if (!hi) {
    u64 s = u64(u32(raw_of(t, ops.sources[0]) << sh));
    if (ops.sources[0].neg) s = u64(u32(~u32(s))) + 1;
    u32 b = raw_of(t, ops.sources[1]);
    if (ops.sources[1].inv) b = ~b;
    if (ops.sources[1].neg) {
      b = ~b;
      s += 1;
    }
    v = s + b;
  } else {
    u32 c = sx ? u32(i32(a) >> 31) : (ops.sources.size() > 3 ? raw_of(t, ops.sources[2]) : 0);
    u64 ca = u64(raw_of(t, ops.sources[0])) | u64(c) << 32;
    if (ops.sources[0].neg) {
      ca = 0 - ca;
      if (sx) {
        ca = u64(-i64(i32(raw_of(t, ops.sources[0]))));
      }
    }
    u32 h = u32((sh ? (ca << sh) : ca) >> 32);
    v = u64(h) + u64(int_of(t, ops.sources[1]));
  }
  if (x)
    for (auto& o : ops.predicates_in) v += predicate_of(t, o);
  set_register(t, ops.destinations[0], u32(v));
  set_carries(t, ops, u32(v >> 32));
}
SASS(shf) {
  SASS_OPERANDS;
  u32 s = int_of(t, ops.sources[1]);
  u64 lo = raw_of(t, ops.sources[0]), hi = raw_of(t, ops.sources[2]);
  u64 v = lo | hi << 32;
  int f = i.variant; /*bit0 right, bit1 HI, bit2 signed, bit3 64*/
  u32 r;
  if (f & 16)
    s &= (f & 8) ? 63 : 31;
  else
    s = std::min(s, (f & 8) ? 64u : ((f & 2) && (f & 1) ? 32u : 32u));
  if (f & 1) {
    if (f & 2) {
      r = (f & 4) ? u32(s >= 32 ? i32(hi) >> 31 : i32(hi) >> s) : (s >= 32 ? 0 : u32(hi) >> s);
      if (f & 8) {
        r = (f & 4) ? u32((s >= 64 ? i64(v) >> 63 : i64(v) >> s) >> 32) : u32(s >= 64 ? 0 : (v >> s) >> 32);
      }
    } else
      r = (f & 4) ? u32(i64(v) >> std::min(s, 63u)) : u32(s >= 64 ? 0 : v >> s);
  } else {
    if (f & 2)
      r = u32((s >= 64 ? 0 : v << s) >> 32);
    else
      r = s >= 32 ? 0 : u32(lo << s);
  }
  set_register(t, ops.destinations[0], r);
}
SASS(lop3) {
  SASS_OPERANDS;
  u32 a = int_of(t, ops.sources[0]), b = int_of(t, ops.sources[1]), c = int_of(t, ops.sources[2]),
      l = u32(ops.sources[3].imm), r = 0;
  for (int k = 0; k < 8; ++k)
    if (l >> k & 1) r |= ((k & 4) ? a : ~a) & ((k & 2) ? b : ~b) & ((k & 1) ? c : ~c);
  set_register(t, ops.destinations[0], r);
  if (!ops.predicates_out.empty())
    set_predicate(t, ops.predicates_out[0],
                  r != 0 || (ops.predicates_in.empty() ? false : predicate_of(t, ops.predicates_in[0])));
}

// Predicates: PLOP3, ISETP (.EX chains a second word); SEL, VIMNMX, VIADDMNMX, IABS.
SASS(plop3) {
  SASS_OPERANDS;
  int idx = predicate_of(t, ops.predicates_in[0]) * 4 + predicate_of(t, ops.predicates_in[1]) * 2 +
            predicate_of(t, ops.predicates_in[2]);
  set_predicate(t, ops.predicates_out[0], u32(ops.sources[0].imm) >> idx & 1);
  if (ops.predicates_out.size() > 1) set_predicate(t, ops.predicates_out[1], u32(ops.sources[1].imm) >> idx & 1);
}
SASS(isetp) {
  SASS_OPERANDS;
  bool sg = !(i.variant & 256), ex = i.variant & 512;
  int c = i.variant & 15, comb = i.variant >> 4 & 3;
  u32 ua = int_of(t, ops.sources[0]), ub = int_of(t, ops.sources[1]);
  i64 a = sg ? i64(i32(ua)) : i64(ua), b = sg ? i64(i32(ub)) : i64(ub);
  bool r;
  bool pin2 = ex ? predicate_of(t, ops.predicates_in[1]) : true;
  switch (c) {
    case 0:
      r = a == b && pin2;
      break;
    case 1:
      r = ex ? (a != b || pin2) : a != b;
      break;
    case 2:
      r = a < b || (ex && a == b && pin2);
      break;
    case 3:
      r = ex ? (a < b || (a == b && pin2)) : a <= b;
      break;
    case 4:
      r = a > b || (ex && a == b && pin2);
      break;
    case 5:
      r = ex ? (a > b || (a == b && pin2)) : a >= b;
      break;
    default:
      fault(&t, "isetp");
  }
  bool p = predicate_of(t, ops.predicates_in[0]);
  auto cm = [&](bool z) { return comb == 0 ? z && p : comb == 1 ? z || p : z != p; };
  set_predicate(t, ops.predicates_out[0], cm(r));
  set_predicate(t, ops.predicates_out[1], cm(!r));
}
SASS(sel) {
  SASS_OPERANDS;
  set_register(t, ops.destinations[0],
               predicate_of(t, ops.predicates_in[0]) ? int_of(t, ops.sources[0]) : int_of(t, ops.sources[1]));
}
SASS(vimnmx) {
  SASS_OPERANDS;
  u32 a = int_of(t, ops.sources[0]), b = int_of(t, ops.sources[1]);
  if (i.variant & 2) {
    a = a + b;
    b = int_of(t, ops.sources[2]);
  }
  bool mn = predicate_of(t, ops.predicates_in[0]);
  bool lt = (i.variant & 1) ? a < b : i32(a) < i32(b);
  set_register(t, ops.destinations[0], mn == lt ? a : b);
}
SASS(iabs) {
  SASS_OPERANDS;
  set_register(t, ops.destinations[0], std::abs(i32(int_of(t, ops.sources[0]))));
}

bool SassDecoder::decode_integers() {
  Execute& f = in.execute;
  if (opcode == "IADD3" || opcode == "UIADD3") {
    general(1);
    f = s_iadd3;
  } else if (opcode == "VIADD") {
    general(1);
    f = s_viadd;
  } else if (opcode == "MOV" || opcode == "UMOV") {
    general(1);
    f = s_mov;
  } else if (opcode == "IMAD" || opcode == "UIMAD") {
    general(1);
    if (has("WIDE")) {
      f = s_imadwide;
      in.variant = !has("U32");
    } else if (has("HI")) {
      f = s_imadhi;
      in.variant = !has("U32");
    } else
      f = s_imad;
    if (ops.sources.size() != 3) bad("imad");
  } else if (opcode == "LEA" || opcode == "ULEA") {
    general(1);
    f = s_lea;
    in.variant = (has("HI") ? 1 : 0) | (has("X") ? 2 : 0) | (has("SX32") ? 4 : 0);
  } else if (opcode == "SHF" || opcode == "USHF") {
    general(1);
    f = s_shf;
    bool s64 = has("S64") || has("U64");
    in.variant = (has("R") ? 1 : 0) | (has("HI") ? 2 : 0) | ((has("S32") || has("S64")) ? 4 : 0) |
                 (s64 && has("R") ? 8 : 0) | (has("W") ? 16 : 0);
    if (s64 && has("R") && !has("HI")) in.variant &= ~8;
    if (ops.sources.size() != 3) bad("shf");
  } else if (opcode == "LOP3" || opcode == "ULOP3") {
    size_t b = 0;
    SassOperand z = preg(args[0]);
    if (z.idx != ~0u) {
      ops.predicates_out.push_back(z);
      b = 1;
    }
    ops.destinations.push_back(parse(args[b++]));
    for (; b < args.size(); ++b) {
      SassOperand y = preg(args[b]);
      if (y.idx != ~0u)
        ops.predicates_in.push_back(y);
      else
        ops.sources.push_back(parse(args[b]));
    }
    f = s_lop3;
    if (ops.sources.size() != 4) bad("lop3");
  } else if (opcode == "PLOP3" || opcode == "UPLOP3") {
    ops.predicates_out = {preg(args[0]), preg(args[1])};
    ops.predicates_in = {preg(args[2]), preg(args[3]), preg(args[4])};
    ops.sources = {parse(args[5]), parse(args[6])};
    f = s_plop3;
  } else if (opcode == "ISETP" || opcode == "UISETP") {
    setp();
    f = s_isetp;
    in.variant = sass_comparisons.at(parts[1]) |
                 (has("OR")    ? 16
                  : has("XOR") ? 32
                               : 0) |
                 (has("U32") ? 256 : 0) | (has("EX") ? 512 : 0);
  } else if (opcode == "SEL" || opcode == "USEL") {
    general(1);
    f = s_sel;
  } else if (opcode == "VIMNMX") {
    general(1);
    f = s_vimnmx;
    in.variant = has("U32");
  } else if (opcode == "VIADDMNMX") {
    general(1);
    f = s_vimnmx;
    in.variant = 2 | (has("U32") ? 1 : 0);
  } else if (opcode == "IABS") {
    general(1);
    f = s_iabs;
  } else
    return false;
  return true;
}
