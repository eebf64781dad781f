// What the ops on a mesh share on the CPU: their row kernels, and the checks that need the values of the arguments.
#pragma once

#include <cstdint>

#include "common/isa.h"
#include "common/mesh_kernels.h"
#include "common/tensors.h"

namespace vfrnn {

template <class T>
void check_positive(const char* name, const Tensor& t) {
  const T* x = t.const_data_ptr<T>();
  bool positive = all_finite(x, t.numel());
  for (int64_t j = 0; j < t.numel(); ++j) positive = positive && x[j] > 0;
  require(positive, name, " must be positive and finite");
}

}  // namespace vfrnn
