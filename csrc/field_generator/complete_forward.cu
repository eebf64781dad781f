// The forward CUDA kernel of field_generator on the complete mesh: S is a scatter of v, delta a row sum.
#include "field_generator/device.h"

namespace vfrnn {
namespace {

constexpr int rows = 8, columns = 64;  // of a tile of S

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

}  // namespace

int launch_complete(const Problem& p, float* S, float* delta, void* stream) {
  const int64_t shared = int64_t(sizeof(float)) * rows * (columns + 1);
  return gpu::launch(grid(uint32_t(p.K), blocks_of(p.n, rows), 1, shared, stream), complete_forward_kernel, p, S,
                     delta);
}

}  // namespace vfrnn
