// Products of tiles on tensor cores in the number types of the kernels, with one layout for all of them.
//
// A *group* is 64 bytes of the summation index of a row: 32 numbers of 16 bits, or 16 floats. Lane (g, t) = (lane / 4,
// lane % 4) holds the 16 bytes number t of it, as a uint4, of the rows it is responsible for: of a (16, group), rows g
// and g + 8; of b (8 columns, group), column g. Which index of the sum a register then stands for differs from the
// order that mma.sync names, but it is the same for a and b, and a sum has no order. So every operand is read with
// 16-byte loads.
#pragma once

#include "common/gpu.h"

namespace vfrnn::gpu {

struct Bf16 {
  using Storage = uint16_t;
  static constexpr int group = 32;
  static VFRNN_DEVICE float to_float(Storage x) { return float_of_bf16(x); }
  static VFRNN_DEVICE Storage of_float(float x) { return bf16_of(x); }
};
struct F16 {
  using Storage = uint16_t;
  static constexpr int group = 32;
  static VFRNN_DEVICE float to_float(Storage x) { return float_of_f16(x); }
  static VFRNN_DEVICE Storage of_float(float x) { return f16_of(x); }
};
// float32 as the sum of two TF32 numbers x1 + x2; the product leaves out x2 y2, 2^-22 of it ("3xTF32").
struct F32 {
  using Storage = float;
  static constexpr int group = 16;
  static VFRNN_DEVICE float to_float(Storage x) { return x; }
  static VFRNN_DEVICE Storage of_float(float x) { return x; }
};

struct Split {
  uint32_t large, small;
};
VFRNN_DEVICE Split split_tf32(uint32_t bits) {
  const float x = float_of(bits), large = round_tf32(x);
  return {bits_of(large), bits_of(x - large)};  // mma_tf32 drops the low bits of `small`, 2^-22 of x
}

// d += a b^T over one group: a_low and a_high of rows g and g + 8, b of column g. d as in mma_*: rows of a, columns of
// b.
template <class Type>
VFRNN_DEVICE void multiply_group(float (&d)[4], const uint4& a_low, const uint4& a_high, const uint4& b);

template <>
VFRNN_DEVICE void multiply_group<Bf16>(float (&d)[4], const uint4& a_low, const uint4& a_high, const uint4& b) {
  mma_bf16(d, a_low.x, a_high.x, a_low.y, a_high.y, b.x, b.y);
  mma_bf16(d, a_low.z, a_high.z, a_low.w, a_high.w, b.z, b.w);
}
template <>
VFRNN_DEVICE void multiply_group<F16>(float (&d)[4], const uint4& a_low, const uint4& a_high, const uint4& b) {
  mma_f16(d, a_low.x, a_high.x, a_low.y, a_high.y, b.x, b.y);
  mma_f16(d, a_low.z, a_high.z, a_low.w, a_high.w, b.z, b.w);
}
// The tensor cores add with truncation: the three products of 8 terms are summed from zero and added to d in rounded
// float32, so that the error does not grow with the length of the sum.
VFRNN_DEVICE void multiply_split(float (&d)[4], const Split (&a)[4], const Split (&b)[2]) {
  float sum[4] = {0.f, 0.f, 0.f, 0.f};
  mma_tf32(sum, a[0].small, a[1].small, a[2].small, a[3].small, b[0].large, b[1].large);
  mma_tf32(sum, a[0].large, a[1].large, a[2].large, a[3].large, b[0].small, b[1].small);
  mma_tf32(sum, a[0].large, a[1].large, a[2].large, a[3].large, b[0].large, b[1].large);
#pragma unroll
  for (int e = 0; e < 4; ++e) d[e] += sum[e];
}
template <>
VFRNN_DEVICE void multiply_group<F32>(float (&d)[4], const uint4& a_low, const uint4& a_high, const uint4& b) {
  const Split a0[4] = {split_tf32(a_low.x), split_tf32(a_high.x), split_tf32(a_low.y), split_tf32(a_high.y)};
  const Split a1[4] = {split_tf32(a_low.z), split_tf32(a_high.z), split_tf32(a_low.w), split_tf32(a_high.w)};
  const Split b0[2] = {split_tf32(b.x), split_tf32(b.y)}, b1[2] = {split_tf32(b.z), split_tf32(b.w)};
  multiply_split(d, a0, b0);
  multiply_split(d, a1, b1);
}

}  // namespace vfrnn::gpu
