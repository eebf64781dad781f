// Launchers of field_generator's CUDA kernels, float32. All tensors are contiguous; no CUDA type, no torch type.
#pragma once

#include <cstdint>

namespace vfrnn {

// N and G null: the complete mesh, m = n (n - 1) / 2 and d = 1.
struct FieldGeneratorProblem {
  const float* b;  // (n,)
  const float* w;  // (m,)
  const float* N;  // (m, n) or null
  const float* G;  // (m, d, n) or null
  const float* v;  // (K, m, d)
  int64_t K;
  int m, n, d;
};

// A gradient that is null is not computed, and its scratch may be null. grad_b of every field: with K = 1 it is grad_b.
struct FieldGeneratorGradients {
  const float* grad_S;      // (K, n, n)
  const float* grad_delta;  // (K, n)
  const float* S;           // (K, n, n)
  const float* delta;       // (K, n)
  float* grad_b;            // (n,)
  float* grad_w;            // (m,)
  float* grad_N;            // (m, n)
  float* grad_G;            // (m, d, n)
  float* grad_v;            // (K, m, d)
  float* parts_b;           // (K, n): every field's share of grad_b; grad_b itself where K = 1
  float* A;                 // (K, m, n): grad of W [v] G, for w, v and G; complete mesh: (K, m) grad of w v, for w
  float* parts_N;           // (K, m, n): every field's share of grad_N; grad_N itself where K = 1
};

// S (K, n, n) and delta (K, n), in one launch; K, n >= 1.
int launch_field_generator(const FieldGeneratorProblem& problem, float* S, float* delta, void* stream);
// Two launches, or one where nothing is summed over fields or cells; K, n >= 1.
int launch_field_generator_backward(const FieldGeneratorProblem& problem, const FieldGeneratorGradients& gradients,
                                    void* stream);

}  // namespace vfrnn
