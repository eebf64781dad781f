// SASS instructions: conversions, bits, predicates as registers.

// Conversions: I2F, F2I, FRND, F2F, F2FP (two to f16 or bf16), HADD2.F32 (f16 to f32), HFMA2 as a constant.
SASS(i2f) {
  SASS_OPERANDS;
  int f = i.variant;
  if (f & 256) {
    i64 v = i64(int64_of(t, ops.sources[0]));
    double r = (f & 1) ? double(u64(v)) : double(v);
    if (f & 2048) r = (f & 1) ? double(int_of(t, ops.sources[0])) : double(i32(int_of(t, ops.sources[0])));
    set_register64(t, ops.destinations[0], double_bits(r));
    return;
  }
  fesetround(f & 4 ? FE_UPWARD : FE_TONEAREST);
  volatile float r;
  if (f & 2) {
    volatile u64 v = int64_of(t, ops.sources[0]);
    r = (f & 1) ? float(v) : float(i64(v));
  } else {
    volatile u32 v = int_of(t, ops.sources[0]);
    volatile i32 w = i32(v);
    r = (f & 1) ? float(v) : float(w);
  }
  fesetround(FE_TONEAREST);
  set_register(t, ops.destinations[0], bits_as<u32>(float(r)));
}
SASS(f2i) {
  SASS_OPERANDS;
  int f = i.variant;
  long double a = (f & 16) ? (long double)double_of(t, ops.sources[0]) : (long double)float_of(t, ops.sources[0]);
  long double r = (f & 4) ? std::ceil(a) : (f & 8) ? std::floor(a) : (f & 32) ? std::nearbyint(a) : std::trunc(a);
  if (r != r) r = 0;
  if (f & 2) {
    u64 o = (f & 1) ? (r <= 0                         ? 0
                       : r >= 18446744073709551615.0L ? ~0ull
                                                      : u64(r))
                    : u64(r <= -9223372036854775808.0L  ? INT64_MIN
                          : r >= 9223372036854775807.0L ? INT64_MAX
                                                        : i64(r));
    set_register64(t, ops.destinations[0], o);
  } else {
    u32 o = (f & 1) ? (r <= 0               ? 0
                       : r >= 4294967295.0L ? ~0u
                                            : u32(r))
                    : u32(r <= -2147483648.0L  ? INT32_MIN
                          : r >= 2147483647.0L ? INT32_MAX
                                               : i32(r));
    set_register(t, ops.destinations[0], o);
  }
}
SASS(frnd) {
  SASS_OPERANDS;
  if (i.variant & 16) {
    double a = double_of(t, ops.sources[0]);
    set_register64(t, ops.destinations[0],
                   double_bits((i.variant & 15) == 1   ? std::floor(a)
                               : (i.variant & 15) == 2 ? std::ceil(a)
                               : (i.variant & 15) == 3 ? std::trunc(a)
                                                       : std::nearbyint(a)));
  } else {
    float a = float_of(t, ops.sources[0]);
    set_register(t, ops.destinations[0],
                 float_bits((i.variant & 15) == 1   ? std::floor(a)
                            : (i.variant & 15) == 2 ? std::ceil(a)
                            : (i.variant & 15) == 3 ? std::trunc(a)
                                                    : std::nearbyint(a)));
  }
}
SASS(f2f) {
  SASS_OPERANDS;
  if (i.variant == 0)
    set_register(t, ops.destinations[0], float_bits(float(double_of(t, ops.sources[0]))));
  else
    set_register64(t, ops.destinations[0], double_bits(double(float_of(t, ops.sources[0]))));
}
SASS(f2fp) {
  SASS_OPERANDS;
  float a = float_of(t, ops.sources[0]), b = float_of(t, ops.sources[1]);
  set_register(t, ops.destinations[0],
               i.variant ? u32(float_to_half(b)) | u32(float_to_half(a)) << 16
                         : u32(float_to_bfloat16(b)) | u32(float_to_bfloat16(a)) << 16);
}
SASS(hadd2f32) {
  SASS_OPERANDS;
  auto hv = [&](const SassOperand& o) {
    if (o.idx == RZ && o.kind == 0) return o.neg ? -0.f : 0.f;
    u32 v = raw_of(t, o);
    float f = half_to_float(o.half == 1 ? v >> 16 : v);
    if (o.abs) f = std::fabs(f);
    return o.neg ? -f : f;
  };
  float a = hv(ops.sources[0]), b = hv(ops.sources[1]);
  set_register(t, ops.destinations[0], float_bits(a + b));
}
SASS(hfma2c) {
  SASS_OPERANDS;
  set_register(t, ops.destinations[0], u32(ops.sources[2].imm));
}

// Bits and predicates as registers: PRMT, P2R, R2P, CS2R (zero), S2R.
SASS(prmt) {
  SASS_OPERANDS;
  u64 ab = u64(int_of(t, ops.sources[0])) | u64(int_of(t, ops.sources[2])) << 32;
  u32 s = int_of(t, ops.sources[1]), r = 0;
  for (int k = 0; k < 4; ++k) {
    u32 z = s >> (4 * k) & 15;
    u8 by = ab >> (8 * (z & 7));
    if (z & 8) by = (by & 0x80) ? 0xff : 0;
    r |= u32(by) << (8 * k);
  }
  set_register(t, ops.destinations[0], r);
}
SASS(p2r) {
  SASS_OPERANDS;
  u32 m = int_of(t, ops.sources[1]), v = 0;
  for (int k = 0; k < 7; ++k) v |= u32(t.registers[P0_ + k] & 1) << k;
  set_register(t, ops.destinations[0], (v & m) | (int_of(t, ops.sources[0]) & ~m));
}
SASS(r2p) {
  SASS_OPERANDS;
  u32 v = int_of(t, ops.sources[0]), m = int_of(t, ops.sources[1]);
  for (int k = 0; k < 7; ++k)
    if (m >> k & 1) t.registers[P0_ + k] = v >> k & 1;
}
SASS(cs2r) {
  SASS_OPERANDS;
  if (i.variant)
    set_register(t, ops.destinations[0], 0);
  else
    set_register64(t, ops.destinations[0], 0);
}
SASS(s2r) {
  SASS_OPERANDS;
  u32 v;
  switch (i.variant) {
    case 0:
      v = t.tid;
      break;
    case 1:
      v = 0;
      break;
    case 2:
      v = t.block->id[0];
      break;
    case 3:
      v = t.block->id[1];
      break;
    case 4:
      v = t.block->id[2];
      break;
    case 5:
      v = t.block->rank;
      break;
    case 6:
      v = SWIN;
      break;
    case 7:
      v = t.lane;
      break;
    default:
      v = 0;
  }
  set_register(t, ops.destinations[0], v);
}

bool SassDecoder::decode_bits() {
  Execute& f = in.execute;
  if (opcode == "I2F" || opcode == "I2FP") {
    general(1);
    f = s_i2f;
    bool f64 = has("F64");
    in.variant = ((has("U32") || has("U64")) ? 1 : 0) | ((has("S64") || has("U64")) ? 2 : 0) | (has("RP") ? 4 : 0) |
                 (f64 ? 256 : 0);
    if (f64 && !(has("S64") || has("U64"))) in.variant |= 2048;
  } else if (opcode == "F2I") {
    is_double = has("F64");
    general(1);
    f = s_f2i;
    in.variant = ((has("U32") || has("U64")) ? 1 : 0) | ((has("S64") || has("U64")) ? 2 : 0) | (has("CEIL") ? 4 : 0) |
                 (has("FLOOR") ? 8 : 0) | (has("F64") ? 16 : 0);
    if (!has("TRUNC") && !has("CEIL") && !has("FLOOR")) in.variant |= 32;
  } else if (opcode == "FRND") {
    general(1);
    f = s_frnd;
    in.variant = (has("FLOOR") ? 1 : has("CEIL") ? 2 : has("TRUNC") ? 3 : 0) | (has("F64") ? 16 : 0);
  } else if (opcode == "F2F") {
    general(1);
    f = s_f2f;
    in.variant = o == "F2F.F32.F64" ? 0 : o == "F2F.F64.F32" ? 1 : 99;
    if (in.variant == 99) bad("f2f");
  } else if (opcode == "F2FP") {
    general(1);
    f = s_f2fp;
    in.variant = has("F16");
    if (!has("PACK_AB")) bad("f2fp");
  } else if (opcode == "HADD2" && has("F32")) {
    general(1);
    f = s_hadd2f32;
  } else if (opcode == "HFMA2") {
    if (args[1] != "-RZ" || args[2] != "RZ" || args.size() != 5) bad("hfma2");
    ops.destinations.push_back(parse(args[0]));
    SassOperand z;
    z.kind = 1;
    z.imm = u64(float_to_half(parse_float(args[3]))) << 16 | float_to_half(parse_float(args[4]));
    ops.sources = {z, z, z};
    f = s_hfma2c;
  } else if (opcode == "PRMT" || opcode == "UPRMT") {
    general(1);
    f = s_prmt;
    if (parts.size() > 1) bad("prmt");
  } else if (opcode == "P2R") {
    ops.destinations.push_back(parse(args[0]));
    ops.sources = {parse(args[2]), parse(args[3])};
    f = s_p2r;
  } else if (opcode == "R2P") {
    ops.sources = {parse(args[1]), parse(args[2])};
    f = s_r2p;
  } else if (opcode == "CS2R") {
    if (args[1] != "SRZ") bad("cs2r");
    ops.destinations.push_back(parse(args[0]));
    f = s_cs2r;
    in.variant = has("32");
  } else if (opcode == "S2R" || opcode == "S2UR") {
    ops.destinations.push_back(parse(args[0]));
    static const std::map<string, int> z = {{"SR_TID.X", 0},   {"SR_TID.Y", 1},    {"SR_CTAID.X", 2}, {"SR_CTAID.Y", 3},
                                            {"SR_CTAID.Z", 4}, {"SR_CgaCtaId", 5}, {"SR_SWINHI", 6},  {"SR_LANEID", 7}};
    auto it = z.find(args[1]);
    if (it == z.end()) bad("sr");
    in.variant = it->second;
    f = s_s2r;
  } else
    return false;
  return true;
}
