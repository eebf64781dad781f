// The backward CUDA kernels of field_generator on a general mesh. Equations: vfrnn_kernels/field_generator/README.md.
//
// A block owns a tile of the two products with R, or the gradient of a few entries of b; a second launch takes the sums
// over fields and cells. Products and sums as in forward.cu.
#include "field_generator/device.h"

namespace vfrnn {
namespace {

template <int tile>
constexpr int64_t products_shared() {
  const int64_t bytes = int64_t(sizeof(float)) * (slab * (tile + 1) + 2 * tile * (slab + 1));
  return bytes > b_shared ? bytes : b_shared;
}

// A tile (cells, nodes) of A = N R + 1 q^T and of a field's share W [v] G R^T of grad_N: the two use the same R.
template <int tile>
VFRNN_DEVICE void products_block(const Problem& p, const Gradients& g, int64_t k, int first_cell, int first_j) {
  constexpr int micro = tile / 16, stride = tile + 1, cell_stride = slab + 1, per_thread = slab * tile / threads;
  const int t = int(threadIdx.x), c = t / 16 * micro, y = t % 16;
  const float *v = p.v + k * p.m * p.d, *to_S = g.grad_S + k * p.n * p.n;
  float* R = reinterpret_cast<float*>(gpu::shared_memory());
  float *N = R + slab * stride, *F = N + tile * cell_stride;
  float A[micro][micro] = {}, to_N[micro][micro] = {};
  for (int first_i = 0; first_i < p.n; first_i += slab) {
    // R_ij = (grad_S_ij - grad_S_ji) / 2 / sqrt(b_i b_j): both tiles are read along their rows
    float to_ij[per_thread];
#pragma unroll
    for (int q = 0; q < per_thread; ++q) {
      const int e = t + q * threads, i = first_i + e / tile, j = first_j + e % tile;
      to_ij[q] = i < p.n && j < p.n ? to_S[int64_t(i) * p.n + j] : 0.f;
      const int turned_i = first_i + e % slab, turned_j = first_j + e / slab;
      R[e % slab * stride + e / slab] =
          turned_i < p.n && turned_j < p.n ? to_S[int64_t(turned_j) * p.n + turned_i] : 0.f;
    }
    for (int e = t; e < tile * slab; e += threads) {
      const int cell = first_cell + e / slab, i = first_i + e % slab, place = e / slab * cell_stride + e % slab;
      if (g.A) N[place] = average(p, cell, i);
      if (g.parts_N) F[place] = flux(p, v, cell, i);
    }
    gpu::sync_threads();
#pragma unroll
    for (int q = 0; q < per_thread; ++q) {
      const int e = t + q * threads;
      float& value = R[e / tile * stride + e % tile];
      const float roots = inverse_root(p, first_i + e / tile) * inverse_root(p, first_j + e % tile);
      value = (to_ij[q] - value) * 0.5f * roots;
    }
    gpu::sync_threads();
    const auto multiply = [&](float (&sums)[micro][micro], const float* left) {
#pragma unroll 2
      for (int i = 0; i < slab; ++i) {
#pragma unroll
        for (int a = 0; a < micro; ++a) {
          const float factor = left[(c + a) * cell_stride + i];
#pragma unroll
          for (int b = 0; b < micro; ++b) sums[a][b] += factor * R[i * stride + y + 16 * b];
        }
      }
    };
    if (g.A) multiply(A, N);
    if (g.parts_N) multiply(to_N, F);
    gpu::sync_threads();
  }
#pragma unroll
  for (int b = 0; b < micro; ++b) {
    const int j = first_j + y + 16 * b;
    if (j >= p.n) continue;
    const float r = inverse_root(p, j), q = -g.grad_delta[k * p.n + j] * r * r;
#pragma unroll
    for (int a = 0; a < micro; ++a) {
      const int cell = first_cell + c + a;
      if (cell >= p.m) continue;
      const int64_t place = (k * p.m + cell) * p.n + j;
      if (g.A) g.A[place] = A[a][b] + q;
      if (g.parts_N) g.parts_N[place] = -to_N[a][b];  // R^T = -R
    }
  }
}

template <int tile>
__global__ void __launch_bounds__(threads) products_kernel(Problem p, Gradients g, int products, int b_blocks) {
  const int64_t k = blockIdx.x / uint32_t(products + b_blocks);
  const int index = int(blockIdx.x % uint32_t(products + b_blocks)), across = (p.n + tile - 1) / tile;
  if (index < products) {
    products_block<tile>(p, g, k, index / across * tile, index % across * tile);
  } else {
    b_block(p, g, k, (index - products) * b_rows);
  }
}

// Of a cell, what its blocks have to do in turn: v and w; each axis of G; N; the cells together: b. Sums over fields in
// their order.
VFRNN_DEVICE void cells_block(const Problem& p, const Gradients& g, int role, bool sums_N, bool sums_b) {
  const int64_t cell = blockIdx.x;
  const int t = int(threadIdx.x), lane = gpu::lane(), warp = gpu::warp();
  if (g.grad_w || g.grad_v) {
    if (role == 0) {
      if (cell >= p.m) return;
      const float w = weight(p, cell);
      float sum = 0.f;
      for (int64_t q = warp; q < p.K * p.d; q += warps) {
        const int64_t row = q / p.d * p.m + cell, axis = q % p.d;
        const float *A = g.A + row * p.n, *G = p.G + (cell * p.d + axis) * p.n;
        float along = 0.f;
        for (int j = lane; j < p.n; j += 32) along += A[j] * G[j];
        along = gpu::warp_sum(along);
        if (lane == 0 && g.grad_v) g.grad_v[row * p.d + axis] = w * along;
        sum += p.v[row * p.d + axis] * along;
      }
      float* parts = reinterpret_cast<float*>(gpu::shared_memory());
      if (lane == 0) parts[warp] = sum;
      gpu::sync_threads();
      if (t == 0 && g.grad_w) {
        float total = 0.f;
        for (int other = 0; other < warps; ++other) total += parts[other];
        g.grad_w[cell] = total;
      }
      return;
    }
    --role;
  }
  if (g.grad_G) {
    if (role < p.d) {
      if (cell >= p.m) return;
      const float w = weight(p, cell);
      for (int j = t; j < p.n; j += threads) {
        float sum = 0.f;
#pragma unroll 2
        for (int64_t k = 0; k < p.K; ++k) {
          const int64_t row = k * p.m + cell;
          sum += w * p.v[row * p.d + role] * g.A[row * p.n + j];
        }
        g.grad_G[(cell * p.d + role) * p.n + j] = sum;
      }
      return;
    }
    role -= p.d;
  }
  if (sums_N) {
    if (role == 0) {
      if (cell >= p.m) return;
      for (int j = t; j < p.n; j += threads) {
        float sum = 0.f;
#pragma unroll 2
        for (int64_t k = 0; k < p.K; ++k) sum += g.parts_N[(k * p.m + cell) * p.n + j];
        g.grad_N[cell * p.n + j] = sum;
      }
      return;
    }
    --role;
  }
  if (sums_b) sum_b(p, g, cell * threads + t, int64_t(gridDim.x) * threads);
}
__global__ void __launch_bounds__(threads) cells_kernel(Problem p, Gradients g, int roles, bool sums_N, bool sums_b) {
  for (int role = int(blockIdx.y); role < roles; role += int(gridDim.y)) {
    cells_block(p, g, role, sums_N, sums_b);
    gpu::sync_threads();  // its parts in shared memory are read
  }
}

template <int tile>
int products(const Problem& p, const Gradients& g, void* stream) {
  const bool multiplies = g.A || g.parts_N;
  const uint32_t tiles = multiplies ? blocks_of(p.m, tile) * blocks_of(p.n, tile) : 0;
  const uint32_t b_blocks = g.grad_b ? blocks_of(p.n, b_rows) : 0, blocks = uint32_t(p.K) * (tiles + b_blocks);
  if (blocks == 0) return 0;
  return gpu::launch(grid(blocks, 1, 1, products_shared<tile>(), stream), products_kernel<tile>, p, g, int(tiles),
                     int(b_blocks));
}

}  // namespace

int launch_field_generator_backward(const Problem& p, const Gradients& g, void* stream) {
  if (!p.N) return launch_complete_backward(p, g, stream);
  const int error = p.n <= small_n ? products<small_tile>(p, g, stream) : products<large_tile>(p, g, stream);
  const bool cells = g.grad_w || g.grad_v, sums_N = g.grad_N && g.parts_N != g.grad_N;
  const bool sums_b = g.grad_b && g.parts_b != g.grad_b;
  const uint32_t roles = uint32_t(cells) + (g.grad_G ? uint32_t(p.d) : 0) + uint32_t(sums_N) + uint32_t(sums_b);
  if (error != 0 || roles == 0) return error;
  const uint32_t most = 65535;  // blocks along y
  return gpu::launch(grid(p.m > 0 ? uint32_t(p.m) : 1, roles < most ? roles : most, 1, sizeof(float) * warps, stream),
                     cells_kernel, p, g, int(roles), sums_N, sums_b);
}

}  // namespace vfrnn
