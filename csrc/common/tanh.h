// tanh by the special function units, without branches.
#pragma once

#include "common/gpu.h"

namespace vfrnn::gpu {

// 2^x and 1 / x to 2^-22 (ex2.approx.ftz, rcp.approx.ftz). 2^x of a small x is 1; 1 / infinity is 0. Volatile: a choice
// between their result and another one must not become a branch around them.
VFRNN_DEVICE float exp2_approximate(float x) {
  float r;
  asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
VFRNN_DEVICE float reciprocal_approximate(float x) {
  float r;
  asm volatile("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

// For z not near 0, to about 2^-22 of 1: 1 - 2 / (e^2z + 1), where e^2z may be 0 or infinity.
VFRNN_DEVICE float tanh_of_large(float z) {
  const float e = exp2_approximate(2.8853900817779268f * z);  // 2 log2(e)
  return fmaf(-2.f, reciprocal_approximate(e + 1.f), 1.f);
}

// Math of activations.h whose tanh will be rounded to 16 bits: its relative error is below 2^-14.5, a tenth of
// float16's rounding. Below 2^-7, where the formula cancels, z itself is as near: z^2 / 3 < 2^-15.5.
struct HalfMath : Math<float> {
  static VFRNN_DEVICE float tanh(float z) {
    const float large = tanh_of_large(z);
    return fabsf(z) < 0x1p-7f ? z : large;
  }
};

// With a tanh of float32's accuracy. Below 0.55 a polynomial: the best of its degree there, 2^-24.7 of tanh (by least
// squares, reweighted until the errors are even).
struct FullMath : Math<float> {
  static VFRNN_DEVICE float tanh(float z) {
    const float large = tanh_of_large(z), square = z * z;
    float p = fmaf(square, 0.0164375812f, -0.0526718136f);
    p = fmaf(square, p, 0.133207251f);
    p = fmaf(square, p, -0.333329466f);
    return fabsf(z) < 0.55f ? fmaf(z * square, p, z) : large;
  }
};

}  // namespace vfrnn::gpu
