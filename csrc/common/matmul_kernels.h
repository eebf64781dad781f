// Products of dense matrices on registers, compiled once per instruction set (common/isa.h); common/matmul.h splits
// them over threads.
#pragma once

#include <stdint.h>

namespace vfrnn {

template <class T>
struct MatmulKernels {
  // Columns of a panel. A panel (depth, panel_width) holds that many columns of b, padded with zeros.
  int64_t panel_width;
  // panel = `width` columns of the matrix b that has b[k row + j column] at (k, j).
  void (*pack)(const T* b, int64_t row, int64_t column, int64_t depth, int64_t width, T* panel);
  // `width` columns of out (rows, ..) = a panel, or +=; a has a[i row + k column] at (i, k). One element is one chain
  // of multiply-adds over k = 0, 1, ..., wherever it lies.
  void (*multiply)(T* out, int64_t out_row, int64_t width, bool accumulate, const T* a, int64_t row, int64_t column,
                   const T* panel, int64_t rows, int64_t depth);
};

}  // namespace vfrnn
