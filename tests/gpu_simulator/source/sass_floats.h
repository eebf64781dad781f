// SASS instructions: floating point.

// Comparisons: FSETP, DSETP.
template <class T>
static bool fcmp(int c, T a, T b) {
  bool un = a != a || b != b;
  switch (c) {
    case 0:
      return !un && a == b;
    case 1:
      return !un && a != b;
    case 2:
      return a < b;
    case 3:
      return a <= b;
    case 4:
      return a > b;
    case 5:
      return a >= b;
    case 6:
      return un || a == b;
    case 7:
      return un || a != b;
    case 8:
      return un || a < b;
    case 9:
      return un || a <= b;
    case 10:
      return un || a > b;
    case 11:
      return un || a >= b;
    case 12:
      return un;
    default:
      return !un;
  }
}
SASS(fsetp) {
  SASS_OPERANDS;
  bool r;
  if (i.variant & 256)
    r = fcmp<double>(i.variant & 15, double_of(t, ops.sources[0]), double_of(t, ops.sources[1]));
  else {
    float a = float_of(t, ops.sources[0]), b = float_of(t, ops.sources[1]);
    if (i.variant & 512) {
      a = ftz(a);
      b = ftz(b);
    }
    r = fcmp<float>(i.variant & 15, a, b);
  }
  int comb = i.variant >> 4 & 3;
  bool p = predicate_of(t, ops.predicates_in[0]);
  auto cm = [&](bool z) { return comb == 0 ? z && p : comb == 1 ? z || p : z != p; };
  set_predicate(t, ops.predicates_out[0], cm(r));
  set_predicate(t, ops.predicates_out[1], cm(!r));
}

// Floating point: FADD, FMUL, FFMA, DADD, DMUL, DFMA; .FTZ, .SAT, the rounding modes of the host.
static int rmode(int x) {
  return x == 1 ? FE_DOWNWARD : x == 2 ? FE_UPWARD : x == 3 ? FE_TOWARDZERO : FE_TONEAREST;
}
static void fout(Thread& t, const Instruction& i, const SassOperands& ops, float r) {
  if (i.variant & 16) r = r != r ? 0.f : r < 0 ? 0.f : r > 1 ? 1.f : r;
  if (i.variant & 32) r = ftz(r);
  set_register(t, ops.destinations[0], bits_as<u32>(r));
}
SASS(fadd) {
  SASS_OPERANDS;
  volatile float a = float_of(t, ops.sources[0]), b = float_of(t, ops.sources[1]);
  if (i.variant & 32) {
    a = ftz(a);
    b = ftz(b);
  }
  fout(t, i, ops, a + b);
}
SASS(fmul) {
  SASS_OPERANDS;
  volatile float a = float_of(t, ops.sources[0]), b = float_of(t, ops.sources[1]);
  if (i.variant & 32) {
    a = ftz(a);
    b = ftz(b);
  }
  fesetround(rmode(i.variant & 15));
  volatile float r = a * b;
  fesetround(FE_TONEAREST);
  fout(t, i, ops, r);
}
SASS(ffma) {
  SASS_OPERANDS;
  volatile float a = float_of(t, ops.sources[0]), b = float_of(t, ops.sources[1]), c = float_of(t, ops.sources[2]);
  if (i.variant & 32) {
    a = ftz(a);
    b = ftz(b);
    c = ftz(c);
  }
  fesetround(rmode(i.variant & 15));
  volatile float r = __builtin_fmaf(a, b, c);
  fesetround(FE_TONEAREST);
  fout(t, i, ops, r);
}
SASS(dadd) {
  SASS_OPERANDS;
  set_register64(t, ops.destinations[0], double_bits(double_of(t, ops.sources[0]) + double_of(t, ops.sources[1])));
}
SASS(dmul) {
  SASS_OPERANDS;
  volatile double a = double_of(t, ops.sources[0]), b = double_of(t, ops.sources[1]);
  fesetround(rmode(i.variant & 15));
  volatile double r = a * b;
  fesetround(FE_TONEAREST);
  set_register64(t, ops.destinations[0], double_bits(r));
}
SASS(dfma) {
  SASS_OPERANDS;
  volatile double a = double_of(t, ops.sources[0]), b = double_of(t, ops.sources[1]), c = double_of(t, ops.sources[2]);
  fesetround(rmode(i.variant & 15));
  volatile double r = __builtin_fma(a, b, c);
  fesetround(FE_TONEAREST);
  set_register64(t, ops.destinations[0], double_bits(r));
}

// Selections: FSEL, FMNMX.
SASS(fsel) {
  SASS_OPERANDS;
  set_register(
      t, ops.destinations[0],
      bits_as<u32>(predicate_of(t, ops.predicates_in[0]) ? float_of(t, ops.sources[0]) : float_of(t, ops.sources[1])));
}
SASS(fmnmx) {
  SASS_OPERANDS;
  float a = float_of(t, ops.sources[0]), b = float_of(t, ops.sources[1]);
  bool mn = predicate_of(t, ops.predicates_in[0]);
  if (i.variant == 2) {  // .XORSIGN: of operands in bars, with the signs they have without
    const u32 sign = (raw_of(t, ops.sources[0]) ^ raw_of(t, ops.sources[1])) & 0x80000000;
    const float x = std::fabs(a), y = std::fabs(b);
    const float one = x != x ? y : y != y ? x : mn == (x < y) ? x : y;
    set_register(t, ops.destinations[0], bits_as<u32>(one) | sign);
    return;
  }
  float r = i.variant && (a != a || b != b) ? NAN
            : a != a                        ? b
            : b != b                        ? a
            : mn                            ? (a < b || (a == b && std::signbit(a)) ? a : b)
                                            : (a > b || (a == b && !std::signbit(a)) ? a : b);
  set_register(t, ops.destinations[0], bits_as<u32>(r));
}

// MUFU: the correctly rounded value (the hardware is off by an ulp or two). FCHK: true where a division takes the slow
// path, by ranges of exponents that are a guess on the safe side.
SASS(mufu) {
  SASS_OPERANDS;
  if (i.variant == 5) {
    u64 b = u64(int_of(t, ops.sources[0])) << 32;
    double r = 1.0 / as_double(b);
    set_register(t, ops.destinations[0], u32(double_bits(r) >> 32));
    return;
  }
  float a = float_of(t, ops.sources[0]);
  double x = a, r;
  switch (i.variant) {
    case 0:
      r = 1.0 / x;
      break;
    case 1:
      r = std::exp2(double(ftz(a)));
      break;
    case 2:
      r = 1.0 / std::sqrt(x);
      break;
    case 3:
      r = std::log2(x);
      break;
    case 4:
      r = std::sqrt(x);
      break;
    default:
      fault(&t, "mufu");
  }
  float f = float(r);
  if (i.variant == 1) f = ftz(f);
  set_register(t, ops.destinations[0], bits_as<u32>(f));
}
SASS(fchk) {
  SASS_OPERANDS;
  u32 a = bits_as<u32>(float_of(t, ops.sources[0])), b = bits_as<u32>(float_of(t, ops.sources[1]));
  int ea = a >> 23 & 255, eb = b >> 23 & 255;
  bool slow = eb < 3 || eb > 251 || ea < 26 || ea > 253 || ea - eb > 120 || ea - eb < -120;
  if ((a & 0x7fffffff) == 0 && eb >= 3 && eb <= 251) slow = true;
  set_predicate(t, ops.predicates_out[0], slow);
}

bool SassDecoder::decode_floats() {
  Execute& f = in.execute;
  const u32 rounding = (has("SAT") ? 16 : 0) | (has("FTZ") ? 32 : 0) |
                       (has("RM")   ? 1
                        : has("RP") ? 2
                        : has("RZ") ? 3
                                    : 0);
  if (opcode == "FSETP" || opcode == "DSETP") {
    setp();
    f = s_fsetp;
    in.variant = sass_comparisons.at(parts[1]) |
                 (has("OR")    ? 16
                  : has("XOR") ? 32
                               : 0) |
                 (is_double ? 256 : 0) | (has("FTZ") ? 512 : 0);
  } else if (opcode == "FADD") {
    general(1);
    f = s_fadd;
    in.variant = rounding;
  } else if (opcode == "FMUL") {
    general(1);
    f = s_fmul;
    in.variant = rounding;
  } else if (opcode == "FFMA") {
    general(1);
    f = s_ffma;
    in.variant = rounding;
  } else if (opcode == "DADD") {
    general(1);
    f = s_dadd;
  } else if (opcode == "DMUL") {
    general(1);
    f = s_dmul;
    in.variant = rounding;
  } else if (opcode == "DFMA") {
    general(1);
    f = s_dfma;
    in.variant = rounding;
  } else if (opcode == "FSEL") {
    general(1);
    f = s_fsel;
  } else if (opcode == "FMNMX") {
    general(1);
    f = s_fmnmx;
    in.variant = has("XORSIGN") ? 2 : has("NAN");
  } else if (opcode == "MUFU") {
    ops.destinations.push_back(parse(args[0]));
    ops.sources.push_back(parse(args[1]));
    f = s_mufu;
    in.variant = has("RCP")      ? 0
                 : has("EX2")    ? 1
                 : has("RSQ")    ? 2
                 : has("LG2")    ? 3
                 : has("SQRT")   ? 4
                 : has("RCP64H") ? 5
                                 : 99;
    if (in.variant == 99) bad("mufu");
  } else if (opcode == "FCHK") {
    ops.predicates_out = {preg(args[0])};
    ops.sources = {parse(args[1]), parse(args[2])};
    f = s_fchk;
  } else
    return false;
  return true;
}
