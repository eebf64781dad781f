// Launchers of field_flow's CUDA kernels, float32. All tensors are contiguous; no CUDA type, no torch type.
#pragma once

#include <cstdint>

#include "field_flow/layout.h"

namespace vfrnn {

struct FieldFlowProblem {
  const float* v;  // (1, m, d), one field for all samples, or (B, m, d)
  const float* b;  // (n,)
  const float* w;  // (m,)
  const float* N;  // (m, n)
  const float* G;  // (m, d, n)
  const float* dt;
  const float* scale;  // of the divergence
  int B, m, n, d, order;
  bool one_field, volume_preserving;
};

constexpr int field_flow_states = 32;  // that the backward keeps of a flow

struct FieldFlowForward {
  const float* h;   // (B, n)
  float* out;       // (B, n)
  float direction;  // 1, or -1 for the flow of -S with the same e
  // The number of substeps: given (substeps > 0), read (from `read`), or planned; written to `taken` unless null.
  int substeps;
  const float* read;
  float* taken;
  float series_limit;  // of |tau| ||S||
  float* plan;         // scratch of the plan, or null
  float* C;            // one field: (m, n); else (slots, m, n) where the layout has no place for it, or null
  uint32_t* counter;   // 0; null where the blocks need not wait for each other
};

// A gradient that is null is not computed.
struct FieldFlowBackward {
  const float* grad;   // (B, n)
  const float* h;      // (B, n)
  const float* taken;  // the number of substeps
  float *grad_h, *grad_v, *grad_b, *grad_w, *grad_N, *grad_G, *grad_dt, *grad_scale;
  float* C;       // as in the forward
  float* states;  // (slots, states, n)
  int state_count;
  float* tape;          // (slots, 2 order, n), or null where shared memory has it
  float* coefficients;  // (slots, 2, 2 order, m), or null where shared memory has them
  float* X;             // one field: (slots, m, n); else (B, m, n) for grad_G, (slots, m, n) or null
  float* Y;             // (slots, m, n) or null
  float* rows_b;        // (B, n)
  float* parts_w;       // (B, m) with one field per sample, or null
  float* parts;         // (B, 2): of grad_dt and grad_scale
  uint32_t* counter;    // 0
};

// One launch each; B, n >= 1.
int launch_field_flow(const FieldFlowProblem& problem, const FieldFlowForward& forward, const FieldFlowLayout& layout,
                      void* stream);
int launch_field_flow_backward(const FieldFlowProblem& problem, const FieldFlowBackward& backward,
                               const FieldFlowLayout& layout, void* stream);

}  // namespace vfrnn
