// The number of substeps, planned by all blocks of a launch: the bound (5) of vfrnn_kernels/field_flow/README.md, as in
// reference_plan.py. Included by forward.cu only.
#pragma once

#include "field_flow/device.h"

namespace vfrnn {
namespace {

constexpr float most_substeps = 10000.f;
constexpr int norms =
    field_flow_norms;  // largest sums of rows and columns of W^1/2 N B^-1/2, of W^1/2 G B^-1/2, and |v_c|^2

VFRNN_DEVICE float larger(float a, float b) {  // NaN if one is
  return b > a || b != b ? b : a;
}
VFRNN_DEVICE float warp_largest(float x) {
#pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) x = larger(x, gpu::shuffle_xor(x, mask));
  return x;
}

// The largest sums that this block has found; `found` (norms,) of this block.
template <class S>
VFRNN_DEVICE void find_norms(const Mesh<S>& mesh, const Node* nodes, float* found) {
  const FieldFlowProblem& p = mesh.p;
  const int lane = mesh.lane, warp = mesh.warp, warps = mesh.warps, blocks = int(gridDim.x), block = int(blockIdx.x);
  float rows_N = 0.f, rows_G = 0.f, columns_N = 0.f, columns_G = 0.f, speed = 0.f;
  for (int row = block + warp * blocks; row < p.m * (p.d + 1); row += blocks * warps) {
    const bool of_N = row < p.m;
    const float* entries = of_N ? p.N + int64_t(row) * p.n : p.G + int64_t(row - p.m) * p.n;
    float sum = 0.f;
    for (int j = lane; j < p.n; j += 32) sum += fabsf(entries[j]) * nodes[j].r;
    sum = gpu::warp_sum(sum) * sqrtf(weight(p, of_N ? row : (row - p.m) / p.d));
    rows_N = larger(rows_N, of_N ? sum : 0.f), rows_G = larger(rows_G, of_N ? 0.f : sum);
  }
  // 32 columns at a time, their rows split among the warps
  for (int first = 32 * block; first < p.n; first += 32 * blocks) {
    const int j = first + lane;
    float of_N = 0.f, of_G = 0.f;
    if (j < p.n) {
#pragma unroll 4
      for (int c = warp; c < p.m; c += warps) of_N += fabsf(p.N[int64_t(c) * p.n + j]) * sqrtf(weight(p, c));
#pragma unroll 4
      for (int c = warp; c < p.m * p.d; c += warps) {
        of_G += fabsf(p.G[int64_t(c) * p.n + j]) * sqrtf(weight(p, c / p.d));
      }
    }
    mesh.shares[warp * S::stride + lane] = of_N, mesh.shares[warp * S::stride + 32 + lane] = of_G;
    gpu::sync_threads();
    if (j < p.n) {
      columns_N = larger(columns_N, mesh.total(lane) * nodes[j].r);
      columns_G = larger(columns_G, mesh.total(32 + lane) * nodes[j].r);
    }
    gpu::sync_threads();
  }
  const int64_t cells = int64_t(p.one_field ? 1 : p.B) * p.m, threads = int64_t(blocks) * blockDim.x;
  for (int64_t c = int64_t(block) * blockDim.x + threadIdx.x; c < cells; c += threads) {
    float square = 0.f;
    for (int k = 0; k < p.d; ++k) square += p.v[c * p.d + k] * p.v[c * p.d + k];
    speed = larger(speed, square);
  }
  const float largest[norms] = {rows_N, columns_N, rows_G, columns_G, speed};
#pragma unroll
  for (int k = 0; k < norms; ++k) {
    const float value = warp_largest(largest[k]);
    if (lane == 0) mesh.shares[warp * S::stride + k] = value;
  }
  gpu::sync_threads();
  if (threadIdx.x < norms) {
    float value = 0.f;
    for (int other = 0; other < warps; ++other) value = larger(value, mesh.shares[other * S::stride + threadIdx.x]);
    found[threadIdx.x] = value;
  }
}

// use(i, j, sum_k factor(k)^2 x_k(i) x_k(j)) of every pair of nodes, a few columns at a time; x_k are rows of n
// entries. The sums are split among the warps.
template <class S, class Factor, class Use>
VFRNN_DEVICE void products_of_columns(const Mesh<S>& mesh, const float* rows, int count, const Factor& factor,
                                      const Use& use) {
  constexpr int width = S::columns < 8 ? S::columns : 8;
  const int n = mesh.p.n, across = (n + 31) / 32, down = (n + width - 1) / width;
  for (int task = int(blockIdx.x); task < across * down; task += int(gridDim.x)) {
    const int first_i = task % across * 32, first_j = task / across * width, i = first_i + mesh.lane;
    float sums[width] = {};
    for (int k = mesh.warp; k < count; k += mesh.warps) {
      const float *row = rows + int64_t(k) * n, scale = factor(k);
      const float x = i < n ? scale * row[i] : 0.f;
#pragma unroll
      for (int q = 0; q < width; ++q) sums[q] += x * (first_j + q < n ? scale * row[first_j + q] : 0.f);
    }
#pragma unroll
    for (int q = 0; q < width; ++q) mesh.shares[mesh.warp * S::stride + 32 * q + mesh.lane] = sums[q];
    gpu::sync_threads();
    for (int e = int(threadIdx.x); e < 32 * width; e += int(blockDim.x)) {
      if (first_i + e % 32 < n && first_j + e / 32 < n) use(first_i + e % 32, first_j + e / 32, mesh.total(e));
    }
    gpu::sync_threads();
  }
}

// Substeps that certainly suffice, in every thread; NaN where no number up to the largest does, or where the bound is
// not finite. Every block finds the same: from the same numbers in the same order.
template <class S>
VFRNN_DEVICE float planned_substeps(const Mesh<S>& mesh, const Node* nodes, float limit, float* scratch,
                                    uint32_t* counter, uint32_t& round) {
  const FieldFlowProblem& p = mesh.p;
  const int blocks = int(gridDim.x), lane = mesh.lane;
  float *squares = scratch + norms * blocks, *gram = squares + blocks;
  gpu::sync_threads();
  find_norms(mesh, nodes, scratch + norms * blockIdx.x);
  gpu::grid_sync(counter, ++round);
  float largest[norms] = {};
#pragma unroll
  for (int k = 0; k < norms; ++k) {
    for (int block = lane; block < blocks; block += 32) largest[k] = larger(largest[k], scratch[norms * block + k]);
    largest[k] = warp_largest(largest[k]);
  }
  const float norm_G = sqrtf(largest[2]) * sqrtf(largest[3]);
  const float bound = fabsf(*p.dt) * sqrtf(largest[4]) * (sqrtf(largest[0]) * sqrtf(largest[1])) * norm_G;
  float sharper = 1.f;
  if (bound > limit) {
    // ||A||_2 <= ||(A^T A)^2||_F^1/4 for A = W^1/2 G B^-1/2, over norm_G so that no power overflows
    const float inverse = 1.f / norm_G;
    products_of_columns(
        mesh, p.G, p.m * p.d, [&](int k) { return sqrtf(weight(p, k / p.d)) * inverse; },
        [&](int i, int j, float x) { gram[int64_t(i) * p.n + j] = x * nodes[i].r * nodes[j].r; });
    gpu::grid_sync(counter, ++round);
    float sum = 0.f;
    products_of_columns(mesh, gram, p.n, [](int) { return 1.f; }, [&](int, int, float x) { sum += x * x; });
    sum = gpu::warp_sum(sum);
    if (lane == 0) mesh.shares[mesh.warp * S::stride] = sum;
    gpu::sync_threads();
    if (threadIdx.x == 0) squares[blockIdx.x] = mesh.total(0);
    gpu::grid_sync(counter, ++round);
    float total = 0.f;
    for (int block = lane; block < blocks; block += 32) total += squares[block];
    total = gpu::warp_sum(total);
    const float found = sqrtf(sqrtf(sqrtf(total)));
    sharper = found < 1.f ? found : 1.f;
  }
  const float needed = bound * sharper / limit;
  if (!(needed <= most_substeps)) return gpu::not_a_number();
  return needed > 1.f ? ceilf(needed) : 1.f;
}

}  // namespace
}  // namespace vfrnn
