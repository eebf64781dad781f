// Launchers of the recurrence's CUDA kernels. Type: of M and of the products; state type: of h0, hs, c and beta, that
// of the products or float32. No CUDA type, so that bindings and tests include it.
#pragma once

#include <cstdint>

#include "common/activations.h"
#include "common/device.h"

namespace vfrnn {

// h_t = act(M h_{t-1} + u_t + c). hs (T, B, n) holds u on entry and the states at the end, both of the state type.
struct RecurrenceForward {
  const void* M;     // (n, n), row-major
  const void* h0;    // (B, n)
  const void* c;     // (n,) or null
  const void* beta;  // (n,) or null
  void* hs;
  int64_t T, B;
  int n;
  int64_t row;  // entries from a sample to the next in hs: n, and for the persistent kernels even
  Activation activation;
  bool wide;  // the state is float32 beside 16-bit products
};

// grad_z_t = act'(z_t) (grad_hs_t + M^T grad_z_{t+1}), grad_z (T, B, n) of the products' type; grad_h0 = M^T grad_z_1,
// (B, n) of the state type.
struct RecurrenceBackward {
  const void* M;
  const void* grad_hs;          // (T, B, n) of the state type, entries of a row adjacent
  int64_t grad_step, grad_row;  // strides in elements
  const void* hs;               // (T, B, n)
  void* grad_z;
  void* grad_h0;
  int64_t T, B;
  int n;
  int64_t row;  // entries from a sample to the next in hs, grad_z and grad_h0: n, and for the persistent kernels even
  Activation activation;
  bool wide;
};

// All steps in one launch, M on the chip, behind one that packs M; not for f64. Two neighbours are read and written at
// once: rows, but those of h0, must begin at even entries (strides and addresses), T below 2^31. shape: index into
// shapes_16_bits or shapes_32_bits (shapes.h); scratch: memory of the device for N * N numbers of the type, at a
// multiple of 256.
int recurrence_forward_persistent(const RecurrenceForward& problem, CudaType type, int shape, void* scratch,
                                  void* stream);
int recurrence_backward_persistent(const RecurrenceBackward& problem, CudaType type, int shape, void* scratch,
                                   void* stream);

// One product per step, for any n and device: chunks of steps in a CUDA graph. scratch: memory of the device, of
// recurrence_steps_scratch bytes, at a multiple of 256.
int64_t recurrence_steps_scratch(int64_t B, int n, CudaType type);
int recurrence_forward_steps(const RecurrenceForward& problem, CudaType type, void* scratch, void* stream);
int recurrence_backward_steps(const RecurrenceBackward& problem, CudaType type, void* scratch, void* stream);

// Over the rows of a part, the sums of grad_z and of sign(h) grad_z, in a fixed order.
struct RecurrenceSums {
  const void* grad_z;  // (rows, n)
  const void* hs;      // (rows, n)
  void* sums;          // (parts, 2, n) in float32, for f64 in float64
  int64_t rows, rows_per_part;
  int n;
  CudaType type;
  bool wide;
};
int recurrence_backward_sums(const RecurrenceSums& problem, void* stream);

}  // namespace vfrnn
