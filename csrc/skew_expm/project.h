// The symmetric or skew-symmetric part of a matrix, scaled, for the ops that need it.
#pragma once

#include <cstdint>

#include "common/isa.h"
#include "common/team.h"
#include "skew_expm/kernels.h"

namespace vfrnn {

// out = c R (x + sign x^T) R with R = diag(r), the identity where r is null; out may be x.
template <class T>
void project(const Team& team, T* out, const T* x, const T* r, T c, T sign, int64_t n) {
  team.split(pair_tiles(n), [&](int64_t begin, int64_t end) {
    IsaTable<SkewExpmKernels<T>>::active().project(out, x, r, c, sign, n, begin, end);
  });
}

}  // namespace vfrnn
