// Launchers of the CUDA kernels of skew_expm, and of strang_step, which is the same with delta. No CUDA type.
#pragma once

#include <cstdint>

namespace vfrnn {

// What is saved for the backward, (K, saved_slots, n, n) in float32: A = dt skew(S); X = A^2; X2 = X^2; the even part K
// of the polynomial; Q0 and its squares that are squared, of which the first six have a slot; and, as the first number
// of the last slot, how many squarings there were (-1: refused, everything is NaN).
constexpr int saved_levels = 6, slot_A = 0, slot_X = 1, slot_X2 = 2, slot_K = 3, slot_Q = 4;
constexpr int slot_squarings = slot_Q + saved_levels, saved_slots = slot_squarings + 1;
// The largest matrix that one block serves, in one launch.
constexpr int largest_in_block = 128;

// Q = exp(dt S); with delta also M = (diag(e) exp(dt S) diag(e))^substeps, e = exp(-dt delta / 4): dt is that of a
// substep.
struct ExponentialForward {
  const float* S;      // (K, n, n)
  const float* delta;  // (K, n) or null
  const float* dt;     // (K,)
  float* Q;            // (K, n, n)
  float* M;            // (K, n, n) or null
  float* saved;        // (K, saved_slots, n, n)
  float* scratch;      // (exponential_forward_scratch,)
  int64_t K;
  int n, substeps;
};
int64_t exponential_forward_scratch(int64_t K, int n);
int exponential_forward(const ExponentialForward& problem, void* stream);

// grad_S, grad_dt, and with delta grad_delta.
struct ExponentialBackward {
  const float* grad;   // (K, n, n), of Q, or of M with delta
  const float* delta;  // (K, n) or null
  const float* S;      // (K, n, n)
  const float* dt;     // (K,)
  const float* Q;      // (K, n, n)
  const float* saved;  // (K, saved_slots, n, n)
  float* scratch;      // (exponential_backward_scratch,)
  float* grad_S;       // (K, n, n)
  float* grad_delta;   // (K, n) or null
  float* grad_dt;      // (K,)
  int64_t K;
  int n, substeps;
};
int64_t exponential_backward_scratch(int64_t K, int n);
int exponential_backward(const ExponentialBackward& problem, void* stream);

// The same for matrices that need more than a block: a launch per stage.
int exponential_forward_tiled(const ExponentialForward& problem, void* stream);
int exponential_backward_tiled(const ExponentialBackward& problem, void* stream);

}  // namespace vfrnn
