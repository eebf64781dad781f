// Small square matrices in the lanes of vectors: entry e of a block is one vector, lane l of which belongs to matrix l.
// Every lane goes through the same operations, so that a result does not depend on the lane or on its neighbours.
#pragma once

#include "common/elementary.h"
#include "common/transpose.h"
#include "skew_expm/coefficients.h"

namespace vfrnn {
namespace VFRNN_ISA {

// What is taken for skew-symmetric: |S + S^T| up to the square root of the precision, relative to |S|. Norms beyond
// `largest_norm` are refused.
template <class T>
inline constexpr T skew_tolerance = sizeof(T) == 4 ? T(0x1.6a09e6p-12) : T(0x1p-26);
template <class T>
inline constexpr T largest_norm = T(skew_expm_scheme<T>.theta * (1 << max_squarings));

// The first of `count` lanes that is 0, `count` where none is.
template <class T>
inline int64_t first_zero(IntVec<T> mask, int64_t count) {
  int64_t l = 0;
  while (l < count && mask[l] != 0) ++l;
  return l;
}

// Entry e of matrix l is from[l * stride + e]; lanes from `count` on are 0. C is computed in, T is stored.
template <class T, class C, int entries>
inline void read_lanes(const T* from, int64_t stride, int64_t count, Vec<C>* to) {
  C lane[entries][lanes<C>] = {};
  if (count == lanes<C>) {
    for (int l = 0; l < lanes<C>; ++l) {
      for (int e = 0; e < entries; ++e) lane[e][l] = from[l * stride + e];
    }
  } else {
    for (int64_t l = 0; l < count; ++l) {
      for (int e = 0; e < entries; ++e) lane[e][l] = from[l * stride + e];
    }
  }
  for (int e = 0; e < entries; ++e) to[e] = load(lane[e]);
}
template <class T, class C, int entries>
inline void write_lanes(const Vec<C>* from, int64_t stride, int64_t count, T* to) {
  C lane[entries][lanes<C>];
  for (int e = 0; e < entries; ++e) store(lane[e], from[e]);
  if (count == lanes<C>) {
    for (int l = 0; l < lanes<C>; ++l) {
      for (int e = 0; e < entries; ++e) to[l * stride + e] = T(lane[e][l]);
    }
  } else {
    for (int64_t l = 0; l < count; ++l) {
      for (int e = 0; e < entries; ++e) to[l * stride + e] = T(lane[e][l]);
    }
  }
}

// f(e) for parts of a vector's size of 0..area, the last of which may overlap the one before.
template <class T, class F>
inline void for_vectors(int64_t area, F&& f) {
  for (int64_t e = 0; e < area; e += lanes<T>) f(e + lanes<T> <= area ? e : area - lanes<T>);
}

// The same for a number of entries that is known at run time, `area`, which is at least a vector.
template <class T>
inline void read_block(const T* from, int64_t area, int64_t count, Vec<T>* to) {
  for_vectors<T>(area, [=](int64_t e) {
    Vec<T> x[lanes<T>];
    for (int l = 0; l < lanes<T>; ++l) x[l] = l < count ? load(from + l * area + e) : Vec<T>{};
    transpose<T>(x);
    for (int l = 0; l < lanes<T>; ++l) to[e + l] = x[l];
  });
}
template <class T>
inline void write_block(const Vec<T>* from, int64_t area, int64_t count, T* to) {
  for_vectors<T>(area, [=](int64_t e) {
    Vec<T> x[lanes<T>];
    for (int l = 0; l < lanes<T>; ++l) x[l] = from[e + l];
    transpose<T>(x);
    for (int l = 0; l < lanes<T>; ++l) {
      if (l < count) store(to + l * area + e, x[l]);
    }
  });
}

// What is known of a product: the part of it on and above the diagonal is then all that is computed.
enum class Form { general, symmetric, skew };

template <int N>
struct Count {
  static constexpr int value = N;
};

// n x n products of blocks.
template <class T>
class LaneProducts {
 public:
  using V = Vec<T>;
  struct Factor {
    const V* p;
    bool transposed = false;
  };
  explicit LaneProducts(int64_t n) : n_(n) {}

  // out = a b, which must not overlap out
  template <Form form = Form::general>
  void set(V* out, Factor a, Factor b) const {
    multiply<form, false>(out, a, b);
  }
  // out += a b
  void add(V* out, Factor a, Factor b) const { multiply<Form::general, true>(out, a, b); }

 private:
  // Tiles of the result that registers hold, beside what is multiplied.
  static constexpr int most_rows = vector_registers >= 32 ? 4 : 3, most_columns = 4;

  // f(first, Count<size>) on 0..count in parts of about the same size, from 2 to `most`.
  template <int most, class F>
  static void for_parts(int64_t count, F&& f) {
    const int64_t parts = (count + most - 1) / most;
    int64_t first = 0;
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t size = count / parts + (part < count % parts);
      if (size == 2) f(first, Count<2>());
      if (size == 3) f(first, Count<3>());
      if constexpr (most > 3) {
        if (size == 4) f(first, Count<4>());
      }
      first += size;
    }
  }

  template <Form form, bool add>
  void multiply(V* out, Factor a, Factor b) const {
    for_parts<most_rows>(n_, [&](int64_t i, auto rows) {
      const int64_t from = form == Form::general ? 0 : i;
      for_parts<most_columns>(n_ - from, [&](int64_t j, auto columns) {
        tile<form, add, rows.value, columns.value>(out, a, b, i, from + j);
      });
    });
  }

  template <Form form, bool add, int R, int C>
  void tile(V* out, Factor a, Factor b, int64_t i, int64_t j) const {
    const int64_t a_row = a.transposed ? 1 : n_, a_step = a.transposed ? n_ : 1;
    const int64_t b_column = b.transposed ? n_ : 1, b_step = b.transposed ? 1 : n_;
    const V *left = a.p + i * a_row, *right = b.p + j * b_column;
    V sum[R][C];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sum[r][c] = add ? out[(i + r) * n_ + j + c] : V{};
    }
    for (int64_t k = 0; k < n_; ++k, left += a_step, right += b_step) {
      V rows[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) rows[r] = left[r * a_row];
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        const V column = right[c * b_column];
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) sum[r][c] += rows[r] * column;
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        const int64_t row = i + r, column = j + c;
        if (form != Form::general && column < row) continue;
        out[row * n_ + column] = form == Form::skew && column == row ? V{} : sum[r][c];
        if (form != Form::general && column > row) {
          out[column * n_ + row] = form == Form::skew ? -sum[r][c] : sum[r][c];
        }
      }
    }
  }

  int64_t n_;
};

}  // namespace VFRNN_ISA
}  // namespace vfrnn
