// The parts of skew_expm that are compiled once per instruction set, on raw row-major n x n matrices.
#pragma once

#include <stdint.h>

namespace vfrnn {

// Passes over a matrix and its transpose work on pairs of square tiles of this size; `rows` of them count tiles.
inline constexpr int64_t pair_tile = 32;

inline int64_t pair_tiles(int64_t n) {
  return (n + pair_tile - 1) / pair_tile;
}

// Of every tile row of a matrix x.
template <class T>
struct SkewFindings {
  T *largest, *defect;  // max |x|, max |x + x^T|
  T* finite;            // 0, or NaN where x is not finite
};

template <class T>
struct SkewExpmKernels {
  // out_o = sum_i coefficients[o * inputs + i] in_i on [begin, end); an output may be one of the inputs.
  void (*combine)(int inputs, int outputs, const T* const* in, const T* coefficients, T* const* out, int64_t begin,
                  int64_t end);
  // out = c R (x + sign x^T) R with R = diag(r), the identity where r is null, on the pairs of tiles of tile rows
  // [begin, end); out may be x.
  void (*project)(T* out, const T* x, const T* r, T c, T sign, int64_t n, int64_t begin, int64_t end);
  // The same without r and with sign -1, and what it finds of x.
  void (*checked_skew_part)(T* out, const T* x, T c, int64_t n, int64_t begin, int64_t end,
                            const SkewFindings<T>& found);
  // Per row of x: the sum of magnitudes and the sum of squares.
  void (*row_norms)(const T* x, int64_t n, int64_t begin, int64_t end, T* magnitudes, T* squares);
};

}  // namespace vfrnn
