// Sums over the samples, for the backward CUDA kernel: each by one block in a fixed order. Included by backward.cu
// only.
#pragma once

#include "field_flow/device.h"

namespace vfrnn {
namespace {

// total(j) is then the sum over i of factor(i) * rows_i (m, n) at row c, i split among the warps.
template <class S, class Factor>
VFRNN_DEVICE void sum_of_rows(Mesh<S>& mesh, const float* rows, int64_t count, int c, const Factor& factor) {
  const int64_t size = int64_t(mesh.p.m) * mesh.p.n;
  float sum[S::columns] = {};
#pragma unroll 1
  for (int64_t i = mesh.warp; i < count; i += mesh.warps) {
    const float* from = rows + i * size;
    const float times = factor(i);
#pragma unroll
    for (int q = 0; q < S::columns; ++q) sum[q] += mesh.node(q) < mesh.p.n ? times * from[mesh.place(c, q)] : 0.f;
  }
  mesh.share(sum);
}

// Everything of a cell: X is that of the slots of the shared field, or of the samples.
template <class S>
VFRNN_DEVICE void sum_cell(Mesh<S>& mesh, const FieldFlowBackward& g, int slots, float* row, int c) {
  const FieldFlowProblem& p = mesh.p;
  const float half_w = 0.5f * weight(p, c);
  const auto one = [](int64_t) { return 1.f; };
  if (g.grad_N) {
    sum_of_rows(mesh, g.Y, slots, c, one);
    for_nodes(p.n, [&](int j) { g.grad_N[int64_t(c) * p.n + j] = half_w * mesh.total(j); });
    gpu::sync_threads();
  }
  if (!p.one_field) {
    if (g.grad_w && mesh.warp == 0) {
      float sum = 0.f;
      for (int64_t i = mesh.lane; i < p.B; i += 32) sum += g.parts_w[i * p.m + c];
      sum = gpu::warp_sum(sum);
      if (mesh.lane == 0) g.grad_w[c] = sum;
    }
    for (int k = 0; g.grad_G && k < p.d; ++k) {
      sum_of_rows(mesh, g.X, p.B, c, [&](int64_t i) { return p.v[(i * p.m + c) * p.d + k]; });
      for_nodes(p.n, [&](int j) { g.grad_G[(int64_t(c) * p.d + k) * p.n + j] = half_w * mesh.total(j); });
      gpu::sync_threads();
    }
    return;
  }
  if (!(g.grad_v || g.grad_w || g.grad_G)) return;
  sum_of_rows(mesh, g.X, slots, c, one);
  for_nodes(p.n, [&](int j) { row[j] = mesh.total(j); });
  gpu::sync_threads();
  float part_w = 0.f;
  for (int k = mesh.warp; k < p.d; k += mesh.warps) {
    const int64_t axis = int64_t(c) * p.d + k;
    const float factor = p.v[axis];
    float along = 0.f;
    for (int j = mesh.lane; j < p.n; j += 32) {
      along += row[j] * p.G[axis * p.n + j];
      if (g.grad_G) g.grad_G[axis * p.n + j] = half_w * factor * row[j];
    }
    along = gpu::warp_sum(along);
    if (mesh.lane == 0 && g.grad_v) g.grad_v[axis] = half_w * along;
    part_w += 0.5f * factor * along;
  }
  if (mesh.lane == 0) mesh.shares[mesh.warp * S::stride] = part_w;
  gpu::sync_threads();
  if (threadIdx.x == 0 && g.grad_w) g.grad_w[c] = mesh.total(0);
  gpu::sync_threads();
}

// 32 entries of grad_b
template <class S>
VFRNN_DEVICE void sum_b(Mesh<S>& mesh, const FieldFlowBackward& g, int first) {
  const int n = mesh.p.n, j = first + mesh.lane;
  float sum = 0.f;
#pragma unroll 4
  for (int64_t i = mesh.warp; i < mesh.p.B; i += mesh.warps) sum += j < n ? g.rows_b[i * n + j] : 0.f;
  mesh.shares[mesh.warp * S::stride + mesh.lane] = sum;
  gpu::sync_threads();
  if (mesh.warp == 0 && j < n) g.grad_b[j] = mesh.total(mesh.lane);
  gpu::sync_threads();
}

}  // namespace
}  // namespace vfrnn
