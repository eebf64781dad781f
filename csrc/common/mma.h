// Products of tiles on tensor cores in the number types of the kernels, with one layout for all of them.
//
// A *group* is 64 bytes of the summation index of a row: 32 numbers of 16 bits, or 16 floats. Lane (g, t) = (lane / 4,
// lane % 4) holds the 16 bytes number t of it, as a uint4, of the rows it is responsible for: of a (16, group), rows g
// and g + 8; of b (8 columns, group), column g. Which index of the sum a register then stands for differs from the
// order that mma.sync names, but it is the same for a and b, and a sum has no order. So every operand is read with
// 16-byte loads.
#pragma once

#include <type_traits>

#include "common/gpu.h"

namespace vfrnn::gpu {

struct Bf16 {
  using Storage = uint16_t;
  static constexpr int group = 32;
  static VFRNN_DEVICE float to_float(Storage x) { return float_of_bf16(x); }
  static VFRNN_DEVICE Storage of_float(float x) { return bf16_of(x); }
  static VFRNN_DEVICE uint32_t of_floats(float low, float high) { return pack_bf16(low, high); }
};
struct F16 {
  using Storage = uint16_t;
  static constexpr int group = 32;
  static VFRNN_DEVICE float to_float(Storage x) { return float_of_f16(x); }
  static VFRNN_DEVICE Storage of_float(float x) { return f16_of(x); }
  static VFRNN_DEVICE uint32_t of_floats(float low, float high) { return pack_f16(low, high); }
};
// float32 as the sum of two TF32 numbers x1 + x2; the product leaves out x2 y2, 2^-22 of it ("3xTF32"). Of an infinity
// x1 is the largest finite number and x2 the infinity: no product is 0 inf that is not in x y.
struct F32 {
  using Storage = float;
  static constexpr int group = 16;
  static VFRNN_DEVICE float to_float(Storage x) { return x; }
  static VFRNN_DEVICE Storage of_float(float x) { return x; }
};

// The same for numbers far from overflow, those of a scaled matrix, in fewer instructions and registers.
struct BoundedF32 : F32 {};

struct Split {
  uint32_t large, small;
};
template <class Type>
VFRNN_DEVICE Split split_tf32(uint32_t bits) {
  const float x = float_of(bits);
  float large;
  if constexpr (std::is_same_v<Type, BoundedF32>) {
    large = round_bounded_tf32(x);
  } else {
    large = round_tf32(x);
  }
  return {bits_of(large), bits_of(x - large)};  // mma_tf32 drops the low bits of `small`, 2^-22 of x
}

// What a lane holds of a group of a, ready for products.
template <class Type>
struct Rows {
  uint4 low, high;  // of rows g and g + 8
};
template <>
struct Rows<F32> {
  Split first[4], second[4];  // the operands of the group's two halves
};
template <>
struct Rows<BoundedF32> : Rows<F32> {};
// Its four parts of 16 bytes, and back: the large and small numbers of each half.
VFRNN_DEVICE void store_rows(const Rows<F32>& rows, uint4* to, int stride) {
  const auto part = [&](int k, const Split(&half)[4]) {
    to[k * stride] = make_uint4(half[0].large, half[1].large, half[2].large, half[3].large);
    to[(k + 1) * stride] = make_uint4(half[0].small, half[1].small, half[2].small, half[3].small);
  };
  part(0, rows.first), part(2, rows.second);
}
VFRNN_DEVICE Rows<F32> load_rows(const uint4* from, int stride) {
  const uint4 a = from[0], b = from[stride], c = from[2 * stride], d = from[3 * stride];
  return {{{a.x, b.x}, {a.y, b.y}, {a.z, b.z}, {a.w, b.w}}, {{c.x, d.x}, {c.y, d.y}, {c.z, d.z}, {c.w, d.w}}};
}
template <class Type>
VFRNN_DEVICE Rows<Type> rows_of(const uint4& low, const uint4& high) {
  return {low, high};
}
template <class Type>
VFRNN_DEVICE Rows<F32> split_rows(const uint4& low, const uint4& high) {
  const auto half = [](uint32_t a, uint32_t b, uint32_t c, uint32_t d, Split(&to)[4]) {
    to[0] = split_tf32<Type>(a), to[1] = split_tf32<Type>(b), to[2] = split_tf32<Type>(c), to[3] = split_tf32<Type>(d);
  };
  Rows<F32> rows;
  half(low.x, high.x, low.y, high.y, rows.first), half(low.z, high.z, low.w, high.w, rows.second);
  return rows;
}
template <>
VFRNN_DEVICE Rows<F32> rows_of<F32>(const uint4& low, const uint4& high) {
  return split_rows<F32>(low, high);
}
template <>
VFRNN_DEVICE Rows<BoundedF32> rows_of<BoundedF32>(const uint4& low, const uint4& high) {
  return {split_rows<BoundedF32>(low, high)};
}

// The tensor cores add with truncation: the three products of 8 terms are summed from zero and added to d in rounded
// float32, so that the error does not grow with the length of the sum.
VFRNN_DEVICE void multiply_split(float (&d)[4], const Split (&a)[4], const Split& b0, const Split& b1) {
  float sum[4] = {0.f, 0.f, 0.f, 0.f};
  mma_tf32(sum, a[0].small, a[1].small, a[2].small, a[3].small, b0.large, b1.large);
  mma_tf32(sum, a[0].large, a[1].large, a[2].large, a[3].large, b0.small, b1.small);
  mma_tf32(sum, a[0].large, a[1].large, a[2].large, a[3].large, b0.large, b1.large);
#pragma unroll
  for (int e = 0; e < 4; ++e) d[e] += sum[e];
}

// a b^T over one group, b of column g, added to d as in mma_*: rows of a, columns of b. `even` and `odd` take a half of
// the group each, so that products need not wait for each other; they may be the same sum.
VFRNN_DEVICE void multiply(float (&even)[4], float (&odd)[4], const Rows<Bf16>& a, const uint4& b) {
  mma_bf16(even, a.low.x, a.high.x, a.low.y, a.high.y, b.x, b.y);
  mma_bf16(odd, a.low.z, a.high.z, a.low.w, a.high.w, b.z, b.w);
}
VFRNN_DEVICE void multiply(float (&even)[4], float (&odd)[4], const Rows<F16>& a, const uint4& b) {
  mma_f16(even, a.low.x, a.high.x, a.low.y, a.high.y, b.x, b.y);
  mma_f16(odd, a.low.z, a.high.z, a.low.w, a.high.w, b.z, b.w);
}
template <class Type>
VFRNN_DEVICE void multiply_split(float (&even)[4], float (&odd)[4], const Rows<Type>& a, const uint4& b) {
  multiply_split(even, a.first, split_tf32<Type>(b.x), split_tf32<Type>(b.y));
  multiply_split(odd, a.second, split_tf32<Type>(b.z), split_tf32<Type>(b.w));
}
VFRNN_DEVICE void multiply(float (&even)[4], float (&odd)[4], const Rows<F32>& a, const uint4& b) {
  multiply_split(even, odd, a, b);
}
VFRNN_DEVICE void multiply(float (&even)[4], float (&odd)[4], const Rows<BoundedF32>& a, const uint4& b) {
  multiply_split(even, odd, a, b);
}
template <class Type>
VFRNN_DEVICE void multiply(float (&d)[4], const Rows<Type>& a, const uint4& b) {
  multiply(d, d, a, b);
}
template <class Type>
VFRNN_DEVICE void multiply_group(float (&d)[4], const uint4& a_low, const uint4& a_high, const uint4& b) {
  multiply(d, rows_of<Type>(a_low, a_high), b);
}

}  // namespace vfrnn::gpu
