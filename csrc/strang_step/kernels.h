// Elementwise passes of strang_step, compiled once per instruction set (common/isa.h), on row-major n x n matrices.
#pragma once

#include <stdint.h>

namespace vfrnn {

template <class T>
struct StrangStepKernels {
  // out_ij = e_i X_ij e_j for the rows begin..end; out may be X
  void (*scale)(const T* X, const T* e, int64_t n, int64_t begin, int64_t end, T* out);
  // sums_i = sum_j G_ij M_ij + G_ji M_ji
  void (*row_and_column_sums)(const T* G, const T* M, int64_t n, T* sums);
};

}  // namespace vfrnn
