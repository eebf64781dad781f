// Elementary functions on vectors: magnitude, root, tanh, exp, and sine and cosine of a number of quarter turns.
#pragma once

#include "common/simd.h"

namespace vfrnn {
namespace VFRNN_ISA {

template <class V>
inline V magnitude(V x) {
  return x < 0 ? -x : x;
}
template <class V>
inline V larger(V a, V b) {
  return a > b ? a : b;
}
template <class T>
inline Vec<T> square_root(Vec<T> x) {
  T of[lanes<T>];
  store(of, x);
  for (int l = 0; l < lanes<T>; ++l) of[l] = sizeof(T) == 4 ? T(__builtin_sqrtf(of[l])) : T(__builtin_sqrt(of[l]));
  return load(of);
}

// ln 2 in two parts, the first with so few digits that its multiples here are exact; 1.5 * 2^(mantissa bits), which
// rounds what it is added to; and 1/k! up to the degree whose remainder on |r| <= ln(2)/2 is below the rounding.
template <class T>
struct ExpTable;
template <>
struct ExpTable<float> {
  static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f, log2_e = 0x1.715476p+0f;
  static constexpr float rounder = 0x1.8p23f, saturation = 40.0f;
  static constexpr int mantissa_bits = 23, bias = 127, degree = 7;
};
template <>
struct ExpTable<double> {
  static constexpr double ln2_high = 0x1.62e42fefa3p-1, ln2_low = 0x1.3de6af278ece6p-42, log2_e = 0x1.71547652b82fep+0;
  static constexpr double rounder = 0x1.8p52, saturation = 80.0;
  static constexpr int mantissa_bits = 52, bias = 1023, degree = 13;
};
template <class T>
constexpr T inverse_factorial(int k) {
  T product = 1;
  for (int j = 2; j <= k; ++j) product *= T(j);
  return T(1) / product;
}

// tanh of each x, tanh x = sign(x) t / (t + 2) with t = expm1(2 |x|) = 2^k expm1(r) + (2^k - 1), 2 |x| = k ln 2 + r. No
// cancellation anywhere: a few units in the last place for every x; saturates to 1; a NaN stays one. One x is a chain
// of some twenty operations that wait for each other: several go side by side.
template <class T, int K>
[[gnu::always_inline]] inline void tanh_each(Vec<T> (&x)[K]) {
  using Table = ExpTable<T>;
  Vec<T> r[K], q[K], power[K];
  IntVec<T> sign[K];
#pragma GCC unroll 4
  for (int k = 0; k < K; ++k) {
    sign[k] = (IntVec<T>)x[k] & (IntVec<T>)broadcast(T(-0.0));
    const Vec<T> size = (Vec<T>)((IntVec<T>)x[k] ^ sign[k]);
    Vec<T> y = size + size;
    y = y > broadcast(Table::saturation) ? broadcast(Table::saturation) : y;
    const Vec<T> shifted = y * Table::log2_e + Table::rounder;  // its low bits are the multiple of ln 2
    const Vec<T> multiple = shifted - Table::rounder;
    r[k] = y - multiple * Table::ln2_high - multiple * Table::ln2_low;
    power[k] = (Vec<T>)(((IntVec<T>)shifted + Table::bias) << Table::mantissa_bits);
    q[k] = broadcast(inverse_factorial<T>(Table::degree));
  }
#pragma GCC unroll 12
  for (int j = Table::degree - 1; j >= 2; --j) {
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) q[k] = q[k] * r[k] + inverse_factorial<T>(j);
  }
#pragma GCC unroll 4
  for (int k = 0; k < K; ++k) {
    const Vec<T> t = power[k] * (r[k] * r[k] * q[k] + r[k]) + (power[k] - 1);
    x[k] = (Vec<T>)((IntVec<T>)(t / (t + 2)) ^ sign[k]);
  }
}
template <class T>
inline Vec<T> tanh(Vec<T> x) {
  Vec<T> each[1] = {x};
  tanh_each<T>(each);
  return each[0];
}

// exp y = 2^k exp(r), y = k ln 2 + r. Beyond the range of T: its smallest normal, or its largest, number about; a NaN
// stays one.
template <class T>
inline Vec<T> exp(Vec<T> y) {
  using Table = ExpTable<T>;
  const T most = T(Table::bias - 1) * T(0.69314718);
  y = y > broadcast(most) ? broadcast(most) : y;
  y = y < broadcast(-most) ? broadcast(-most) : y;
  const Vec<T> shifted = y * Table::log2_e + Table::rounder;  // its low bits are k
  const Vec<T> k = shifted - Table::rounder;
  const Vec<T> r = y - k * Table::ln2_high - k * Table::ln2_low;
  const IntVec<T> power_bits = ((IntVec<T>)shifted + Table::bias) << Table::mantissa_bits;
  Vec<T> q = broadcast(inverse_factorial<T>(Table::degree));
#pragma GCC unroll 12
  for (int j = Table::degree - 1; j >= 1; --j) q = q * r + inverse_factorial<T>(j);
  return (Vec<T>)power_bits * (q * r + 1);
}

// Degrees of the sine series on |x| <= pi / 4 whose remainders are below the rounding; the cosine's is one more.
template <class T>
inline constexpr int sine_degree = sizeof(T) == 4 ? 9 : 17;

// The cosine and the sine of t quarter turns: t = k + r with |r| <= 1/2, and k a multiple of four changes nothing. The
// reduction has no rounding. From 2^21 quarter turns on (2^50 in double) a number says nothing about the angle within
// one; the result is then some rotation still.
template <class T>
inline void cos_sin(Vec<T> t, Vec<T>& cosine, Vec<T>& sine) {
  using Table = ExpTable<T>;
  constexpr T half_pi = T(1.57079632679489661923);
  const Vec<T> half = broadcast(T(0.5));
  const Vec<T> shifted = t + Table::rounder;  // its low bits are k
  Vec<T> r = t - (shifted - Table::rounder);
  r = r > half ? half : r < -half ? -half : r;
  const Vec<T> x = r * half_pi, square = x * x;
  Vec<T> s = broadcast(inverse_factorial<T>(sine_degree<T>)), c = broadcast(inverse_factorial<T>(sine_degree<T> + 1));
#pragma GCC unroll 10
  for (int j = sine_degree<T> - 2; j >= 1; j -= 2) {
    s = inverse_factorial<T>(j) - s * square;
    c = inverse_factorial<T>(j + 1) - c * square;
  }
  s = s * x, c = 1 - c * square;
  const IntVec<T> k = (IntVec<T>)shifted, none{};
  const Vec<T> first = (k & 1) != none ? s : c, second = (k & 1) != none ? c : s;
  cosine = ((k + 1) & 2) != none ? -first : first;
  sine = (k & 2) != none ? -second : second;
}

// What common/activations.h needs of vectors.
template <class T>
struct Math {
  using Number = Vec<T>;
  using Scalar = T;  // of constants
  static Number tanh(Number x) { return VFRNN_ISA::tanh<T>(x); }
  static Number magnitude(Number x) { return VFRNN_ISA::magnitude(x); }
  static Number minus_product(Scalar c, Number a, Number b) { return c - a * b; }
  // sign(z) relu(x), where sign(0) = 0 and a NaN stays one.
  static Number sign_times_relu(Number z, Number x) {
    const Number zero{}, size = x < zero ? zero : x;
    return z > zero ? size : z < zero ? -size : z * size;
  }
};

}  // namespace VFRNN_ISA
}  // namespace vfrnn
