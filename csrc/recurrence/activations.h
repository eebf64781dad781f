// The four activations and their derivatives from the output, on vectors.
#pragma once

#include "common/simd.h"
#include "recurrence/kernels.h"

namespace vfrnn {
namespace VFRNN_ISA {

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

// tanh x = sign(x) t / (t + 2) with t = expm1(2 |x|) = 2^k expm1(r) + (2^k - 1), 2 |x| = k ln 2 + r. No cancellation
// anywhere: a few units in the last place for every x; saturates to 1; a NaN stays one.
template <class T>
inline Vec<T> tanh(Vec<T> x) {
  using Table = ExpTable<T>;
  const Vec<T> zero{};
  const Vec<T> size = x < zero ? -x : x;
  Vec<T> y = size + size;
  y = y > broadcast(Table::saturation) ? broadcast(Table::saturation) : y;
  const Vec<T> shifted = y * Table::log2_e + Table::rounder;  // its low bits are k
  const Vec<T> k = shifted - Table::rounder;
  const Vec<T> r = y - k * Table::ln2_high - k * Table::ln2_low;
  const IntVec<T> power_bits = ((IntVec<T>)shifted + Table::bias) << Table::mantissa_bits;
  const Vec<T> power = (Vec<T>)power_bits;  // 2^k
  Vec<T> q = broadcast(inverse_factorial<T>(Table::degree));
#pragma GCC unroll 12
  for (int j = Table::degree - 1; j >= 2; --j) q = q * r + inverse_factorial<T>(j);
  const Vec<T> t = power * (r * r * q + r) + (power - 1);
  const Vec<T> result = t / (t + 2);
  return x < zero ? -result : result;
}

template <Activation activation, class T>
inline Vec<T> activate(Vec<T> z, Vec<T> beta) {
  const Vec<T> zero{};
  if constexpr (activation == Activation::tanh) {
    return tanh<T>(z);
  } else if constexpr (activation == Activation::relu) {
    return z < zero ? zero : z;
  } else if constexpr (activation == Activation::modrelu) {
    Vec<T> modulus = (z < zero ? -z : z) + beta;
    modulus = modulus < zero ? zero : modulus;
    return z > zero ? modulus : z < zero ? -modulus : z * modulus;  // sign(0) = 0, and a NaN stays one
  } else {
    return z;
  }
}

// act'(z) grad from h = act(z).
template <Activation activation, class T>
inline Vec<T> multiply_by_derivative(Vec<T> grad, Vec<T> h) {
  const Vec<T> zero{};
  if constexpr (activation == Activation::tanh) {
    return grad * (1 - h * h);
  } else if constexpr (activation == Activation::relu) {
    return h > zero ? grad : zero;
  } else if constexpr (activation == Activation::modrelu) {
    return h != zero ? grad : zero;
  } else {
    return grad;
  }
}

}  // namespace VFRNN_ISA
}  // namespace vfrnn
