// M = (diag(e) Q diag(e))^k and its gradient on the CPU, for the ops that need them. Mathematics:
// vfrnn_kernels/strang_step/README.md.
#pragma once

#include <cstdint>

namespace vfrnn {

// S (K, n, n), delta (K, n), dt (K,) -> M (K, n, n), and what its gradient needs: Q (K, n, n), saved as in
// skew_expm/exponential.h.
template <class T>
void strang_steps(const T* S, const T* delta, const T* dt, int64_t substeps, int64_t K, int64_t n, T* M, T* Q,
                  T* saved);

// grad_dt (K,) may be null, and grad_S (K, n, n) is only scratch unless `with_S`.
template <class T>
void strang_steps_gradient(const T* grad_M, const T* S, const T* delta, const T* dt, const T* M, const T* Q,
                           const T* saved, int64_t substeps, int64_t K, int64_t n, bool with_S, T* grad_S,
                           T* grad_delta, T* grad_dt);

}  // namespace vfrnn
