// The backward CUDA kernels of field_generator on the complete mesh: a gather of grad_S, then sums over the fields.
#include "field_generator/device.h"

namespace vfrnn {
namespace {

constexpr int pair_tile = 32;  // nodes each way of a tile of pairs

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
