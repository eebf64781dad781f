// The exponential of skew-symmetric matrices on the device: one tile of one product, and the stages of the forward and
// backward pass made of it. Mathematics and order of the stages: vfrnn_kernels/skew_expm/README.md, "Triton" and
// "CUDA".
//
// A stage computes products a b^T of n x n matrices for all matrices of the batch. Up to n = 128 one block does all
// stages of a matrix; above, a stage is a launch with a block for every tile. Both run the same code: run_stage.
#pragma once

#include "common/mma.h"
#include "skew_expm/cuda.h"

namespace vfrnn {

// exp(P) = C + P K with X = P^2, Y = X^2 (X^2 + a X), C = I + c_1 X + c_2 X^2 + c_4 Y, K = I + k_1 X + k_2 X^2 + k_4 Y:
// E4 of vfrnn_kernels/skew_expm/coefficients.py.
namespace e4 {
constexpr float theta = 1.347f, a = 60.12045606305529441573f;
constexpr float c1 = 0.499999236970455358172f, c2 = 0.041663615136389115283f, c4 = 0.000023039518855839867f;
constexpr float k1 = 0.166667692604186080573f, k2 = 0.008336227696832649714f, k4 = 0.000003340483523854946f;
}  // namespace e4
constexpr int most_squarings = 20, polished_from = 2;

// A tile of `block` rows and columns by `threads` threads, `depth` of the sum at a time in shared memory; a warp has 16
// row_tiles rows and 8 column_tiles columns.
template <int block_, int depth_, int row_tiles_, int column_tiles_>
struct Tiling {
  static constexpr int block = block_, depth = depth_, row_tiles = row_tiles_, column_tiles = column_tiles_;
  static constexpr int warp_rows = block / (16 * row_tiles), warp_columns = block / (8 * column_tiles);
  static constexpr int threads = 32 * warp_rows * warp_columns;
  // 64 bytes more than a multiple of 128: fragments of neighbouring rows lie in other banks.
  static constexpr int row_bytes = depth * 4 + (depth * 4 % 128 == 0 ? 64 : 0), panel_bytes = block * row_bytes;
  static constexpr int result_stride = block + 1;
  static constexpr int result_bytes = block * result_stride * 4;
  static constexpr int shared_bytes = (2 * panel_bytes > result_bytes ? 2 * panel_bytes : result_bytes) + 128;
  static_assert(depth % 16 == 0 && row_bytes % 128 == 64);
};
using SmallTiling = Tiling<32, 32, 1, 2>;
using MiddleTiling = Tiling<64, 64, 2, 2>;
using LargeTiling = Tiling<128, 64, 2, 8>;
// Tiles across a matrix of the smallest size of tile that several tiles of a matrix have.
VFRNN_HOST_DEVICE int tiles_of(int n) {
  return (n + MiddleTiling::block - 1) / MiddleTiling::block;
}

// A factor of a product: factor x (row, k), plus other_factor y (row, k) if there is y; or of the transposes.
struct Operand {
  const float* x;
  float factor;
  bool transposed;
  const float* y;
  float other_factor;
};
VFRNN_DEVICE Operand plain(const float* x, float factor = 1.f) {
  return {x, factor, false, nullptr, 0.f};
}
VFRNN_DEVICE Operand transpose_of(const float* x, float factor = 1.f) {
  return {x, factor, true, nullptr, 0.f};
}
VFRNN_DEVICE Operand sum_of(const float* x, float factor, const float* y, float other_factor) {
  return {x, factor, false, y, other_factor};
}

// `depth` entries of `block` rows of an operand, into shared memory; zeros outside of the matrix.
template <class T>
VFRNN_DEVICE void load_panel(const Operand& o, int first_row, int first_k, int n, unsigned char* panel) {
  constexpr int chunks = T::depth / 4;
  for (int index = int(threadIdx.x); index < T::block * chunks; index += T::threads) {
    const int r = o.transposed ? index % T::block : index / chunks;
    const int chunk = o.transposed ? index / T::block : index % chunks;
    const int row = first_row + r;
    float values[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int k = first_k + 4 * chunk + j;
      const bool inside = row < n && k < n;
      const int64_t at = o.transposed ? int64_t(k) * n + row : int64_t(row) * n + k;
      values[j] = inside ? o.factor * o.x[at] : 0.f;
      if (o.y != nullptr && inside) values[j] += o.other_factor * o.y[at];
    }
    *reinterpret_cast<float4*>(panel + r * T::row_bytes + 16 * chunk) =
        make_float4(values[0], values[1], values[2], values[3]);
  }
}

template <class T>
struct Sums {
  float of[T::row_tiles][T::column_tiles][4] = {};
};

// sums += a b^T, rows from first_row of a and from first_column of b.
template <class T>
VFRNN_DEVICE void add_product(Sums<T>& sums, const Operand& a, const Operand& b, int first_row, int first_column,
                              int n) {
  unsigned char* const panel_a = gpu::shared_memory();
  unsigned char* const panel_b = panel_a + T::panel_bytes;
  const int g = gpu::lane() / 4, t = gpu::lane() % 4;
  const int warp_row = gpu::warp() / T::warp_columns * 16 * T::row_tiles;
  const int warp_column = gpu::warp() % T::warp_columns * 8 * T::column_tiles;
  for (int k = 0; k < n; k += T::depth) {
    gpu::sync_threads();
    load_panel<T>(a, first_row, k, n, panel_a);
    load_panel<T>(b, first_column, k, n, panel_b);
    gpu::sync_threads();
    const int groups = ((n - k < T::depth ? n - k : T::depth) + 15) / 16;
#pragma unroll 1
    for (int group = 0; group < groups; ++group) {
      const auto chunk = [&](const unsigned char* panel, int row) {
        return *reinterpret_cast<const uint4*>(panel + row * T::row_bytes + 64 * group + 16 * t);
      };
      gpu::Rows<gpu::BoundedF32> rows[T::row_tiles];
#pragma unroll
      for (int i = 0; i < T::row_tiles; ++i) {
        const int row = warp_row + 16 * i + g;
        rows[i] = gpu::rows_of<gpu::BoundedF32>(chunk(panel_a, row), chunk(panel_a, row + 8));
      }
#pragma unroll
      for (int j = 0; j < T::column_tiles; ++j) {
        const uint4 column = chunk(panel_b, warp_column + 8 * j + g);
#pragma unroll
        for (int i = 0; i < T::row_tiles; ++i) gpu::multiply(sums.of[i][j], rows[i], column);
      }
    }
  }
}

// The tile in shared memory, where every thread finds every entry: value(row, column) within the tile.
template <class T>
struct Result {
  const float* tile;
  VFRNN_DEVICE float operator()(int row, int column) const { return tile[row * T::result_stride + column]; }
};
template <class T>
VFRNN_DEVICE Result<T> shared_result(const Sums<T>& sums) {
  auto* const tile = reinterpret_cast<float*>(gpu::shared_memory());
  const int g = gpu::lane() / 4, t = gpu::lane() % 4;
  const int warp_row = gpu::warp() / T::warp_columns * 16 * T::row_tiles;
  const int warp_column = gpu::warp() % T::warp_columns * 8 * T::column_tiles;
  gpu::sync_threads();
#pragma unroll
  for (int i = 0; i < T::row_tiles; ++i) {
#pragma unroll
    for (int j = 0; j < T::column_tiles; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        tile[(warp_row + 16 * i + g + e / 2 * 8) * T::result_stride + warp_column + 8 * j + 2 * t + e % 2] =
            sums.of[i][j][e];
      }
    }
  }
  gpu::sync_threads();
  return {tile};
}

// A tile of the matrix: (first_row, first_column); off the diagonal of a symmetric or skew result it stands for its
// mirror image too.
struct Place {
  int first_row, first_column, n;
  bool mirrored;
};
// store(row, column, r, c) for every entry of the tile, row and column of the matrix, r and c within the tile; and
// then, if `transposes`, for its mirror image, with (column, row) of the matrix for (r, c) of the tile: neighbours in
// memory go to neighbouring threads both times.
template <class T, class Store>
VFRNN_DEVICE void for_entries(const Place& p, const Store& store) {
  for (int index = int(threadIdx.x); index < T::block * T::block; index += T::threads) {
    const int r = index / T::block, c = index % T::block;
    if (p.first_row + r < p.n && p.first_column + c < p.n) store(p.first_row + r, p.first_column + c, r, c);
  }
}
template <class T, class Store>
VFRNN_DEVICE void for_mirrored(const Place& p, const Store& store) {
  if (!p.mirrored) return;
  for (int index = int(threadIdx.x); index < T::block * T::block; index += T::threads) {
    const int r = index % T::block, c = index / T::block;
    if (p.first_row + r < p.n && p.first_column + c < p.n) store(p.first_column + c, p.first_row + r, r, c);
  }
}
template <class T>
VFRNN_DEVICE void store_plain(float* to, const Place& p, const Result<T>& value) {
  for_entries<T>(p, [&](int row, int column, int r, int c) { to[int64_t(row) * p.n + column] = value(r, c); });
}
template <class T>
VFRNN_DEVICE void store_symmetric(float* to, const Place& p, const Result<T>& value) {
  store_plain<T>(to, p, value);
  for_mirrored<T>(p, [&](int row, int column, int r, int c) { to[int64_t(row) * p.n + column] = value(r, c); });
}
// The skew part of the tile, `factor` times; with `with`, added to what is there.
template <class T>
VFRNN_DEVICE void store_skew(float* to, const Place& p, const Result<T>& value, float factor, bool with) {
  const auto at = [&](int row, int column) -> float& { return to[int64_t(row) * p.n + column]; };
  for_entries<T>(p, [&](int row, int column, int r, int c) {
    const float skew = factor * (p.mirrored ? value(r, c) : 0.5f * (value(r, c) - value(c, r)));
    at(row, column) = with ? at(row, column) + skew : skew;
  });
  for_mirrored<T>(p, [&](int row, int column, int r, int c) {
    const float skew = -(factor * value(r, c));
    at(row, column) = with ? at(row, column) + skew : skew;
  });
}

// 2^-s exactly; NaN for s = -1, which makes everything NaN that is scaled with it.
VFRNN_DEVICE float power_of_half(int s) {
  return gpu::float_of(s < 0 ? 0x7fc00000u : uint32_t(127 - s) << 23);
}
// e = exp(-dt delta / 4) of strang_step, 1 without delta.
VFRNN_DEVICE float half_step(const float* delta, float dt, int k) {
  return delta == nullptr ? 1.f : expf(-0.25f * dt * delta[k]);
}

// The sum, or maximum, of what the threads bring, in a fixed order; to all of them.
template <int threads, bool maximum>
VFRNN_DEVICE float over_block(float mine) {
  auto* const all = reinterpret_cast<float*>(gpu::shared_memory());
  gpu::sync_threads();
  const float of_warp = maximum ? gpu::warp_max(mine) : gpu::warp_sum(mine);
  if (gpu::lane() == 0) all[gpu::warp()] = of_warp;
  gpu::sync_threads();
  float result = all[0];
  for (int w = 1; w < threads / 32; ++w) result = maximum ? fmaxf(result, all[w]) : result + all[w];
  gpu::sync_threads();
  return result;
}

// What a tile of the symmetric X2 adds to the row sums of |X2| and of the squares of 2^-40 X2. norms (2, tiles, n):
// entry (., t, row) is written once, by the tile that holds that row, or mirrors it, in column t.
template <class T>
VFRNN_DEVICE void store_row_sums(float* norms, const Place& p, const Result<T>& value) {
  constexpr float small = 9.094947017729282e-13f;  // 2^-40
  const int tiles = (p.n + T::block - 1) / T::block;
  for (int index = int(threadIdx.x); index < 2 * T::block; index += T::threads) {
    const bool of_columns = index >= T::block;
    const int line = index % T::block;
    const int row = (of_columns ? p.first_column : p.first_row) + line;
    if (row >= p.n || (of_columns && !p.mirrored)) continue;
    float sum = 0.f, squares = 0.f;
    for (int k = 0; k < T::block; ++k) {  // outside of the matrix the tile is 0
      const float x = of_columns ? value(k, line) : value(line, k);
      sum += fabsf(x), squares += (small * x) * (small * x);
    }
    const int t = (of_columns ? p.first_row : p.first_column) / T::block;
    norms[int64_t(t) * p.n + row] = sum;
    norms[int64_t(tiles + t) * p.n + row] = squares;
  }
}

// s, the least with ||A||_2 <= theta 2^s that is seen from X2 = A^4; -1: not finite, or beyond most_squarings.
// Eigenvalues come in pairs, so ||X2||_2^2 is at most half of ||X2||_F^2. The 2^-40 keeps squares of norms between 1e-2
// and 1e8 from underflow and overflow: below, the bound is 0, above, it is that of the row sums.
template <int threads>
VFRNN_DEVICE int squarings(const float* norms, int n, int tiles) {
  float largest = 0.f, total = 0.f, squares = 0.f;
  for (int row = int(threadIdx.x); row < n; row += threads) {
    float sum = 0.f;
    for (int t = 0; t < tiles; ++t) {
      sum += norms[int64_t(t) * n + row];
      squares += norms[int64_t(tiles + t) * n + row];
    }
    largest = fmaxf(largest, sum), total += sum;
  }
  largest = over_block<threads, true>(largest);
  total = over_block<threads, false>(total);
  squares = over_block<threads, false>(squares);
  if (!(total < INFINITY)) return -1;  // a maximum may lose NaN, a sum does not
  const float bound = fminf(largest, sqrtf(0.5f * squares) * 1.099511627776e12f);
  const float ratio = fminf(fmaxf(sqrtf(sqrtf(bound)) * (1.f / e4::theta), 1.f), 1e9f);
  const int s = int(ceilf(log2f(ratio)));
  return s <= most_squarings ? s : -1;
}

// ---- powers M1^k of strang_step's substeps, by the binary digits of k, first to last ----
VFRNN_HOST_DEVICE int highest_digit(int k) {
  int place = 0;
  while (k >> (place + 1) != 0) ++place;
  return place;
}
template <class T>
VFRNN_DEVICE Place whole(int n) {
  return {0, 0, n, false};
}
// result = a b, or a b + c d, of whole matrices by one block.
template <class T>
VFRNN_DEVICE void multiply_into(float* result, const float* a, const float* b, const float* c, const float* d, int n) {
  Sums<T> sums;
  add_product<T>(sums, plain(a), transpose_of(b), 0, 0, n);
  if (c != nullptr) add_product<T>(sums, plain(c), transpose_of(d), 0, 0, n);
  store_plain<T>(result, whole<T>(n), shared_result<T>(sums));
  gpu::sync_threads();
}

// f(tiling, launch) for matrices of size n <= largest_in_block, a block for each of the K.
template <class F>
int with_block_per_matrix(int64_t K, int n, void* stream, const F& f) {
  const auto launched = [&](auto tiling) {
    using T = decltype(tiling);
    return int(f(tiling, gpu::Launch{uint32_t(K), 1, 1, T::threads, T::shared_bytes, 1, false,
                                     static_cast<cudaStream_t>(stream)}));
  };
  return n <= 32 ? launched(SmallTiling{}) : n <= 64 ? launched(MiddleTiling{}) : launched(LargeTiling{});
}

}  // namespace vfrnn
