// SASS instructions of several threads, and control flow.

// Per warp: R2UR with a predicate (the first lane gives the value), BRA.ANY, R2UR.
SASS(r2urw) {
  SASS_OPERANDS;
  if (!warp_collect(t)) return;
  Thread* lead = nullptr;
  for (auto* o : t.warp->lanes)
    if (!lead && predicate_of(*o, ops.predicates_in[0])) lead = o;
  if (lead) {
    u32 v = int_of(*lead, ops.sources[0]);
    for (auto* o : t.warp->lanes) {
      bool mine = predicate_of(*o, ops.predicates_in[0]);
      if (mine) set_predicate(*o, ops.predicates_out[0], int_of(*o, ops.sources[0]) != v);
      set_register(*o, ops.destinations[0], v);
    }
  }
  warp_release(t);
}
SASS(braany) {
  SASS_OPERANDS;
  if (!warp_collect(t)) return;
  bool any = false;
  for (auto* o : t.warp->lanes) any |= predicate_of(*o, ops.predicates_in[0]);
  auto w = t.warp->waiting;
  warp_release(t);
  if (any)
    for (auto* o : w) o->pc = i.target;
}
SASS(r2ur) {
  SASS_OPERANDS;
  set_register(t, ops.destinations[0], int_of(t, ops.sources[0]));
  if (!ops.predicates_out.empty()) set_predicate(t, ops.predicates_out[0], true);
}

// Control flow: BRA, BRX (tables in constant bank 2), CALL and RET inside of a kernel. BSSY, BSYNC do nothing: threads
// are independent and meet at the next .sync.
SASS(bra) {
  SASS_OPERANDS;
  for (auto& o : ops.predicates_in)
    if (!predicate_of(t, o)) return;
  t.pc = i.target - 1;
}
SASS(brx) {
  SASS_OPERANDS;
  u64 a = u64(raw_of(t, ops.sources[0])) + i64(i.offset) + current_sass->addr[t.pc] + 16;
  auto it = current_sass->at.find(u32(a));
  if (it == current_sass->at.end()) fault(&t, "BRX target");
  t.pc = it->second - 1;
}
SASS(call) {
  t.pc = i.target - 1;
}
SASS(ret) {
  SASS_OPERANDS;
  u32 a = raw_of(t, ops.sources[0]);
  auto it = current_sass->at.find(a);
  if (it == current_sass->at.end()) fault(&t, "RET target");
  t.pc = it->second - 1;
}

// SHFL, VOTEU, WARPSYNC.
SASS(shfl) {
  SASS_OPERANDS;
  if (!warp_collect(t)) return;
  auto& lanes = t.warp->lanes;
  u32 in[32];
  for (int l = 0; l < 32; ++l) in[l] = raw_of(*lanes[l], ops.sources[0]);
  for (int l = 0; l < 32; ++l) {
    Thread& o = *lanes[l];
    u32 b = raw_of(o, ops.sources[1]) & 31, c = raw_of(o, ops.sources[2]);
    int seg = (c >> 8) & 31, cv = c & 31, maxl = (l & seg) | (cv & ~seg), minl = l & seg, j;
    bool p;
    switch (i.variant) {
      case 0:
        j = minl | (b & ~seg);
        p = j <= maxl;
        break;
      case 1:
        j = l ^ b;
        p = j <= maxl;
        break;
      case 2:
        j = l - int(b);
        p = j >= maxl;
        break;
      default:
        j = l + int(b);
        p = j <= maxl;
    }
    if (!p) j = l;
    set_register(o, ops.destinations[0], in[j]);
    if (!ops.predicates_out.empty()) set_predicate(o, ops.predicates_out[0], p);
  }
  warp_release(t);
}
SASS(votell) {
  SASS_OPERANDS;
  if (!warp_collect(t)) return;
  bool all = true, any = false;
  for (auto* o : t.warp->lanes) {
    bool p = predicate_of(*o, ops.predicates_in[0]);
    all &= p;
    any |= p;
  }
  for (auto* o : t.warp->lanes) set_predicate(*o, ops.predicates_out[0], i.variant ? any : all);
  warp_release(t);
}
SASS(wsync) {
  if (warp_collect(t)) warp_release(t, true);
}

// HMMA.1688 TF32, HMMA.16816 F16 and BF16, with float32 sums; fragments as of mma.sync.
SASS(hmma) {
  SASS_OPERANDS;
  if (!warp_collect(t)) return;
  const auto& lanes = t.warp->lanes;
  multiply_fragments(
      MmaType(i.variant), [&](int l, int k) { return raw_of(*lanes[l], ops.sources[0], k); },
      [&](int l, int k) { return raw_of(*lanes[l], ops.sources[1], k); },
      [&](int l, int k) { return as_float(raw_of(*lanes[l], ops.sources[2], k)); },
      [&](int l, int k, float d) { set_register(*lanes[l], ops.destinations[0], bits_as<u32>(d), k); });
  warp_release(t);
}

// mbarriers: SYNCS.EXCH (init; the value holds the count), SYNCS.ARRIVE (.A1T0: arrival alone; else the transaction
// bytes too), SYNCS.PHASECHK. STAS: st.async.
SASS(sexch) {
  SASS_OPERANDS;
  u32 a = shared_offset(t, u32(address_of(t, i, ops)));
  u32 v = raw_of(t, ops.sources[2]);
  Mbarrier m{};
  m.pending = m.arrivals = i32(0x100000u - (v >> 1));
  m.inited = true;
  if (m.arrivals <= 0 || m.arrivals > 2048) fault(&t, "mbarrier init value");
  if (t.lane == 0) race(t, a, 8, true); /* a uniform instruction: every lane is here */
  sim.mbarriers[{t.block, a}] = m;
}
SASS(sarrive) {
  SASS_OPERANDS;
  u32 a = shared_offset(t, u32(address_of(t, i, ops)));
  Mbarrier& m = find_mbarrier(&t, t.block, a);
  race_after_init(t, t.block, t.vector_clock, a);
  if (sim.race) join(m.vector_clock, t.vector_clock);
  if (i.is_signed) m.tx += i32(raw_of(t, ops.sources[2]));
  m.pending--;
  complete_phase(&t, m);
  if (sim.race) t.vector_clock[t.index_in_cluster]++;
}
SASS(sphase) {
  SASS_OPERANDS;
  u32 a = shared_offset(t, u32(address_of(t, i, ops)));
  Mbarrier& m = find_mbarrier(&t, t.block, a);
  race_after_init(t, t.block, t.vector_clock, a);
  bool done = m.phase != (raw_of(t, ops.sources[2]) >> 31);
  set_predicate(t, ops.predicates_out[0], done);
  if (!done)
    t.polling = true;
  else if (sim.race)
    join(t.vector_clock, m.done);
}
SASS(stas) {
  SASS_OPERANDS;
  AsyncStore s;
  s.to = raw_of(t, ops.sources[0]) + i.offset;
  s.bar = raw_of(t, ops.sources[0], 1);
  if (s.to % 16) fault(&t, "STAS misaligned");
  if (s.to >> 24 != s.bar >> 24) fault(&t, "STAS barrier in another CTA");
  if (s.to >> 24 == u32(t.block->rank)) fault(&t, "STAS to the own block");
  auto cvt = [&](u32 a) {
    if ((a & 0xffffff) < 0x400) fault(&t, "STAS window");
    return ((a >> 24) + 1) << 24 | ((a & 0xffffff) - 0x400);
  };
  s.to = cvt(s.to);
  s.bar = cvt(s.bar);
  for (int k = 0; k < 4; ++k) s.v[k] = raw_of(t, ops.sources[2], k);
  s.from = t.block;
  if (sim.race) {
    s.vector_clock = t.vector_clock;
    s.index_in_cluster = t.index_in_cluster;
    s.th = &t;
  }
  sim.async_stores.push_back(s);
  if (sim.race) t.vector_clock[t.index_in_cluster]++;
}

bool SassDecoder::decode_warps() {
  Execute& f = in.execute;
  if (opcode == "R2UR") {
    size_t b = 0;
    SassOperand z = preg(args[0]);
    if (z.idx != ~0u) {
      ops.predicates_out.push_back(z);
      b = 1;
    }
    ops.destinations.push_back(parse(args[b]));
    ops.sources.push_back(parse(args[b + 1]));
    f = s_r2ur;
    if (b == 1) {
      f = s_r2urw;
      SassOperand z;
      z.idx = in.predicate < 0 ? PT_ : in.predicate;
      z.inv = in.predicate_negated;
      ops.predicates_in = {z};
      in.predicate = -1;
    }
  } else if (opcode == "BRA") {
    if (has("DIV"))
      f = x_nop;
    else {
      string l = args.back();
      if (args.size() > 1) {
        SassOperand z = preg(args[0]);
        if (z.idx == ~0u || args.size() > 2) bad("bra");
        ops.predicates_in.push_back(z);
      }
      f = s_bra;
      if (has("ANY")) {
        SassOperand z;
        z.idx = in.predicate < 0 ? PT_ : in.predicate;
        z.inv = in.predicate_negated;
        ops.predicates_in = {z};
        in.predicate = -1;
        f = s_braany;
      }
      size_t a = l.find('(');
      fix.push_back({(u32)k->instructions.size(), l.substr(a + 1, l.rfind(')') - a - 1)});
    }
  } else if (opcode == "BRX" || opcode == "BRXU") {
    auto z = split(strip(body.substr(sp)), ' ');
    ops.sources.push_back(parse(z[0]));
    in.offset = z.size() > 1 && z[1].size()
                    ? (z[1][0] == '-' ? -(i32)strtoul(z[1].c_str() + 1, 0, 16) : (i32)strtoul(z[1].c_str(), 0, 16))
                    : 0;
    f = s_brx;
  } else if (opcode == "CALL") {
    f = s_call;
    string l = args[0];
    size_t a = l.find('(');
    fix.push_back({(u32)k->instructions.size(), l.substr(a + 1, l.rfind(')') - a - 1)});
  } else if (opcode == "RET") {
    auto z = split(strip(body.substr(sp)), ' ');
    ops.sources.push_back(parse(z[0]));
    f = s_ret;
  } else if (opcode == "EXIT") {
    f = x_ret;
  } else if (opcode == "BPT") {
    f = x_trap;
  } else if (opcode == "BSSY" || opcode == "BSYNC" || opcode == "MEMBAR" || opcode == "ERRBAR" ||
             opcode == "CGAERRBAR" || opcode == "CCTL" || opcode == "FENCE" || opcode == "ENDCOLLECTIVE" ||
             opcode == "BREAK") {
    f = x_nop;
  } else if (opcode == "YIELD") {
    f = x_nop;
  } else if (opcode == "NOP") {
    f = in.predicate < 0 ? s_wsync : x_nop;
  } else if (opcode == "NANOSLEEP") {
    f = x_sleep;
  } else if (opcode == "WARPSYNC") {
    f = has("COLLECTIVE") ? x_nop : s_wsync;
  } else if (opcode == "BAR") {
    if (args[0] != "0x0" || !has("SYNC")) bad("bar");
    f = x_bar;
  } else if (opcode == "SHFL") {
    ops.predicates_out = {preg(args[0])};
    ops.destinations = {parse(args[1])};
    ops.sources = {parse(args[2]), parse(args[3]), parse(args[4])};
    in.variant = has("IDX") ? 0 : has("BFLY") ? 1 : has("UP") ? 2 : 3;
    f = s_shfl;
  } else if (opcode == "VOTEU") {
    if (args.size() != 2) bad("vote");
    ops.predicates_out = {preg(args[0])};
    ops.predicates_in = {preg(args[1])};
    in.variant = has("ANY");
    f = s_votell;
  } else if (opcode == "HMMA") {
    general(1);
    f = s_hmma;
    in.variant = has("TF32") ? TF32 : has("BF16") ? BF16 : F16;
    if (!(has("16816") || has("1688")) || ops.sources.size() != 3) bad("hmma");
    if (has("1688") != has("TF32")) bad("hmma");
  } else if (opcode == "SYNCS") {
    if (has("EXCH")) {
      addr(args[1]);
      ops.sources.push_back(parse(args[2]));
      f = s_sexch;
    } else if (has("ARRIVE")) {
      addr(args[1]);
      ops.sources.push_back(parse(args[2]));
      in.is_signed = !has("A1T0");
      f = s_sarrive;
    } else if (has("PHASECHK")) {
      ops.predicates_out = {preg(args[0])};
      addr(args[1]);
      ops.sources.push_back(parse(args[2]));
      f = s_sphase;
    } else
      bad("syncs");
  } else if (opcode == "STAS") {
    addr(args[0]);
    ops.sources.push_back(parse(args[1]));
    f = s_stas;
    if (!has("128")) bad("stas");
  } else if (opcode == "UCGABAR_ARV") {
    f = x_clarrive;
  } else if (opcode == "UCGABAR_WAIT") {
    f = x_clwait;
  } else
    return false;
  return true;
}
