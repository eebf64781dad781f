// PTX instructions: arithmetic of integers and floating-point numbers.

// Integer and floating-point arithmetic: add, sub, mul, mad, fma, div, rem, neg, abs, min, max. Floats round to nearest
// even as the host does; .rm and .rz of fma by the host's rounding mode. min and max: a NaN loses.
BINARY(x_add, a + b)
BINARY(x_sub, a - b)
BINARY(x_mul, a* b)
template <class T>
static void x_addi(Thread& t, const Instruction& i) {
  using U = std::make_unsigned_t<T>;
  SET_RESULT(u64(U(U(SOURCE_A) + U(SOURCE_B))));
}
template <class T>
static void x_subi(Thread& t, const Instruction& i) {
  using U = std::make_unsigned_t<T>;
  SET_RESULT(u64(U(U(SOURCE_A) - U(SOURCE_B))));
}
template <class T>
static void x_muli(Thread& t, const Instruction& i) {
  using U = std::make_unsigned_t<T>;
  SET_RESULT(u64(U(u64(U(SOURCE_A)) * u64(U(SOURCE_B)))));
}
template <class T>
static void x_neg(Thread& t, const Instruction& i) {
  if constexpr (std::is_floating_point_v<T>)
    SET_RESULT(bits_of<T>(-number_of<T>(SOURCE_A)));
  else {
    using U = std::make_unsigned_t<T>;
    SET_RESULT(u64(U(0 - U(SOURCE_A))));
  }
}
template <class T>
static void x_abs(Thread& t, const Instruction& i) {
  if constexpr (std::is_floating_point_v<T>)
    SET_RESULT(bits_of<T>(std::fabs(number_of<T>(SOURCE_A))));
  else
    SET_RESULT(bits_of<T>(std::abs(T(SOURCE_A))));
}
template <class T>
static void x_min(Thread& t, const Instruction& i) {
  T a = number_of<T>(SOURCE_A), b = number_of<T>(SOURCE_B);
  if constexpr (std::is_floating_point_v<T>)
    SET_RESULT(bits_of<T>(a != a ? b : b != b ? a : (a == b ? (std::signbit(a) ? a : b) : (a < b ? a : b))));
  else
    SET_RESULT(bits_of<T>(a < b ? a : b));
}
// The smaller modulus, with the product of the signs.
static void x_min_xorsign_abs(Thread& t, const Instruction& i) {
  const float a = number_of<float>(SOURCE_A), b = number_of<float>(SOURCE_B), x = std::fabs(a), y = std::fabs(b);
  const float smaller = x != x ? y : y != y ? x : x < y ? x : y;
  SET_RESULT(bits_of<float>(std::copysign(smaller, std::signbit(a) != std::signbit(b) ? -1.0f : 1.0f)));
}
template <class T>
static void x_max(Thread& t, const Instruction& i) {
  T a = number_of<T>(SOURCE_A), b = number_of<T>(SOURCE_B);
  if constexpr (std::is_floating_point_v<T>)
    SET_RESULT(bits_of<T>(a != a ? b : b != b ? a : (a == b ? (std::signbit(a) ? b : a) : (a > b ? a : b))));
  else
    SET_RESULT(bits_of<T>(a > b ? a : b));
}
template <class T>
static void x_div(Thread& t, const Instruction& i) {
  T a = number_of<T>(SOURCE_A), b = number_of<T>(SOURCE_B);
  if constexpr (!std::is_floating_point_v<T>)
    if (b == 0) fault(&t, "division by zero");
  SET_RESULT(bits_of<T>(a / b));
}
template <class T>
static void x_rem(Thread& t, const Instruction& i) {
  T a = T(SOURCE_A), b = T(SOURCE_B);
  if (b == 0) fault(&t, "division by zero");
  SET_RESULT(bits_of<T>(a % b));
}
template <class T>
static void x_mad(Thread& t, const Instruction& i) {
  using U = std::make_unsigned_t<T>;
  SET_RESULT(u64(U(u64(U(SOURCE_A)) * u64(U(SOURCE_B)) + u64(U(SOURCE_C)))));
}
template <class T>
static void x_mulwide(Thread& t, const Instruction& i) {
  if constexpr (std::is_same_v<T, i32>)
    SET_RESULT(u64(i64(i32(SOURCE_A)) * i64(i32(SOURCE_B))));
  else if constexpr (std::is_same_v<T, u32>)
    SET_RESULT(u64(u32(SOURCE_A)) * u64(u32(SOURCE_B)));
  else if constexpr (std::is_same_v<T, i16>)
    SET_RESULT(u32(i32(i16(SOURCE_A)) * i32(i16(SOURCE_B))));
  else
    SET_RESULT(u32(u16(SOURCE_A)) * u32(u16(SOURCE_B)));
}
template <class T>
static void x_madwide(Thread& t, const Instruction& i) {
  if constexpr (std::is_same_v<T, i32>)
    SET_RESULT(u64(i64(i32(SOURCE_A)) * i64(i32(SOURCE_B))) + SOURCE_C);
  else
    SET_RESULT(u64(u32(SOURCE_A)) * u64(u32(SOURCE_B)) + SOURCE_C);
}
template <class T>
static void x_mulhi(Thread& t, const Instruction& i) {
  if constexpr (sizeof(T) == 2) {
    SET_RESULT(u16((i32(T(SOURCE_A)) * i64(T(SOURCE_B))) >> 16));
  } else if constexpr (sizeof(T) == 4) {
    if constexpr (std::is_signed_v<T>)
      SET_RESULT(u32((i64(i32(SOURCE_A)) * i64(i32(SOURCE_B))) >> 32));
    else
      SET_RESULT(u32((u64(u32(SOURCE_A)) * u64(u32(SOURCE_B))) >> 32));
  } else {
    if constexpr (std::is_signed_v<T>)
      SET_RESULT(u64((__int128(i64(SOURCE_A)) * __int128(i64(SOURCE_B))) >> 64));
    else
      SET_RESULT(u64(((unsigned __int128)(SOURCE_A) * (unsigned __int128)(SOURCE_B)) >> 64));
  }
}
template <class T>
static void x_fma(Thread& t, const Instruction& i) {
  SET_RESULT(bits_of<T>(std::fma(number_of<T>(SOURCE_A), number_of<T>(SOURCE_B), number_of<T>(SOURCE_C))));
}
static void x_fma_ftz(Thread& t, const Instruction& i) {
  SET_RESULT(float_bits(ftz(std::fma(ftz(as_float(SOURCE_A)), ftz(as_float(SOURCE_B)), ftz(as_float(SOURCE_C))))));
}
static void x_fma_rm(Thread& t, const Instruction& i) {
  volatile float a = as_float(SOURCE_A), b = as_float(SOURCE_B), c = as_float(SOURCE_C);
  fesetround(FE_DOWNWARD);
  volatile float r = __builtin_fmaf(a, b, c);
  fesetround(FE_TONEAREST);
  SET_RESULT(float_bits(r));
}
static void x_fma_rz(Thread& t, const Instruction& i) {
  volatile float a = as_float(SOURCE_A), b = as_float(SOURCE_B), c = as_float(SOURCE_C);
  fesetround(FE_TOWARDZERO);
  volatile float r = __builtin_fmaf(a, b, c);
  fesetround(FE_TONEAREST);
  SET_RESULT(float_bits(r));
}

// Approximations (ex2, lg2, rcp, rsqrt, sin, cos, tanh .approx): the correctly rounded value, better than the
// hardware's. rcp, sqrt .rn; rcp.approx.ftz.f64 has the upper half of the result only; copysign.
static void x_ex2(Thread& t, const Instruction& i) {
  SET_RESULT(float_bits(ftz(float(std::exp2(double(ftz(as_float(SOURCE_A))))))));
}
static void x_lg2(Thread& t, const Instruction& i) {
  SET_RESULT(float_bits(float(std::log2(double(ftz(as_float(SOURCE_A)))))));
}
static void x_rcpa(Thread& t, const Instruction& i) {
  SET_RESULT(float_bits(ftz(float(1.0 / double(ftz(as_float(SOURCE_A)))))));
}
static void x_rcp(Thread& t, const Instruction& i) {
  SET_RESULT(float_bits(1.0f / as_float(SOURCE_A)));
}
static void x_rcpd(Thread& t, const Instruction& i) {
  SET_RESULT(double_bits(1.0 / as_double(SOURCE_A)));
}
static void x_rcpda(Thread& t, const Instruction& i) {
  double a = as_double(SOURCE_A & 0xffffffff00000000ull);
  double r = 1.0 / a;
  u64 b = double_bits(r);
  SET_RESULT(b & 0xffffffff00000000ull);
}
static void x_sqrt(Thread& t, const Instruction& i) {
  SET_RESULT(float_bits(sqrtf(as_float(SOURCE_A))));
}
static void x_sqrt_ftz(Thread& t, const Instruction& i) {
  SET_RESULT(float_bits(sqrtf(ftz(as_float(SOURCE_A)))));
}
static void x_sqrtd(Thread& t, const Instruction& i) {
  SET_RESULT(double_bits(sqrt(as_double(SOURCE_A))));
}
static void x_rsqrt(Thread& t, const Instruction& i) {
  SET_RESULT(float_bits(float(1.0 / sqrt(double(as_float(SOURCE_A))))));
}
static void x_sin(Thread& t, const Instruction& i) {
  SET_RESULT(float_bits(sin(double(as_float(SOURCE_A)))));
}
static void x_cos(Thread& t, const Instruction& i) {
  SET_RESULT(float_bits(cos(double(as_float(SOURCE_A)))));
}
static void x_tanh(Thread& t, const Instruction& i) {
  SET_RESULT(float_bits(tanh(double(as_float(SOURCE_A)))));
}
static void x_cpsgn(Thread& t, const Instruction& i) {
  SET_RESULT(float_bits(std::copysign(as_float(SOURCE_B), as_float(SOURCE_A))));
}
static void x_cpsgnd(Thread& t, const Instruction& i) {
  SET_RESULT(double_bits(std::copysign(as_double(SOURCE_B), as_double(SOURCE_A))));
}

bool PtxDecoder::decode_arithmetic() {
  Execute& f = in.execute;
  if (type.find("16") != string::npos && type[0] != 's' && type[0] != 'u') return false;  // f16, bf16 and pairs of them
  if (opcode == "add" || opcode == "sub") {
    take_operands();
    bool ad = opcode == "add";
    if (has("cc")) bad("cc");
    if ((has("rz") || has("rm") || has("rp"))) bad("rounding");
    if (is_float)
      f = ad ? (Execute)x_add<float> : (Execute)x_sub<float>;
    else if (is_double)
      f = ad ? (Execute)x_add<double> : (Execute)x_sub<double>;
    else if (ad)
      f = BY_INTEGER_TYPE(x_addi, type);
    else
      f = BY_INTEGER_TYPE(x_subi, type);
  } else if (opcode == "mul") {
    take_operands();
    if (has("rz") || has("rm") || has("rp")) bad("rounding");
    if (is_float)
      f = x_mul<float>;
    else if (is_double)
      f = x_mul<double>;
    else if (has("wide"))
      f = type == "s32"   ? (Execute)x_mulwide<i32>
          : type == "u32" ? (Execute)x_mulwide<u32>
          : type == "s16" ? (Execute)x_mulwide<i16>
          : type == "u16" ? (Execute)x_mulwide<u16>
                          : nullptr;
    else if (has("hi"))
      f = type == "s32"   ? (Execute)x_mulhi<i32>
          : type == "u32" ? (Execute)x_mulhi<u32>
          : type == "s64" ? (Execute)x_mulhi<i64>
          : type == "u64" ? (Execute)x_mulhi<u64>
          : type == "s16" ? (Execute)x_mulhi<i16>
          : type == "u16" ? (Execute)x_mulhi<u16>
                          : nullptr;
    else
      f = BY_INTEGER_TYPE(x_muli, type);
  } else if (opcode == "mad") {
    take_operands();
    if (is_float)
      f = x_fma<float>;
    else if (has("wide"))
      f = type == "s32" ? (Execute)x_madwide<i32> : type == "u32" ? (Execute)x_madwide<u32> : nullptr;
    else if (has("lo"))
      f = BY_INTEGER_TYPE(x_mad, type);
  } else if (opcode == "fma") {
    take_operands();
    f = is_float                 ? (has("ftz")  ? has("rn") ? (Execute)x_fma_ftz : nullptr
                                    : has("rm") ? (Execute)x_fma_rm
                                    : has("rz") ? (Execute)x_fma_rz
                                    : has("rn") ? (Execute)x_fma<float>
                                                : nullptr)
        : is_double && has("rn") ? (Execute)x_fma<double>
                                 : nullptr;
  } else if (opcode == "neg") {
    take_operands();
    f = is_float ? (Execute)x_neg<float> : is_double ? (Execute)x_neg<double> : BY_INTEGER_TYPE(x_neg, type);
  } else if (opcode == "abs") {
    take_operands();
    f = is_float        ? (Execute)x_abs<float>
        : is_double     ? (Execute)x_abs<double>
        : type == "s32" ? (Execute)x_abs<i32>
        : type == "s64" ? (Execute)x_abs<i64>
                        : nullptr;
  } else if (opcode == "min" || opcode == "max") {
    take_operands();
    if (has("NaN")) bad("NaN");
    bool mn = opcode == "min";
    if (has("xorsign") != has("abs")) bad("xorsign without abs");
    if (has("xorsign"))
      f = mn && is_float ? (Execute)x_min_xorsign_abs : nullptr;
    else if (is_float)
      f = mn ? (Execute)x_min<float> : (Execute)x_max<float>;
    else if (is_double)
      f = mn ? (Execute)x_min<double> : (Execute)x_max<double>;
    else if (mn)
      f = BY_INTEGER_TYPE(x_min, type);
    else
      f = BY_INTEGER_TYPE(x_max, type);
  } else if (opcode == "div") {
    take_operands();
    f = is_float ? (Execute)x_div<float> : is_double ? (Execute)x_div<double> : BY_INTEGER_TYPE(x_div, type);
  } else if (opcode == "rem") {
    take_operands();
    f = BY_INTEGER_TYPE(x_rem, type);
  } else if (opcode == "copysign") {
    take_operands();
    f = is_float ? x_cpsgn : x_cpsgnd;
  } else if (opcode == "ex2") {
    take_operands();
    f = x_ex2;
  } else if (opcode == "lg2") {
    take_operands();
    f = x_lg2;
  } else if (opcode == "rcp") {
    take_operands();
    f = is_double ? (has("approx") ? x_rcpda : x_rcpd) : has("approx") ? x_rcpa : x_rcp;
  } else if (opcode == "sqrt") {
    take_operands();
    f = is_double ? x_sqrtd : has("ftz") ? x_sqrt_ftz : x_sqrt;
  } else if (opcode == "rsqrt") {
    take_operands();
    f = x_rsqrt;
    if (is_double) bad("rsqrt.f64");
  } else if (opcode == "sin") {
    take_operands();
    f = x_sin;
  } else if (opcode == "cos") {
    take_operands();
    f = x_cos;
  } else if (opcode == "tanh") {
    take_operands();
    f = x_tanh;
  } else
    return false;
  return true;
}
