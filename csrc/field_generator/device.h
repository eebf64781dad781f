// What the CUDA kernels of field_generator share: values of the mesh, and the gradient of b. For .cu files only.
#pragma once

#include "common/gpu.h"
#include "common/mesh_device.h"
#include "field_generator/cuda.h"

namespace vfrnn {

// The complete mesh (complete_forward.cu, complete_backward.cu).
int launch_complete(const FieldGeneratorProblem& problem, float* S, float* delta, void* stream);
int launch_complete_backward(const FieldGeneratorProblem& problem, const FieldGeneratorGradients& gradients,
                             void* stream);

namespace {

using Problem = FieldGeneratorProblem;
using Gradients = FieldGeneratorGradients;

constexpr int threads = 256, warps = threads / 32;
constexpr int b_rows = 32;  // entries of grad_b that a block computes

// Tiles of the matrices of a general mesh: small ones where there are few of them to share among the multiprocessors.
constexpr int small_tile = 16, large_tile = 32, small_n = 320;
constexpr int slab = 32;  // cells, or nodes, that their products sum over at a time

// b^-1/2 of a node, 0 outside the mesh
VFRNN_DEVICE float inverse_root(const Problem& p, int node) {
  return node < p.n ? gpu::inverse_root(p.b[node]) : 0.f;
}
VFRNN_DEVICE float weight(const Problem& p, int64_t cell) {
  return gpu::positive(p.w[cell]);
}
// w_c (v.G)_cj of a field, 0 outside the mesh
VFRNN_DEVICE float flux(const Problem& p, const float* v, int cell, int node) {
  if (cell >= p.m || node >= p.n) return 0.f;
  const float *G = p.G + int64_t(cell) * p.d * p.n + node, *along = v + int64_t(cell) * p.d;
  float total = 0.f;
#pragma unroll 2
  for (int k = 0; k < p.d; ++k) total += along[k] * G[int64_t(k) * p.n];
  return weight(p, cell) * total;
}
VFRNN_DEVICE float average(const Problem& p, int cell, int node) {
  return cell < p.m && node < p.n ? p.N[int64_t(cell) * p.n + node] : 0.f;
}

// Number of the cell of the nodes i < j on the complete mesh
VFRNN_DEVICE int64_t cell_of(int64_t i, int64_t j, int64_t n) {
  return i * (2 * n - i - 1) / 2 + j - i - 1;
}

constexpr int64_t b_shared = sizeof(float) * (warps * 32 + b_rows);  // that b_block uses

// A field's share of grad_b: S and delta hold b only as the powers b_i^-1/2 b_j^-1/2 and b_i^-1.
VFRNN_DEVICE void b_block(const Problem& p, const Gradients& g, int64_t k, int first) {
  const int lane = gpu::lane(), warp = gpu::warp(), t = int(threadIdx.x);
  const float *to_S = g.grad_S + k * p.n * p.n, *S = g.S + k * p.n * p.n;
  float *columns = reinterpret_cast<float*>(gpu::shared_memory()), *rows = columns + warps * 32;
  for (int x = warp; x < b_rows; x += warps) {
    float sum = 0.f;
    if (first + x < p.n) {
      const int64_t row = int64_t(first + x) * p.n;
      for (int j = lane; j < p.n; j += 32) sum += to_S[row + j] * S[row + j];
    }
    sum = gpu::warp_sum(sum);
    if (lane == 0) rows[x] = sum;
  }
  float sum = 0.f;
  if (first + lane < p.n) {
    for (int j = warp; j < p.n; j += warps) {
      const int64_t place = int64_t(j) * p.n + first + lane;
      sum += to_S[place] * S[place];
    }
  }
  columns[t] = sum;
  gpu::sync_threads();
  if (t < b_rows && first + t < p.n) {
    float total = rows[t];
    for (int other = 0; other < warps; ++other) total += columns[other * 32 + t];
    const int64_t place = k * p.n + first + t;
    g.parts_b[place] = -(0.5f * total + g.grad_delta[place] * g.delta[place]) / p.b[first + t];
  }
}

// sum_k parts (K, n) of entries first, first + step, ...
VFRNN_DEVICE void sum_b(const Problem& p, const Gradients& g, int64_t first, int64_t step) {
  for (int64_t j = first; j < p.n; j += step) {
    float sum = 0.f;
#pragma unroll 4
    for (int64_t k = 0; k < p.K; ++k) sum += g.parts_b[k * p.n + j];
    g.grad_b[j] = sum;
  }
}

inline uint32_t blocks_of(int64_t count, int64_t size) {
  return uint32_t((count + size - 1) / size);
}
inline gpu::Launch grid(uint32_t x, uint32_t y, uint32_t z, int64_t shared, void* stream) {
  return {x, y, z, threads, shared, 1, false, static_cast<cudaStream_t>(stream)};
}

}  // namespace
}  // namespace vfrnn
