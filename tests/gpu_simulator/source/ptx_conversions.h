// PTX instructions: comparisons and conversions.

// setp, all comparisons, with .and, .or, .xor.
template <class T, int CMP>
static void x_setp(Thread& t, const Instruction& i) {
  const auto a = number_of<T>(SOURCE_A), b = number_of<T>(SOURCE_B);
  bool un = false;
  if constexpr (std::is_floating_point_v<std::decay_t<decltype(a)>>) un = a != a || b != b;
  bool r = false;
  switch (CMP) {
    case 0:
      r = !un && a == b;
      break;
    case 1:
      r = !un && a != b;
      break;
    case 2:
      r = a < b;
      break;
    case 3:
      r = a <= b;
      break;
    case 4:
      r = a > b;
      break;
    case 5:
      r = a >= b;
      break;
    case 6:
      r = un || a == b;
      break;
    case 7:
      r = un || a != b;
      break;
    case 8:
      r = un || a < b;
      break;
    case 9:
      r = un || a <= b;
      break;
    case 10:
      r = un || a > b;
      break;
    case 11:
      r = un || a >= b;
      break;
    case 12:
      r = un;
      break;
    case 13:
      r = !un;
      break;
  }
  if (i.variant) {
    bool c = SOURCE_C & 1;
    r = i.variant == 1 ? r && c : i.variant == 2 ? r || c : r != c;
  }
  SET_RESULT(r);
}

// cvt: integer to float to integer (saturating, NaN to 0), to integral values, .sat, f32 and f64, tf32 (.rna), bf16,
// f16, x2.
template <class To, class From>
static void x_cvti(Thread& t, const Instruction& i) {
  SET_RESULT(bits_of<To>(To(From(SOURCE_A))));
}
template <class To, class From>
static void x_cvtif(Thread& t, const Instruction& i) {
  SET_RESULT(bits_of<To>(To(From(SOURCE_A))));
}
template <class To, class From>
static void x_cvtfi(Thread& t, const Instruction& i) {
  From a = number_of<From>(SOURCE_A);
  From r = i.variant == 0   ? std::nearbyint(a)
           : i.variant == 1 ? std::trunc(a)
           : i.variant == 2 ? std::floor(a)
                            : std::ceil(a);
  To o;
  if (r != r)
    o = 0;
  else {
    long double lo = std::numeric_limits<To>::min(), hi = std::numeric_limits<To>::max();
    o = r <= lo ? std::numeric_limits<To>::min() : r >= hi ? std::numeric_limits<To>::max() : To(r);
  }
  SET_RESULT(bits_of<To>(o));
}
static const u8 FLUSHES = 99;
template <class T>
static void x_cvtint(Thread& t, const Instruction& i) {
  T a = number_of<T>(SOURCE_A);
  if constexpr (std::is_same_v<T, float>)
    if (i.count == FLUSHES) a = ftz(a);
  SET_RESULT(bits_of<T>(i.variant == 0   ? std::nearbyint(a)
                        : i.variant == 1 ? std::trunc(a)
                        : i.variant == 2 ? std::floor(a)
                                         : std::ceil(a)));
}
static void x_cvtsat(Thread& t, const Instruction& i) {
  float a = as_float(SOURCE_A);
  SET_RESULT(float_bits(a != a ? 0.f : a < 0 ? 0.f : a > 1 ? 1.f : a));
}
static void x_f2d(Thread& t, const Instruction& i) {
  SET_RESULT(double_bits(as_float(SOURCE_A)));
}
static void x_d2f(Thread& t, const Instruction& i) {
  SET_RESULT(float_bits(float(as_double(SOURCE_A))));
}
static void x_d2frz(Thread& t, const Instruction& i) {
  volatile double a = as_double(SOURCE_A);
  fesetround(FE_TOWARDZERO);
  volatile float f = float(a);
  fesetround(FE_TONEAREST);
  SET_RESULT(float_bits(f));
}
static void x_tf32(Thread& t, const Instruction& i) {
  u32 b = u32(SOURCE_A);
  if ((b & 0x7f800000) != 0x7f800000) b = (b + 0x1000) & ~0x1fffu;
  SET_RESULT(b);
}
static void x_cvtbf(Thread& t, const Instruction& i) {
  SET_RESULT(float_to_bfloat16(as_float(SOURCE_A)));
}
static void x_cvth(Thread& t, const Instruction& i) {
  SET_RESULT(float_to_half(as_float(SOURCE_A)));
}
static void x_cvthf(Thread& t, const Instruction& i) {
  SET_RESULT(float_bits(half_to_float(u16(SOURCE_A))));
}
static void x_cvtbff(Thread& t, const Instruction& i) {
  SET_RESULT(u32(u16(SOURCE_A)) << 16);
}
static void x_cvtbf2(Thread& t, const Instruction& i) {
  SET_RESULT(u32(float_to_bfloat16(as_float(SOURCE_B))) | u32(float_to_bfloat16(as_float(SOURCE_A))) << 16);
}
static void x_cvth2(Thread& t, const Instruction& i) {
  SET_RESULT(u32(float_to_half(as_float(SOURCE_B))) | u32(float_to_half(as_float(SOURCE_A))) << 16);
}

template <class T>
static Execute setp_of(int c) {
  switch (c) {
#define CASE(n) \
  case n:       \
    return x_setp<T, n>;
    CASE(0) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13)
  }
  return nullptr;
}
template <class To>
static Execute cvti_from(const string& s) {
  return s == "s8"    ? (Execute)x_cvti<To, i8>
         : s == "u8"  ? (Execute)x_cvti<To, u8>
         : s == "s16" ? (Execute)x_cvti<To, i16>
         : s == "u16" ? (Execute)x_cvti<To, u16>
         : s == "s32" ? (Execute)x_cvti<To, i32>
         : s == "u32" ? (Execute)x_cvti<To, u32>
         : s == "s64" ? (Execute)x_cvti<To, i64>
         : s == "u64" ? (Execute)x_cvti<To, u64>
                      : nullptr;
}
template <class From>
static Execute cvtfi_to(const string& s) {
  return s == "s32"   ? (Execute)x_cvtfi<i32, From>
         : s == "u32" ? (Execute)x_cvtfi<u32, From>
         : s == "s64" ? (Execute)x_cvtfi<i64, From>
         : s == "u64" ? (Execute)x_cvtfi<u64, From>
                      : nullptr;
}

bool PtxDecoder::decode_conversions() {
  Execute& f = in.execute;
  if (opcode == "setp") {
    static const std::map<string, int> cm = {{"eq", 0},   {"ne", 1},   {"lt", 2},  {"le", 3},  {"gt", 4},   {"ge", 5},
                                             {"equ", 6},  {"neu", 7},  {"ltu", 8}, {"leu", 9}, {"gtu", 10}, {"geu", 11},
                                             {"nan", 12}, {"num", 13}, {"lo", 2},  {"ls", 3},  {"hi", 4},   {"hs", 5}};
    int c = cm.at(parts[1]);
    take_operands();
    if (args.size() == 4) {
      in.variant = has("and") ? 1 : has("or") ? 2 : 3;
    }
    if (args[0].find('|') != string::npos) bad("setp|");
    f = is_float                         ? setp_of<float>(c)
        : is_double                      ? setp_of<double>(c)
        : type == "s16"                  ? setp_of<i16>(c)
        : type == "u16" || type == "b16" ? setp_of<u16>(c)
        : type == "s32"                  ? setp_of<i32>(c)
        : type == "u32" || type == "b32" ? setp_of<u32>(c)
        : type == "s64"                  ? setp_of<i64>(c)
        : type == "u64" || type == "b64" ? setp_of<u64>(c)
        : type == "f16"                  ? setp_of<HalfBits>(c)
                                         : nullptr;
  } else if (opcode == "cvt") {
    take_operands();
    string from = parts.back(), to = parts[parts.size() - 2];
    if (has("ftz") && !(to == "f32" && from == "f32")) bad("unsupported .ftz");
    in.variant = has("rni") ? 0 : has("rzi") ? 1 : has("rmi") ? 2 : has("rpi") ? 3 : 9;
    bool ff = from[0] == 'f' || from == "bf16",
         tf = to[0] == 'f' || to == "bf16" || to == "tf32" || to == "bf16x2" || to == "f16x2";
    if (to == "tf32" && from == "f32" && has("rna"))
      f = x_tf32;
    else if (to == "bf16x2")
      f = x_cvtbf2;
    else if (to == "f16x2")
      f = x_cvth2;
    else if (to == "bf16" && from == "f32" && has("rn"))
      f = x_cvtbf;
    else if (to == "f16" && from == "f32" && has("rn"))
      f = x_cvth;
    else if (to == "f32" && from == "f16")
      f = x_cvthf;
    else if (to == "f32" && from == "bf16")
      f = x_cvtbff;
    else if (has("sat") && to == "f32" && from == "f32")
      f = x_cvtsat;
    else if (has("sat"))
      bad("sat");
    else if (ff && tf) {
      if (to == from) {
        if (in.variant == 9) bad("cvt");
        if (has("ftz")) in.count = FLUSHES;
        f = to == "f32" ? (Execute)x_cvtint<float> : (Execute)x_cvtint<double>;
      } else if (to == "f64" && from == "f32")
        f = x_f2d;
      else if (to == "f32" && from == "f64")
        f = has("rn") ? x_d2f : has("rz") ? x_d2frz : nullptr;
    } else if (!ff && tf) {
      if (!has("rn")) bad("cvt rounding");
      if (to == "f32")
        f = from == "s32"   ? (Execute)x_cvtif<float, i32>
            : from == "u32" ? (Execute)x_cvtif<float, u32>
            : from == "s64" ? (Execute)x_cvtif<float, i64>
            : from == "u64" ? (Execute)x_cvtif<float, u64>
            : from == "s16" ? (Execute)x_cvtif<float, i16>
            : from == "u16" ? (Execute)x_cvtif<float, u16>
                            : nullptr;
      else if (to == "f64")
        f = from == "s32"   ? (Execute)x_cvtif<double, i32>
            : from == "u32" ? (Execute)x_cvtif<double, u32>
            : from == "s64" ? (Execute)x_cvtif<double, i64>
            : from == "u64" ? (Execute)x_cvtif<double, u64>
                            : nullptr;
    } else if (ff && !tf) {
      f = from == "f32" ? cvtfi_to<float>(to) : cvtfi_to<double>(to);
      if (in.variant == 9) bad("cvt");
    } else
      f = to == "s8"    ? cvti_from<i8>(from)
          : to == "u8"  ? cvti_from<u8>(from)
          : to == "s16" ? cvti_from<i16>(from)
          : to == "u16" ? cvti_from<u16>(from)
          : to == "s32" ? cvti_from<i32>(from)
          : to == "u32" ? cvti_from<u32>(from)
          : to == "s64" ? cvti_from<i64>(from)
          : to == "u64" ? cvti_from<u64>(from)
                        : nullptr;
  } else
    return false;
  return true;
}
