// Sums over rows of numbers with the vectors of simd.h, in one fixed order.
#pragma once

#include "common/simd.h"

namespace vfrnn {
namespace VFRNN_ISA {

// 0, 1, 2, ...: what is computed from it is a constant to the compiler, where lanes set one by one were not.
template <class T>
inline IntVec<T> lane_numbers() {
  IntVec<T> l;
  for (int k = 0; k < lanes<T>; ++k) l[k] = k;
  return l;
}

// out_k = the sum of the lanes of x[k]. A round adds neighbouring blocks of `s` lanes of two vectors into one, so that
// K vectors take K - 1 rounds and not K log2(lanes).
template <class T, int K>
inline void sum_each(const Vec<T>* x, T* out) {
  constexpr int L = lanes<T>, P = K < L ? K : L;
  static_assert((K & (K - 1)) == 0, "a power of two");
  for (int first = 0; first < K; first += P) {
    Vec<T> y[P];
#pragma GCC unroll 16
    for (int k = 0; k < P; ++k) y[k] = x[first + k];
#pragma GCC unroll 4
    for (int s = 1; s < P; s *= 2) {
      const IntVec<T> l = lane_numbers<T>(), upper = (l & s) != 0;
      const IntVec<T> same = l + (upper & L), other = l + (upper & (L - s)) + (~upper & s);
#pragma GCC unroll 8
      for (int k = 0; k < P / (2 * s); ++k) {
        const Vec<T> a = y[2 * k], b = y[2 * k + 1];
        y[k] = shuffle<T>(a, b, same) + shuffle<T>(a, b, other);
      }
    }
#pragma GCC unroll 4
    for (int w = L / 2; w >= P; w /= 2) {
      IntVec<T> upper;
#pragma GCC unroll 16
      for (int l = 0; l < L; ++l) upper[l] = (l + w) % L;
      y[0] += shuffle<T>(y[0], y[0], upper);
    }
#pragma GCC unroll 16
    for (int k = 0; k < P; ++k) out[first + k] = y[0][k];
  }
}
template <class T>
inline T sum_lanes(Vec<T> x) {
  T sum;
  sum_each<T, 1>(&x, &sum);
  return sum;
}

// x.y
template <class T>
inline T dot(const T* x, const T* y, int64_t n) {
  constexpr int L = lanes<T>;
  Vec<T> even{}, odd{};
  int64_t j = 0;
  for (; j + 2 * L <= n; j += 2 * L) {
    even += load(x + j) * load(y + j);
    odd += load(x + j + L) * load(y + j + L);
  }
  T tail = 0;
  for (; j < n; ++j) tail += x[j] * y[j];
  return sum_lanes<T>(even + odd) + tail;
}

template <class T>
inline void add(T* x, T a, const T* y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) x[j] += a * y[j];
}

template <class T>
inline void scale(T* x, T a, const T* y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) x[j] *= a * y[j];
}

}  // namespace VFRNN_ISA
}  // namespace vfrnn
