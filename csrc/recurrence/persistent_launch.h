// Launches the kernels of persistent.h: the instance of a shape.
#pragma once

#include <utility>

#include "recurrence/cuda.h"
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

// M (n, n) of the type, or its transpose, as the fragments that the kernels read, padded to N (persistent_pack.cu).
int launch_pack(const void* M, void* packed, int n, int N, CudaType type, bool transposed, void* stream);

}  // namespace vfrnn
