// Sums over rows of numbers with the vectors of simd.h, in one fixed order.
#pragma once

#include "common/simd.h"

namespace vfrnn {
namespace VFRNN_ISA {

template <class T>
inline T sum_lanes(Vec<T> x) {
#if defined(__clang__)
  T sum = 0;
  for (int i = 0; i < lanes<T>; ++i) sum += x[i];
  return sum;
#else
  // Fold the upper half onto the lower; the masks leave the upper lanes at 0, which are not read again.
  if constexpr (lanes<T> >= 16) x += __builtin_shuffle(x, IntVec<T>{8, 9, 10, 11, 12, 13, 14, 15});
  if constexpr (lanes<T> >= 8) x += __builtin_shuffle(x, IntVec<T>{4, 5, 6, 7});
  if constexpr (lanes<T> >= 4) x += __builtin_shuffle(x, IntVec<T>{2, 3});
  x += __builtin_shuffle(x, IntVec<T>{1});
  return x[0];
#endif
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
