// Number types, and entries of states, of the recurrence on the device.
#pragma once

#include "common/device.h"
#include "common/mma.h"

namespace vfrnn {

// What launch(Type{}) returns, by the type of products on tensor cores.
template <class F>
int with_type(CudaType type, const F& launch) {
  switch (type) {
    case CudaType::bf16:
      return launch(gpu::Bf16{});
    case CudaType::f16:
      return launch(gpu::F16{});
    case CudaType::f32:
      return launch(gpu::F32{});
    case CudaType::f64:
      break;
  }
  return -1;
}

// An entry is of the type of the products, or float32 beside products in 16 bits (`wide`).
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
