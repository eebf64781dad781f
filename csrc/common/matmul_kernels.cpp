#include "common/matmul_kernels.h"

#include "common/isa.h"
#include "common/transpose.h"

namespace vfrnn {
namespace VFRNN_ISA {
namespace {

// Rows of a tile: with more the addresses of their entries would not fit the registers.
constexpr int height = tile_rows < 12 ? tile_rows : 12;
template <class T>
constexpr int64_t W = 2 * lanes<T>;

// out (L, L) = in^T, blocks of L = lanes<T>.
template <class T>
inline void transpose_block(const T* in, int64_t in_row, T* out, int64_t out_row) {
  constexpr int L = lanes<T>;
  Vec<T> x[L];
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) x[i] = load(in + i * in_row);
  transpose<T>(x);
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) store(out + i * out_row, x[i]);
}

// `width` <= L columns into those of a panel that begin at `panel`.
template <class T>
inline void pack_vector(const T* b, int64_t row, int64_t column, int64_t depth, int64_t width, T* panel) {
  constexpr int L = lanes<T>;
  if (column == 1) {
    for (int64_t k = 0; k < depth; ++k) store(panel + k * W<T>, load_part(b + k * row, width));
    return;
  }
  int64_t k = 0;
  if (row == 1 && width == L) {
    for (; k + L <= depth; k += L) transpose_block(b + k, column, panel + k * W<T>, W<T>);
  }
  for (; k < depth; ++k) {
    T* to = panel + k * W<T>;
    for (int64_t j = 0; j < width; ++j) to[j] = b[k * row + j * column];
    for (int64_t j = width; j < L; ++j) to[j] = 0;
  }
}

template <class T>
void pack(const T* b, int64_t row, int64_t column, int64_t depth, int64_t width, T* panel) {
  constexpr int L = lanes<T>;
  const int64_t first = width < L ? width : L;
  pack_vector(b, row, column, depth, first, panel);
  pack_vector(b + first * column, row, column, depth, width - first, panel + L);
}

template <class T>
inline void store_columns(T* out, Vec<T> v, int64_t columns, bool accumulate) {
  if (columns >= lanes<T>) {
    store(out, accumulate ? load(out) + v : v);
    return;
  }
  for (int64_t j = 0; j < columns; ++j) out[j] = accumulate ? out[j] + v[j] : v[j];
}

template <class T, int R>
void multiply_tile(T* out, int64_t out_row, int64_t width, bool accumulate, const T* a, int64_t row, int64_t column,
                   const T* panel, int64_t depth) {
  constexpr int L = lanes<T>, quads = (R + 3) / 4;
  Vec<T> sum[R][2] = {};
  // A pointer for every fourth row: one for each would be more than there are registers.
  const T* quad[quads];
#pragma GCC unroll 4
  for (int q = 0; q < quads; ++q) quad[q] = a + 4 * q * row;
  for (int64_t k = 0; k < depth; ++k, panel += W<T>) {
    const Vec<T> b0 = load(panel), b1 = load(panel + L);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec<T> x = broadcast(quad[r / 4][r % 4 * row]);
      sum[r][0] += x * b0;
      sum[r][1] += x * b1;
    }
#pragma GCC unroll 4
    for (int q = 0; q < quads; ++q) quad[q] += column;
  }
  for (int r = 0; r < R; ++r) {
    store_columns(out + r * out_row, sum[r][0], width, accumulate);
    if (width > L) store_columns(out + r * out_row + L, sum[r][1], width - L, accumulate);
  }
}

template <class T, int R>
void multiply_rows(int64_t rows, T* out, int64_t out_row, int64_t width, bool accumulate, const T* a, int64_t row,
                   int64_t column, const T* panel, int64_t depth) {
  if (rows == R) {
    multiply_tile<T, R>(out, out_row, width, accumulate, a, row, column, panel, depth);
  } else if constexpr (R > 1) {
    multiply_rows<T, R - 1>(rows, out, out_row, width, accumulate, a, row, column, panel, depth);
  }
}

template <class T>
void multiply(T* out, int64_t out_row, int64_t width, bool accumulate, const T* a, int64_t row, int64_t column,
              const T* panel, int64_t rows, int64_t depth) {
  // tiles of equal height, give or take a row
  const int64_t tiles = (rows + height - 1) / height;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t first = rows * t / tiles, last = rows * (t + 1) / tiles;
    multiply_rows<T, height>(last - first, out + first * out_row, out_row, width, accumulate, a + first * row, row,
                             column, panel, depth);
  }
}

template <class T>
constexpr MatmulKernels<T> table{W<T>, pack<T>, multiply<T>};

}  // namespace

}  // namespace VFRNN_ISA

template <>
const MatmulKernels<float> IsaTable<MatmulKernels<float>>::VFRNN_ISA = VFRNN_ISA::table<float>;
template <>
const MatmulKernels<double> IsaTable<MatmulKernels<double>>::VFRNN_ISA = VFRNN_ISA::table<double>;

}  // namespace vfrnn
