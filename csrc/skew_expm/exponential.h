// exp(dt S) and its gradient on the CPU, for the ops that need them. Mathematics: vfrnn_kernels/skew_expm/README.md.
#pragma once

#include <cstdint>

#include "skew_expm/coefficients.h"
#include "skew_expm/small.h"

namespace vfrnn {

// How many matrices of size n the forward keeps per matrix of the batch: the plan (its first entry is s), the powers
// A^2 .. A^r of A = dt S, Y, and the first of the matrices that are squared. What a matrix does not need is not
// written. Of a small one nothing is kept: to read it again takes longer than to compute it again.
inline constexpr int saved_levels = 5;
template <class T>
constexpr int64_t saved_matrices(int64_t n) {
  return n <= small_size ? 0 : skew_expm_scheme<T>.r + 1 + saved_levels;
}

// S (K, n, n), dt (K,) whose entries are dt_stride apart -> Q (K, n, n), saved (K, saved_matrices, n, n).
template <class T>
void skew_expm_forward(const T* S, const T* dt, int64_t dt_stride, int64_t K, int64_t n, T* Q, T* saved);

// grad_S (K, n, n) may be grad_Q itself; grad_dt (K,) may be null.
template <class T>
void skew_expm_gradient(const T* grad_Q, const T* S, const T* dt, int64_t dt_stride, const T* saved, int64_t K,
                        int64_t n, T* grad_S, T* grad_dt);

}  // namespace vfrnn
