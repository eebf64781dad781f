// Activations and states of the recurrence on the device: what its routes have in common.
#pragma once

#include "common/mma.h"
#include "recurrence/cuda.h"

namespace vfrnn {

// sign(z) relu(|z| + beta) for modrelu; NaN stays NaN. Number: float or double.
template <class Number>
VFRNN_DEVICE Number activate(CudaActivation activation, Number z, Number beta) {
  switch (activation) {
    case CudaActivation::tanh:
      return tanh(z);
    case CudaActivation::relu:
      return z < 0 ? 0 : z;
    case CudaActivation::modrelu: {
      const Number modulus = fabs(z) + beta;
      return z == 0 || modulus <= 0 ? 0 : copysign(modulus, z);
    }
    default:
      return z;
  }
}

// act'(z) grad from h = act(z) alone.
template <class Number>
VFRNN_DEVICE Number multiply_by_derivative(CudaActivation activation, Number grad, Number h) {
  switch (activation) {
    case CudaActivation::tanh:
      return grad * (1 - h * h);
    case CudaActivation::relu:
      return h > 0 ? grad : 0;
    case CudaActivation::modrelu:
      return h != 0 ? grad : 0;
    default:
      return grad;
  }
}

// Entries of a state: of the type of the products, or float32 beside products in 16 bits (`wide`).
template <class Type>
VFRNN_DEVICE float load_entry(const void* p, int64_t index, bool wide) {
  using Storage = typename Type::Storage;
  if constexpr (sizeof(Storage) == 2) {
    if (wide) return static_cast<const float*>(p)[index];
  }
  return Type::to_float(static_cast<const Storage*>(p)[index]);
}
template <class Type>
VFRNN_DEVICE void store_entry(void* p, int64_t index, float value, bool wide) {
  using Storage = typename Type::Storage;
  if constexpr (sizeof(Storage) == 2) {
    if (wide) {
      static_cast<float*>(p)[index] = value;
      return;
    }
  }
  static_cast<Storage*>(p)[index] = Type::of_float(value);
}

// Two neighbours in one access; `index` is even, and so are the rows of the tensor.
template <class Type>
VFRNN_DEVICE float2 load_pair(const void* p, int64_t index, bool wide) {
  using Storage = typename Type::Storage;
  if constexpr (sizeof(Storage) == 2) {
    if (!wide) {
      const uint32_t both = *reinterpret_cast<const uint32_t*>(static_cast<const Storage*>(p) + index);
      return make_float2(Type::to_float(uint16_t(both)), Type::to_float(uint16_t(both >> 16)));
    }
  }
  return *reinterpret_cast<const float2*>(static_cast<const float*>(p) + index);
}
template <class Type>
VFRNN_DEVICE void store_pair(void* p, int64_t index, float2 value, bool wide) {
  using Storage = typename Type::Storage;
  if constexpr (sizeof(Storage) == 2) {
    if (!wide) {
      *reinterpret_cast<uint32_t*>(static_cast<Storage*>(p) + index) =
          uint32_t(Type::of_float(value.x)) | uint32_t(Type::of_float(value.y)) << 16;
      return;
    }
  }
  *reinterpret_cast<float2*>(static_cast<float*>(p) + index) = value;
}

}  // namespace vfrnn
