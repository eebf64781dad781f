// CUDA kernels of field_generator on the complete mesh: S is a scatter of v, delta a row sum.
#include "field_generator/device.h"

namespace vfrnn {
namespace {

constexpr int rows = 8, columns = 64;  // of a tile of S, forward
constexpr int pair_tile = 32;          // of the pairs of nodes, backward

// Number of the cell of the nodes i < j on the complete mesh
VFRNN_DEVICE int64_t cell_of(int64_t i, int64_t j, int64_t n) {
  return i * (2 * n - i - 1) / 2 + j - i - 1;
}

// Eight rows of S. Below the diagonal the cells of a column are adjacent: they are read so, and turned in shared
// memory. The product of the roots is the same number for (i, j) and (j, i), so S is exactly skew.
__global__ void __launch_bounds__(threads) complete_forward_kernel(Problem p, float* S, float* delta) {
  constexpr int stride = columns + 1;
  const int64_t k = blockIdx.x;
  const int first_i = int(blockIdx.y) * rows, t = int(threadIdx.x), lane = gpu::lane(), x = gpu::warp();
  const float* v = p.v + k * p.m;
  float* turned = reinterpret_cast<float*>(gpu::shared_memory());
  const int i = first_i + x;
  const float r_i = inverse_root(p, i);
  float sum = 0.f;
  for (int first_j = 0; first_j < p.n; first_j += columns) {
    const bool below = first_j < first_i + rows;  // some of the tile is
    if (below) {
      for (int e = t; e < rows * columns; e += threads) {
        const int high = first_i + e % rows, low = first_j + e / rows;
        float value = 0.f;
        if (low < high && high < p.n) {
          const int64_t cell = cell_of(low, high, p.n);
          value = weight(p, cell) * v[cell];
        }
        turned[e % rows * stride + e / rows] = value;
      }
      gpu::sync_threads();
    }
#pragma unroll 1
    for (int y = lane; y < columns; y += 32) {
      const int j = first_j + y;
      if (i >= p.n || j >= p.n) continue;
      float value = 0.f;
      if (i < j) {
        const int64_t cell = cell_of(i, j, p.n);
        value = weight(p, cell) * v[cell];
      } else if (i > j) {
        value = -turned[x * stride + y];
      }
      sum += value;
      S[(k * p.n + i) * p.n + j] = i == j ? 0.f : value * 0.5f * (r_i * inverse_root(p, j));
    }
    if (below) gpu::sync_threads();
  }
  sum = gpu::warp_sum(sum);
  if (lane == 0 && i < p.n) delta[k * p.n + i] = sum * r_i * r_i;
}

constexpr int64_t complete_backward_shared = int64_t(sizeof(float)) * pair_tile * (pair_tile + 1) > b_shared
                                                 ? int64_t(sizeof(float)) * pair_tile * (pair_tile + 1)
                                                 : b_shared;

// The cells i < j of one tile: grad_flux_ij = R_ij + q_j - q_i
VFRNN_DEVICE void complete_backward_block(const Problem& p, const Gradients& g, int64_t k, int first_i, int first_j) {
  constexpr int stride = pair_tile + 1;
  const int lane = gpu::lane(), warp = gpu::warp();
  const float* to_S = g.grad_S + k * p.n * p.n;
  float* turned = reinterpret_cast<float*>(gpu::shared_memory());
  for (int y = warp; y < pair_tile; y += warps) {
    const int i = first_i + lane, j = first_j + y;
    turned[lane * stride + y] = i < j && j < p.n ? to_S[int64_t(j) * p.n + i] : 0.f;
  }
  gpu::sync_threads();
  const int j = first_j + lane;
  for (int x = warp; x < pair_tile; x += warps) {
    const int i = first_i + x;
    if (i >= j || j >= p.n) continue;
    const float r_i = inverse_root(p, i), r_j = inverse_root(p, j);
    const float R = (to_S[int64_t(i) * p.n + j] - turned[x * stride + lane]) * 0.5f * (r_i * r_j);
    const float q_i = -g.grad_delta[k * p.n + i] * r_i * r_i, q_j = -g.grad_delta[k * p.n + j] * r_j * r_j;
    const int64_t cell = cell_of(i, j, p.n), place = k * p.m + cell;
    const float grad_flux = R + q_j - q_i;
    if (g.A) g.A[place] = grad_flux;
    if (g.grad_v) g.grad_v[place] = grad_flux * p.w[cell];
    if (g.grad_w && !g.A) g.grad_w[cell] = grad_flux * p.v[place];
  }
}
__global__ void __launch_bounds__(threads) complete_backward_kernel(Problem p, Gradients g, int pairs, int b_blocks) {
  const int64_t k = blockIdx.x / uint32_t(pairs + b_blocks);
  const int index = int(blockIdx.x % uint32_t(pairs + b_blocks)), across = (p.n + pair_tile - 1) / pair_tile;
  if (index >= pairs) {
    b_block(p, g, k, (index - pairs) * b_rows);
  } else if (index / across <= index % across) {
    complete_backward_block(p, g, k, index / across * pair_tile, index % across * pair_tile);
  }
}
__global__ void __launch_bounds__(threads) complete_sums_kernel(Problem p, Gradients g, bool sums_b) {
  const int64_t first = int64_t(blockIdx.x) * threads + threadIdx.x, step = int64_t(gridDim.x) * threads;
  for (int64_t cell = first; g.A && cell < p.m; cell += step) {
    float sum = 0.f;
#pragma unroll 4
    for (int64_t k = 0; k < p.K; ++k) sum += g.A[k * p.m + cell] * p.v[k * p.m + cell];
    g.grad_w[cell] = sum;
  }
  if (sums_b) sum_b(p, g, first, step);
}

}  // namespace

int launch_complete(const Problem& p, float* S, float* delta, void* stream) {
  const int64_t shared = int64_t(sizeof(float)) * rows * (columns + 1);
  return gpu::launch(grid(uint32_t(p.K), blocks_of(p.n, rows), 1, shared, stream), complete_forward_kernel, p, S,
                     delta);
}

int launch_complete_backward(const Problem& p, const Gradients& g, void* stream) {
  const uint32_t tiles = blocks_of(p.n, pair_tile), pairs = g.grad_w || g.grad_v ? tiles * tiles : 0;
  const uint32_t b_blocks = g.grad_b ? blocks_of(p.n, b_rows) : 0, blocks = uint32_t(p.K) * (pairs + b_blocks);
  if (blocks == 0) return 0;
  const int error = gpu::launch(grid(blocks, 1, 1, complete_backward_shared, stream), complete_backward_kernel, p, g,
                                int(pairs), int(b_blocks));
  const bool sums_b = g.grad_b && g.parts_b != g.grad_b;
  if (error != 0 || !(g.A || sums_b)) return error;
  const uint32_t most = 1024, needed = blocks_of(p.m > p.n ? p.m : p.n, threads);
  return gpu::launch(grid(needed < most ? needed : most, 1, 1, 0, stream), complete_sums_kernel, p, g, sums_b);
}

}  // namespace vfrnn
