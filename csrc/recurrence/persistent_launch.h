// Launches the kernels of persistent.h: the instance of a shape.
#pragma once

#include <utility>

#include "recurrence/cuda.h"
#include "recurrence/persistent.h"

namespace vfrnn {

template <class Type, int index, bool backward, bool wide>
int launch_persistent(const PersistentProblem& problem, void* stream) {
  constexpr RecurrenceShape shape = shape_of<Type>(index);
  if constexpr (!shape.serves(backward)) {
    return -1;
  } else {
    const int64_t tiles = (problem.B + shape.samples() - 1) / shape.samples();
    const gpu::Launch launch{uint32_t(tiles * shape.cluster),
                             1,
                             1,
                             uint32_t(shape.threads()),
                             shape.shared_bytes(sizeof(typename Type::Storage)),
                             uint32_t(shape.cluster),
                             false,
                             static_cast<cudaStream_t>(stream)};
    return gpu::launch(launch, recurrence_persistent_kernel<Type, index, backward, wide>, problem);
  }
}

template <class Type, bool backward, bool wide, int... indices>
int launch_shape(const PersistentProblem& problem, int shape, void* stream, std::integer_sequence<int, indices...>) {
  int error = -1;
  (void)((shape == indices && (error = launch_persistent<Type, indices, backward, wide>(problem, stream), true)) ||
         ...);
  return error;
}

template <class Type>
using ShapeIndices = std::make_integer_sequence<int, sizeof(typename Type::Storage) == 2
                                                         ? sizeof(shapes_16_bits) / sizeof(RecurrenceShape)
                                                         : sizeof(shapes_32_bits) / sizeof(RecurrenceShape)>;

// `wide`: the state is float32 beside products in 16 bits.
template <class Type, bool backward>
int launch_shape(const PersistentProblem& problem, bool wide, int shape, void* stream) {
  if constexpr (sizeof(typename Type::Storage) == 2) {
    if (wide) return launch_shape<Type, backward, true>(problem, shape, stream, ShapeIndices<Type>{});
  }
  return launch_shape<Type, backward, false>(problem, shape, stream, ShapeIndices<Type>{});
}

// M (n, n) of the type, or its transpose, as the fragments that the kernels read, padded to N (persistent_pack.cu).
int launch_pack(const void* M, void* packed, int n, int N, CudaType type, bool transposed, void* stream);

}  // namespace vfrnn
