// Launchers of the recurrence's CUDA kernels. Type: of M and of the products; state type: of h0, hs, c and beta, that
// of the products or float32. No CUDA type, so that bindings and tests include it.
#pragma once

#include <cstdint>

namespace vfrnn {

enum class CudaType { bf16, f16, f32, f64 };
enum class CudaActivation { modrelu, tanh, relu, identity };

// h_t = act(M h_{t-1} + u_t + c). hs (T, B, n) holds u on entry and the states at the end, both of the state type.
struct RecurrenceForward {
  const void* M;     // (n, n), row-major
  const void* h0;    // (B, n)
  const void* c;     // (n,) or null
  const void* beta;  // (n,) or null
  void* hs;
  int64_t T, B;
  int n;
  CudaActivation activation;
  bool wide;  // the state is float32 beside 16-bit products
};

// delta_t = act'(h_t) (grad_hs_t + M^T delta_{t+1}), delta (T, B, n) of the products' type; grad_h0 = M^T delta_1, (B,
// n) of the state type.
struct RecurrenceBackward {
  const void* M;
  const void* grad_hs;          // (T, B, n) of the state type, entries of a row adjacent
  int64_t grad_step, grad_row;  // strides in elements
  const void* hs;               // (T, B, n), contiguous
  void* delta;
  void* grad_h0;
  int64_t T, B;
  int n;
  CudaActivation activation;
  bool wide;
};

// All steps in one launch, M on the chip, behind one that packs M. shape: index into shapes_16_bits or shapes_32_bits
// (recurrence_shapes.h); scratch: memory of the device for N * N numbers of the type, at a multiple of 256.
int recurrence_forward_bf16(const RecurrenceForward& problem, int shape, void* scratch, void* stream);
int recurrence_forward_f16(const RecurrenceForward& problem, int shape, void* scratch, void* stream);
int recurrence_forward_f32(const RecurrenceForward& problem, int shape, void* scratch, void* stream);
int recurrence_backward_bf16(const RecurrenceBackward& problem, int shape, void* scratch, void* stream);
int recurrence_backward_f16(const RecurrenceBackward& problem, int shape, void* scratch, void* stream);
int recurrence_backward_f32(const RecurrenceBackward& problem, int shape, void* scratch, void* stream);

// One product per step, for any n and device: chunks of steps in a CUDA graph. scratch: memory of the device, of
// recurrence_steps_scratch bytes, at a multiple of 256.
int64_t recurrence_steps_scratch(int64_t B, int n, CudaType type);
int recurrence_forward_steps(const RecurrenceForward& problem, CudaType type, void* scratch, void* stream);
int recurrence_backward_steps(const RecurrenceBackward& problem, CudaType type, void* scratch, void* stream);

// sums (parts, 2, n) in float32 (float64 for f64): over the rows of a part, of delta and of sign(h) delta;
// delta, hs (rows, n); a part is `rows_per_part` rows.
int recurrence_sums(const void* delta, const void* hs, void* sums, int64_t rows, int64_t rows_per_part, int n,
                    CudaType type, bool wide, void* stream);

}  // namespace vfrnn
