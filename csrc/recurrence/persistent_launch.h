// Launches the kernels of persistent.h: the instance of a shape, behind the kernel that packs M.
#pragma once

#include <utility>

#include "recurrence/persistent.h"

namespace vfrnn {

template <class Type, int index, bool backward>
int launch_persistent(const PersistentProblem& problem, void* stream) {
  constexpr RecurrenceShape shape = shape_of<Type>(index);
  const int64_t tiles = (problem.B + shape.samples() - 1) / shape.samples();
  const gpu::Launch launch{uint32_t(tiles * shape.cluster),
                           1,
                           1,
                           uint32_t(shape.threads()),
                           shape.shared_bytes(sizeof(typename Type::Storage)),
                           uint32_t(shape.cluster),
                           false,
                           static_cast<cudaStream_t>(stream)};
  return gpu::launch(launch, recurrence_persistent_kernel<Type, index, backward>, problem);
}

template <class Type, bool backward, int... indices>
int launch_shape(const PersistentProblem& problem, int shape, void* stream, std::integer_sequence<int, indices...>) {
  int error = -1;
  (void)((shape == indices && (error = launch_persistent<Type, indices, backward>(problem, stream), true)) || ...);
  return error;
}

template <class Type>
using ShapeIndices = std::make_integer_sequence<int, sizeof(typename Type::Storage) == 2
                                                         ? sizeof(shapes_16_bits) / sizeof(RecurrenceShape)
                                                         : sizeof(shapes_32_bits) / sizeof(RecurrenceShape)>;

// Whether every row of (.., n) entries of `bytes` begins where a pair of them may.
inline bool starts_with_a_pair(const void* p, int64_t step, int64_t row, int n, int bytes) {
  return n % 2 == 0 && step % 2 == 0 && row % 2 == 0 && reinterpret_cast<uintptr_t>(p) % uintptr_t(2 * bytes) == 0;
}

template <class Type>
int launch_pack(const void* M, void* packed, int n, int shape, bool transposed, void* stream) {
  using Storage = typename Type::Storage;
  const int N = shape_of<Type>(shape).N, chunks = N * N * int(sizeof(Storage)) / 16;
  const gpu::Launch launch{uint32_t(chunks + 255) / 256, 1, 1, 256, 0, 1, false, static_cast<cudaStream_t>(stream)};
  return gpu::launch(launch, recurrence_pack_kernel<Type>, static_cast<const Storage*>(M), static_cast<uint4*>(packed),
                     n, N, transposed);
}

template <class Type>
int launch_forward(const RecurrenceForward& f, int shape, void* scratch, void* stream) {
  const int bytes = f.wide ? 4 : int(sizeof(typename Type::Storage));
  const int64_t row = f.n, step = f.B * row;
  if (const int error = launch_pack<Type>(f.M, scratch, f.n, shape, false, stream)) return error;
  const PersistentProblem problem{static_cast<const uint4*>(scratch),
                                  f.h0,
                                  f.hs,
                                  step,
                                  row,
                                  nullptr,
                                  f.c,
                                  f.beta,
                                  f.hs,
                                  nullptr,
                                  f.T,
                                  f.B,
                                  f.n,
                                  f.activation,
                                  f.wide,
                                  starts_with_a_pair(f.hs, step, row, f.n, bytes)};
  return launch_shape<Type, false>(problem, shape, stream, ShapeIndices<Type>{});
}

template <class Type>
int launch_backward(const RecurrenceBackward& b, int shape, void* scratch, void* stream) {
  const int bytes = int(sizeof(typename Type::Storage)), state_bytes = b.wide ? 4 : bytes;
  const int64_t row = b.n, step = b.B * row;
  const bool paired = starts_with_a_pair(b.grad_hs, b.grad_step, b.grad_row, b.n, state_bytes) &&
                      starts_with_a_pair(b.hs, step, row, b.n, state_bytes) &&
                      starts_with_a_pair(b.delta, step, row, b.n, bytes) &&
                      starts_with_a_pair(b.grad_h0, row, row, b.n, state_bytes);
  if (const int error = launch_pack<Type>(b.M, scratch, b.n, shape, true, stream)) return error;
  const PersistentProblem problem{static_cast<const uint4*>(scratch),
                                  nullptr,
                                  b.grad_hs,
                                  b.grad_step,
                                  b.grad_row,
                                  b.hs,
                                  nullptr,
                                  nullptr,
                                  b.delta,
                                  b.grad_h0,
                                  b.T,
                                  b.B,
                                  b.n,
                                  b.activation,
                                  b.wide,
                                  paired};
  return launch_shape<Type, true>(problem, shape, stream, ShapeIndices<Type>{});
}

}  // namespace vfrnn
