// Tensors into panels (panels.h), and the rows of tensors as kernels read them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "common/isa.h"
#include "common/matmul_kernels.h"
#include "common/panels.h"
#include "common/parallel.h"
#include "common/tensors.h"

namespace vfrnn {

// Of a tensor (T, B, ..), or (B, ..), whose entries of a row are adjacent.
template <class T>
Rows<const T> rows_of(const Tensor& t) {
  const bool sequence = t.dim() == 3;
  return {t.const_data_ptr<T>(), sequence ? t.stride(0) : 0, t.stride(sequence ? 1 : 0)};
}

// The (rows, columns) matrix that has m[r row_stride + c column_stride] at (r, c) into the rows first.. of panels that
// have `panel_rows` rows.
template <class T>
void pack(const T* m, int64_t row_stride, int64_t column_stride, int64_t rows, int64_t columns, int64_t W, T* panels,
          int64_t panel_rows, int64_t first) {
  const MatmulKernels<T>& kernel = IsaTable<MatmulKernels<T>>::active();
  parallel_for(0, panels_of(columns, W), 1 + 65536 / (rows * W + 1), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      kernel.pack(m + p * W * column_stride, row_stride, column_stride, rows, std::min(W, columns - p * W),
                  panels + (p * panel_rows + first) * W);
    }
  });
}

// factor v (n,), or zero where there is no v, padded to whole panels; of the dtype of `like`.
template <class T>
Tensor padded(const std::optional<Tensor>& v, const Tensor& like, int64_t n, int64_t W, double factor = 1) {
  Tensor result = zeros_tensor(like, {panels_of(n, W) * W});
  if (v.has_value()) {
    const Tensor values = packed(*v);
    const T* from = values.const_data_ptr<T>();
    T* to = result.mutable_data_ptr<T>();
    for (int64_t k = 0; k < n; ++k) to[k] = T(factor * double(from[k]));
  }
  return result;
}

}  // namespace vfrnn
