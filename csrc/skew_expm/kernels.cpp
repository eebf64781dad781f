// Elementwise passes of skew_expm, one copy per instruction set (common/simd.h).
#include "skew_expm/kernels.h"

#include "common/elementary.h"
#include "common/isa.h"

namespace vfrnn {
namespace VFRNN_ISA {
namespace {

template <class T, int I, int O>
void combine_fixed(const T* const* in, const T* coefficients, T* const* out, int64_t begin, int64_t end) {
  int64_t k = begin;
  for (; k + lanes<T> <= end; k += lanes<T>) {
    Vec<T> x[I], y[O];
    for (int i = 0; i < I; ++i) x[i] = load(in[i] + k);
    for (int o = 0; o < O; ++o) {
      y[o] = coefficients[o * I] * x[0];
      for (int i = 1; i < I; ++i) y[o] += coefficients[o * I + i] * x[i];
    }
    for (int o = 0; o < O; ++o) store(out[o] + k, y[o]);
  }
  for (; k < end; ++k) {
    T y[O];
    for (int o = 0; o < O; ++o) {
      y[o] = coefficients[o * I] * in[0][k];
      for (int i = 1; i < I; ++i) y[o] += coefficients[o * I + i] * in[i][k];
    }
    for (int o = 0; o < O; ++o) out[o][k] = y[o];
  }
}

template <class T>
void combine(int inputs, int outputs, const T* const* in, const T* coefficients, T* const* out, int64_t begin,
             int64_t end) {
  switch (inputs * 8 + outputs) {
    case 1 * 8 + 1:
      return combine_fixed<T, 1, 1>(in, coefficients, out, begin, end);
    case 3 * 8 + 1:
      return combine_fixed<T, 3, 1>(in, coefficients, out, begin, end);
    case 4 * 8 + 1:
      return combine_fixed<T, 4, 1>(in, coefficients, out, begin, end);
    case 4 * 8 + 3:
      return combine_fixed<T, 4, 3>(in, coefficients, out, begin, end);
    case 5 * 8 + 3:
      return combine_fixed<T, 5, 3>(in, coefficients, out, begin, end);
    case 4 * 8 + 4:
      return combine_fixed<T, 4, 4>(in, coefficients, out, begin, end);
    default:
      __builtin_trap();  // the schemes of coefficients.h have 3 or 4 powers
  }
}

// f(t, i, j) for the pairs of tiles, at rows i and columns j >= i, of tile rows t in [begin, end). Tile row t has the
// pairs (t, t), (t, t + 1), ... half way around the circle, so that all tile rows cost the same.
template <class F>
inline void for_tile_pairs(int64_t n, int64_t begin, int64_t end, F&& f) {
  const int64_t tiles = pair_tiles(n);
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t d = 0; 2 * d <= tiles; ++d) {
      if (d > 0 && 2 * d == tiles && t >= d) break;
      const int64_t u = (t + d) % tiles;
      f(t, (t < u ? t : u) * pair_tile, (t < u ? u : t) * pair_tile);
    }
  }
}

// A tile and the transpose of its mirror image, zero beyond the matrix. Gathered first: rows of the mirror image are
// far apart, and a column of them would evict itself from the cache.
template <class T>
struct TilePair {
  T upper[pair_tile][pair_tile], mirrored[pair_tile][pair_tile];
  int64_t rows, columns;

  TilePair(const T* x, int64_t n, int64_t i0, int64_t j0)
      : rows(n - i0 < pair_tile ? n - i0 : pair_tile), columns(n - j0 < pair_tile ? n - j0 : pair_tile) {
    if (rows < pair_tile || columns < pair_tile) __builtin_memset(this, 0, offsetof(TilePair, rows));
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) upper[i][j] = x[(i0 + i) * n + j0 + j];
    }
    for (int64_t j = 0; j < columns; ++j) {
      for (int64_t i = 0; i < rows; ++i) mirrored[i][j] = x[(j0 + j) * n + i0 + i];
    }
  }

  // upper <- f(upper, mirrored)
  template <class F>
  void map(F&& f) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < pair_tile; j += lanes<T>) {
        store(&upper[i][j], f(load(&upper[i][j]), load(&mirrored[i][j])));
      }
    }
  }

  void scale(const T* of_rows, const T* of_columns) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) upper[i][j] *= of_rows[i] * of_columns[j];
    }
  }

  void write(T* out, T sign, int64_t n, int64_t i0, int64_t j0) const {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) out[(i0 + i) * n + j0 + j] = upper[i][j];
    }
    if (i0 == j0) return;
    for (int64_t j = 0; j < columns; ++j) {
      for (int64_t i = 0; i < rows; ++i) out[(j0 + j) * n + i0 + i] = sign * upper[i][j];
    }
  }
};

template <class T>
void project(T* out, const T* x, const T* r, T c, T sign, int64_t n, int64_t begin, int64_t end) {
  for_tile_pairs(n, begin, end, [=](int64_t, int64_t i0, int64_t j0) {
    TilePair<T> tile(x, n, i0, j0);
    tile.map([=](Vec<T> a, Vec<T> b) { return c * (a + sign * b); });
    if (r) tile.scale(r + i0, r + j0);
    tile.write(out, sign, n, i0, j0);
  });
}

template <class T>
void checked_skew_part(T* out, const T* x, T c, int64_t n, int64_t begin, int64_t end, const SkewFindings<T>& found) {
  const auto [largest, defect, finite] = found;
  for (int64_t t = begin; t < end; ++t) {
    Vec<T> large = {}, wrong = {}, nan = {};
    for_tile_pairs(n, t, t + 1, [&](int64_t, int64_t i0, int64_t j0) {
      TilePair<T> tile(x, n, i0, j0);
      tile.map([&](Vec<T> a, Vec<T> b) {
        large = larger(large, larger(magnitude(a), magnitude(b)));
        wrong = larger(wrong, magnitude(a + b));
        nan += (a + b) * 0 + (a - b) * 0;
        return c * (a - b);
      });
      tile.write(out, -1, n, i0, j0);
    });
    largest[t] = defect[t] = finite[t] = 0;
    for (int l = 0; l < lanes<T>; ++l) {
      if (large[l] > largest[t]) largest[t] = large[l];
      if (wrong[l] > defect[t]) defect[t] = wrong[l];
      finite[t] += nan[l];
    }
  }
}

template <class T>
void row_norms(const T* x, int64_t n, int64_t begin, int64_t end, T* magnitudes, T* squares) {
  for (int64_t i = begin; i < end; ++i) {
    const T* row = x + i * n;
    Vec<T> sum[2] = {}, square[2] = {};
    int64_t j = 0;
    for (; j + 2 * lanes<T> <= n; j += 2 * lanes<T>) {
      for (int h = 0; h < 2; ++h) {
        const Vec<T> v = load(row + j + h * lanes<T>);
        sum[h] += magnitude(v);
        square[h] += v * v;
      }
    }
    sum[0] += sum[1], square[0] += square[1];
    T total = 0, total_square = 0;
    for (int l = 0; l < lanes<T>; ++l) total += sum[0][l], total_square += square[0][l];
    for (; j < n; ++j) total += row[j] < 0 ? -row[j] : row[j], total_square += row[j] * row[j];
    magnitudes[i] = total, squares[i] = total_square;
  }
}

template <class T>
constexpr SkewExpmKernels<T> table = {combine<T>, project<T>, checked_skew_part<T>, row_norms<T>};

}  // namespace

}  // namespace VFRNN_ISA

template <>
const SkewExpmKernels<float> IsaTable<SkewExpmKernels<float>>::VFRNN_ISA = VFRNN_ISA::table<float>;
template <>
const SkewExpmKernels<double> IsaTable<SkewExpmKernels<double>>::VFRNN_ISA = VFRNN_ISA::table<double>;

}  // namespace vfrnn
