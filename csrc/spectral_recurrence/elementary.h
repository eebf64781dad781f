// exp, and sine and cosine of a number of quarter turns, on vectors.
#pragma once

#include "recurrence/activations.h"

namespace vfrnn {
namespace VFRNN_ISA {

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

}  // namespace VFRNN_ISA
}  // namespace vfrnn
