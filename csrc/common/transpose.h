// Square blocks of a vector's length, transposed in registers.
#pragma once

#include "common/rows.h"

namespace vfrnn {
namespace VFRNN_ISA {

// Lane l of vector i and lane i of vector l change places: blocks of 1, 2, 4, ... lanes in turn.
template <class T>
[[gnu::always_inline]] inline void transpose(Vec<T> (&x)[lanes<T>]) {
  constexpr int L = lanes<T>;
#pragma GCC unroll 4
  for (int s = 1; s < L; s *= 2) {
    const IntVec<T> l = lane_numbers<T>(), upper = (l & s) != 0;
    const IntVec<T> even = l + (upper & (L - s)), odd = l + (upper & (L - s)) + s;
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) {
      if ((i & s) != 0) continue;
      const Vec<T> a = x[i], b = x[i + s];
      x[i] = shuffle<T>(a, b, even), x[i + s] = shuffle<T>(a, b, odd);
    }
  }
}

}  // namespace VFRNN_ISA
}  // namespace vfrnn
