// Numbers of a mesh as the CUDA kernels read them: a b or w that is not positive makes everything NaN that depends on
// it. Included by .cu files only.
#pragma once

#include "common/gpu.h"

namespace vfrnn::gpu {

VFRNN_DEVICE float not_a_number() {
  return float_of(0x7fc00000u);
}
// x where it is positive, else NaN.
VFRNN_DEVICE float positive(float x) {
  return x > 0.f ? x : not_a_number();
}
// b^-1/2
VFRNN_DEVICE float inverse_root(float b) {
  return 1.f / sqrtf(positive(b));
}

}  // namespace vfrnn::gpu
