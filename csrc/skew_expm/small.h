// exp(dt S) and its gradient for n <= small_size, of many matrices at a time: lane l of every vector belongs to matrix
// l. To n = 3 in closed form (rotations.h), beyond by the polynomial of coefficients.h (lane_exponential.h). Compiled
// once per instruction set (common/isa.h).
#pragma once

#include <stdint.h>

namespace vfrnn {

inline constexpr int64_t small_size = 16;

// Generators S (K, n, n) and times dt: that of matrix k is dt[k * dt_stride].
template <class T>
struct SmallGenerators {
  const T *S, *dt;
  int64_t dt_stride, n;
};

template <class T>
struct SmallExpmKernels {
  // Numbers of scratch that a thread needs.
  int64_t (*scratch)(int64_t n);
  // Q_k for k in [begin, end). Returns the first k whose generator is not finite, not skew-symmetric or too large,
  // `end` where there is none.
  int64_t (*forward)(const SmallGenerators<T>& of, int64_t begin, int64_t end, T* Q, T* scratch);
  // The gradient of A_k = dt_k skew(S_k), or that of S_k; `grad` may be grad_Q.
  void (*gradient)(const SmallGenerators<T>& of, const T* grad_Q, bool of_S, int64_t begin, int64_t end, T* grad,
                   T* scratch);
};

}  // namespace vfrnn
