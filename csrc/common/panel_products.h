// Products of panels (panels.h) on registers, the heart of the recurrences: out (rows, W) = init + a b, and sums += a^T
// b.
//
// One element is one chain of multiply-adds over k = 0, 1, ... whatever the tile it falls in: the bits of a sample do
// not depend on its place in the batch.
#pragma once

#include "common/panels.h"
#include "common/simd.h"

namespace vfrnn {
namespace VFRNN_ISA {

template <class T>
inline constexpr int panel_width = 2 * lanes<T>;
// Few rows take several panels at once: so many sums that the latency of a multiply-add is hidden.
inline constexpr int sums_in_flight = 8;

inline int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

// A (rows, count) matrix in panels.
template <class T>
struct Panels {
  const T* p;
  int64_t stride;  // from one panel to the next
  int64_t count;
};

// sums[p][r][v] += a_rk b_pkv over k, with a_rk at a[r row_stride + k k_stride] and b_k of W entries.
template <int P, int R, int V, int row_stride, int k_stride, class T>
[[gnu::always_inline]] inline void accumulate(Vec<T> (&sums)[P][R][V], const T* a, const T* b, int64_t b_stride,
                                              int64_t count) {
  for (int64_t k = 0; k < count; ++k, a += k_stride, b += panel_width<T>) {
    Vec<T> columns[P][V];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) columns[p][v] = load(b + p * b_stride + v * lanes<T>);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec<T> entry = broadcast(a[r * row_stride]);
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) sums[p][r][v] += entry * columns[p][v];
      }
    }
  }
}

// Rows of a user's tensor, the first of a panel's columns of it; null: none.
template <class T>
struct Ahead {
  const T* p;
  int64_t stride;  // from one row to the next
};

// P neighbouring panels of: out = init + [h, x] b, for R rows.
template <class T>
struct Product {
  Panels<T> h, x;
  const T* b;
  int64_t b_stride;  // from one panel of b to the next
  const T* init;     // one row for all, or null: zero
  T* out;
  int64_t out_stride;
  // What `done` of product() will read or write of the panel: a tile asks for its rows while it computes, since the
  // sequences are longer than a cache, and a row's columns of one panel are too few for the processor to foresee.
  Ahead<T> ahead[2];
};

template <int P, int R, class T>
[[gnu::always_inline]] inline void ask_for(const Ahead<T>& ahead, int64_t row) {
  constexpr int line = 64, bytes = P * panel_width<T> * int(sizeof(T));
  if (!ahead.p) return;
  for (int64_t r = row; r < row + R; ++r) {
    const char* p = reinterpret_cast<const char*>(ahead.p + r * ahead.stride);
#pragma GCC unroll 8
    for (int at = 0; at < bytes; at += line) __builtin_prefetch(p + at);
    __builtin_prefetch(p + bytes - 1);
  }
}

template <int P, int R, int V, class T>
void product_tile(const Product<T>& m, int64_t row) {
  constexpr int W = panel_width<T>;
  for (const Ahead<T>& ahead : m.ahead) ask_for<P, R>(ahead, row);
  Vec<T> sums[P][R][V];
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sums[p][r][v] = m.init ? load(m.init + p * W + v * lanes<T>) : Vec<T>{};
    }
  }
  const T* b = m.b;
  const auto add = [&](const Panels<T>& a) __attribute__((always_inline)) {
    const T* entries = a.p + row * W;
    for (int64_t k = 0; k < a.count; k += W, entries += a.stride) {
      const int64_t count = smaller(W, a.count - k);
      accumulate<P, R, V, W, 1>(sums, entries, b, m.b_stride, count);
      b += count * W;
    }
  };
  add(m.h);
  add(m.x);
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) store(m.out + p * m.out_stride + (row + r) * W + v * lanes<T>, sums[p][r][v]);
    }
  }
}

template <int P, int R, class T>
void product_rows(const Product<T>& m, int64_t row, int rows, bool wide) {
  if constexpr (R > 1) {
    if (rows < R) return product_rows<P, R - 1>(m, row, rows, wide);
  }
  if constexpr (P == 1) {
    if (!wide) return product_tile<1, R, 1>(m, row);
  }
  product_tile<P, R, 2>(m, row);
}

// f(row, height) for tiles that cover the rows, of heights that differ by one at most: a low tile, with too few sums to
// hide the latency of a multiply-add, would take as long as a high one.
template <class F>
[[gnu::always_inline]] inline void for_tiles(int64_t rows, F&& f) {
  const int64_t tiles = panels_of(rows, tile_rows);
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t row = rows * t / tiles;
    f(row, int(rows * (t + 1) / tiles - row));
  }
}

// out = init + [h, x] b for the panels first..last of b, which has `columns` columns; done(p, count) when `count`
// panels from p are.
template <class T, class Done>
void product(Product<T> m, int64_t rows, int64_t columns, int64_t first, int64_t last, Done&& done) {
  constexpr int W = panel_width<T>;
  constexpr int in_one = sums_in_flight / 2;
  const auto advance = [&m](int64_t panels) {
    m.b += panels * m.b_stride, m.out += panels * m.out_stride;
    if (m.init) m.init += panels * W;
    for (Ahead<T>& ahead : m.ahead) {
      if (ahead.p) ahead.p += panels * W;
    }
  };
  advance(first);
  for (int64_t p = first; p < last;) {
    const int64_t full = smaller(last, columns / W) - p;
    int count = 1;
    if (rows == 1 && full >= in_one) {
      count = in_one;
      product_tile<in_one, 1, 2>(m, 0);
    } else if (rows == 2 && full >= in_one / 2) {
      count = in_one / 2;
      product_tile<in_one / 2, 2, 2>(m, 0);
    } else {
      const bool wide = columns - p * W > lanes<T>;
      for_tiles(rows, [&](int64_t row, int height) { product_rows<1, tile_rows>(m, row, height, wide); });
    }
    done(p, count);
    p += count;
    advance(count);
  }
}

// sums (rows of a panel, W) += a^T b, with a and b panels of `count` rows: a rank-`count` update.
template <int R, int V, class T>
void outer_tile(const T* a, const T* b, int64_t count, T* sums) {
  constexpr int W = panel_width<T>;
  Vec<T> s[1][R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) s[0][r][v] = load(sums + r * W + v * lanes<T>);
  }
  accumulate<1, R, V, 1, W>(s, a, b, 0, count);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) store(sums + r * W + v * lanes<T>, s[0][r][v]);
  }
}

template <int R, class T>
void outer_rows(const T* a, const T* b, int64_t count, T* sums, int rows, bool wide) {
  if constexpr (R > 1) {
    if (rows < R) return outer_rows<R - 1>(a, b, count, sums, rows, wide);
  }
  wide ? outer_tile<R, 2>(a, b, count, sums) : outer_tile<R, 1>(a, b, count, sums);
}

template <class T>
void outer_product(const T* a, int64_t rows, const T* b, int64_t count, T* sums, bool wide) {
  for_tiles(rows, [&](int64_t row, int height) {
    outer_rows<tile_rows>(a + row, b, count, sums + row * panel_width<T>, height, wide);
  });
}

}  // namespace VFRNN_ISA
}  // namespace vfrnn
