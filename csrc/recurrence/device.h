// Number types, and entries of states, of the recurrence on the device.
#pragma once

#include <type_traits>

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

// Two neighbours as they lie in memory, read and written in one access.
template <class Type, bool wide>
struct Pair {
  static constexpr int entry_bytes = sizeof(typename Type::Storage);
  std::conditional_t<entry_bytes == 2, uint32_t, float2> bits;

  Pair() = default;
  VFRNN_DEVICE Pair(float2 v) {
    if constexpr (entry_bytes == 2) {
      bits = Type::of_floats(v.x, v.y);
    } else {
      bits = v;
    }
  }
  VFRNN_DEVICE float2 value() const {
    if constexpr (entry_bytes == 2) {
      return make_float2(Type::to_float(uint16_t(bits)), Type::to_float(uint16_t(bits >> 16)));
    } else {
      return bits;
    }
  }
};
// Of a float32 state beside products in 16 bits.
template <class Type>
struct Pair<Type, true> : Pair<gpu::F32, false> {
  using Pair<gpu::F32, false>::Pair;
};

}  // namespace vfrnn
