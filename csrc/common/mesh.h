// What the ops on a mesh share on the CPU: their row kernels, the checks that need the values of the arguments, and
// b^-1/2.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "common/isa.h"
#include "common/mesh_kernels.h"
#include "common/tensors.h"

namespace vfrnn {

// The quotients by such numbers are finite.
template <class T>
void check_positive(const char* name, const Tensor& t) {
  const T* x = t.const_data_ptr<T>();
  const int64_t count = t.numel();
  bool positive = all_finite(x, count);
  for (int64_t j = 0; j < count; ++j) positive = positive && x[j] >= std::numeric_limits<T>::min();
  require(positive, name, " must be positive and finite, and no subnormal number");
}

// b^-1/2 of the n nodes.
template <class T>
std::vector<T> inverse_roots(const T* b, int64_t n) {
  std::vector<T> roots(n);
  for (int64_t j = 0; j < n; ++j) roots[j] = T(1) / std::sqrt(b[j]);
  return roots;
}

}  // namespace vfrnn
