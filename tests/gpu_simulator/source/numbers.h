// Number formats: float and double as register bits, binary16, bfloat16, flush to zero.
// Sources: IEEE 754; PTX ISA, "Fundamental Types", "Alternate Floating-Point Data Formats", .ftz in "Floating Point
// Instructions".
template <class To, class From>
static To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
static float as_float(u64 v) {
  return bits_as<float>(u32(v));
}
static u64 float_bits(float f) {
  return bits_as<u32>(f);
}
static double as_double(u64 v) {
  return bits_as<double>(v);
}
static u64 double_bits(double d) {
  return bits_as<u64>(d);
}
static float half_to_float(u16 b) {
  int e = b >> 10 & 31, f = b & 1023;
  float v = e == 31 ? (f ? NAN : INFINITY) : e == 0 ? ldexpf(f, -24) : ldexpf(f + 1024, e - 25);
  return b & 0x8000 ? -v : v;
}
static u16 float_to_half(float x) {
  _Float16 h = (_Float16)x;
  return bits_as<u16>(h);
}
static u16 float_to_bfloat16(float x) {
  u32 b = bits_as<u32>(x);
  if (x != x) return 0x7fff;
  return (b + 0x7fff + (b >> 16 & 1)) >> 16;
}
static float ftz(float x) {
  return std::fabs(x) < 1.17549435e-38f ? std::copysign(0.f, x) : x;
}
struct HalfBits {};  // binary16, computed with as float
template <class T>
static auto number_of(u64 v) {
  if constexpr (std::is_same_v<T, float>)
    return as_float(v);
  else if constexpr (std::is_same_v<T, double>)
    return as_double(v);
  else if constexpr (std::is_same_v<T, HalfBits>)
    return half_to_float(u16(v));
  else
    return T(v);
}
template <class T>
static u64 bits_of(T v) {
  if constexpr (std::is_same_v<T, float>)
    return float_bits(v);
  else if constexpr (std::is_same_v<T, double>)
    return double_bits(v);
  else
    return u64(std::make_unsigned_t<T>(v));
}
