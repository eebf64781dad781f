// Small products and elementwise passes of skew_expm, one copy per instruction set (common/simd.h).
#include "skew_expm/skew_expm_kernels.h"

#include "common/simd.h"

namespace vfrnn {
namespace VFRNN_ISA {
namespace {

constexpr int tile_rows = vector_registers == 32 ? 8 : 6;  // with 2 vectors of b and a broadcast: all registers in use

template <class T>
inline T magnitude(T x) {
  return x < 0 ? -x : x;
}
template <class T>
inline T larger(T a, T b) {
  return a > b ? a : b;
}

template <class T>
inline void store_columns(T* out, Vec<T> v, int64_t columns, bool accumulate) {
  if (columns >= lanes<T>) {
    store(out, accumulate ? load(out) + v : v);
    return;
  }
  for (int64_t j = 0; j < columns; ++j) out[j] = accumulate ? out[j] + v[j] : v[j];
}

// R rows of a against two vectors of columns of b.
template <class T, int R>
inline void product_tile(const T* a, int64_t a_row, int64_t a_column, const T* b, int64_t b_row, int64_t n, T* out,
                         int64_t columns, bool accumulate) {
  Vec<T> sum[R][2] = {};
  for (int64_t k = 0; k < n; ++k) {
    const Vec<T> b0 = load(b + k * b_row), b1 = load(b + k * b_row + lanes<T>);
    for (int r = 0; r < R; ++r) {
      const T x = a[r * a_row + k * a_column];
      sum[r][0] += x * b0;
      sum[r][1] += x * b1;
    }
  }
  for (int r = 0; r < R; ++r) {
    store_columns(out + r * n, sum[r][0], columns, accumulate);
    if (columns > lanes<T>) store_columns(out + r * n + lanes<T>, sum[r][1], columns - lanes<T>, accumulate);
  }
}

template <class T, int R>
inline void product_rows(int64_t rows, const T* a, int64_t a_row, int64_t a_column, const T* b, int64_t b_row,
                         int64_t n, T* out, int64_t columns, bool accumulate) {
  if (rows == R) {
    product_tile<T, R>(a, a_row, a_column, b, b_row, n, out, columns, accumulate);
  } else if constexpr (R > 1) {
    product_rows<T, R - 1>(rows, a, a_row, a_column, b, b_row, n, out, columns, accumulate);
  }
}

template <class T>
int64_t packed_size(int64_t n) {
  const int64_t columns = 2 * lanes<T>;
  return n * ((n + columns - 1) / columns * columns);
}

template <class T>
void product(T* out, const T* a, bool a_transposed, const T* b, bool b_transposed, bool accumulate, int64_t n,
             T* pack) {
  constexpr int64_t columns = 2 * lanes<T>;
  const int64_t width = (n + columns - 1) / columns * columns;
  if (b_transposed || width != n) {
    for (int64_t k = 0; k < n; ++k) {
      T* row = pack + k * width;
      for (int64_t j = 0; j < n; ++j) row[j] = b_transposed ? b[j * n + k] : b[k * n + j];
      for (int64_t j = n; j < width; ++j) row[j] = 0;
    }
    b = pack;
  }
  const int64_t a_row = a_transposed ? 1 : n, a_column = a_transposed ? n : 1;
  for (int64_t j = 0; j < n; j += columns) {
    for (int64_t i = 0; i < n; i += tile_rows) {
      const int64_t rows = n - i < tile_rows ? n - i : tile_rows;
      product_rows<T, tile_rows>(rows, a + i * a_row, a_row, a_column, b + j, width, n, out + i * n + j, n - j,
                                 accumulate);
    }
  }
}

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

// f(i, j) for every i <= j whose pair of tiles belongs to tile rows [begin, end). Tile row t has the pairs (t, t), (t,
// t + 1), ... half way around the circle, so that all tile rows cost the same.
template <class F>
inline void for_pairs(int64_t n, int64_t begin, int64_t end, F&& f) {
  const int64_t tiles = pair_tiles(n);
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t d = 0; 2 * d <= tiles; ++d) {
      if (2 * d == tiles && t >= d) break;
      const int64_t u = (t + d) % tiles;
      const int64_t upper = (t < u ? t : u) * pair_tile, left = (t < u ? u : t) * pair_tile;
      const int64_t lower = upper + pair_tile < n ? upper + pair_tile : n;
      const int64_t right = left + pair_tile < n ? left + pair_tile : n;
      for (int64_t i = upper; i < lower; ++i) {
        for (int64_t j = d == 0 ? i : left; j < right; ++j) f(t, i, j);
      }
    }
  }
}

template <class T>
void project(T* out, const T* x, T c, T sign, int64_t n, int64_t begin, int64_t end) {
  for_pairs(n, begin, end, [=](int64_t, int64_t i, int64_t j) {
    const T y = c * (x[i * n + j] + sign * x[j * n + i]);
    out[j * n + i] = sign * y;
    out[i * n + j] = y;
  });
}

template <class T>
void generator(T* out, const T* x, T c, int64_t n, int64_t begin, int64_t end, T* largest, T* defect, T* finite) {
  for (int64_t t = begin; t < end; ++t) {
    T large = 0, wrong = 0, nan = 0;
    for_pairs(n, t, t + 1, [&](int64_t, int64_t i, int64_t j) {
      const T a = x[i * n + j], b = x[j * n + i], y = c * (a - b);
      large = larger(large, larger(magnitude(a), magnitude(b)));
      wrong = larger(wrong, magnitude(a + b));
      nan += a * 0 + b * 0;
      out[j * n + i] = -y;
      out[i * n + j] = y;
    });
    largest[t] = large, defect[t] = wrong, finite[t] = nan;
  }
}

// As many doubles as a vector of T has lanes.
template <class T>
struct Doubles {
  typedef double type __attribute__((vector_size(vector_bytes)));
};
template <>
struct Doubles<float> {
  typedef double type __attribute__((vector_size(2 * vector_bytes)));
};

template <class T>
void row_norms(const T* x, int64_t n, int64_t begin, int64_t end, double* magnitudes, double* squares) {
  using D = typename Doubles<T>::type;
  for (int64_t i = begin; i < end; ++i) {
    const T* row = x + i * n;
    D sum = {}, square = {};
    int64_t j = 0;
    for (; j + lanes<T> <= n; j += lanes<T>) {
      const D d = __builtin_convertvector(load(row + j), D);
      sum += d < 0 ? -d : d;
      square += d * d;
    }
    magnitudes[i] = squares[i] = 0;
    for (int l = 0; l < lanes<T>; ++l) magnitudes[i] += sum[l], squares[i] += square[l];
    for (; j < n; ++j) magnitudes[i] += magnitude<double>(row[j]), squares[i] += double(row[j]) * row[j];
  }
}

template <class T>
constexpr SkewExpmKernels<T> table = {product<T>, packed_size<T>, combine<T>, project<T>, generator<T>, row_norms<T>};

}  // namespace

extern const SkewExpmKernels<float> skew_expm_float;
extern const SkewExpmKernels<double> skew_expm_double;
const SkewExpmKernels<float> skew_expm_float = table<float>;
const SkewExpmKernels<double> skew_expm_double = table<double>;

}  // namespace VFRNN_ISA
}  // namespace vfrnn
