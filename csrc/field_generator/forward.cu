// The forward CUDA kernel of field_generator on a general mesh. Equations: vfrnn_kernels/field_generator/README.md.
//
// A block owns a pair of tiles (I, J), (J, I) of S and contracts v with G where it loads it, so that [v] G is never
// stored. Products are sums in float32: the slabs come from L2, and loading and contracting them takes longer than
// multiplying. Every sum is taken by one block in a fixed order; nothing is added atomically.
#include "field_generator/device.h"

namespace vfrnn {
namespace {

template <int count>
VFRNN_DEVICE void load(float (&x)[count], const float* from) {
  if constexpr (count == 2) {
    const float2 pair = *reinterpret_cast<const float2*>(from);
    x[0] = pair.x, x[1] = pair.y;
  } else {
    x[0] = *from;
  }
}

template <int tile>
constexpr int64_t forward_shared() {
  return int64_t(sizeof(float)) * 4 * slab * tile;
}

// N_I^T F_J - F_I^T N_J with F = W [v] G, slab by slab of cells; blocks I = J also sum F over the cells for delta.
template <int tile>
__global__ void __launch_bounds__(threads) general_forward_kernel(Problem p, float* S, float* delta) {
  constexpr int micro = tile / 16;
  if (blockIdx.y > blockIdx.z) return;
  const int64_t k = blockIdx.x;
  const int first_i = int(blockIdx.y) * tile, first_j = int(blockIdx.z) * tile, t = int(threadIdx.x);
  const bool diagonal = first_i == first_j;
  const float* v = p.v + k * p.m * p.d;
  float* N_i = reinterpret_cast<float*>(gpu::shared_memory());
  float* F_i = N_i + slab * tile;
  float *N_j = diagonal ? N_i : F_i + slab * tile, *F_j = diagonal ? F_i : F_i + 2 * slab * tile;
  const int row = t / 16 * micro, column = t % 16 * micro;
  float H[micro][micro] = {}, sum = 0.f;
  for (int first = 0; first < p.m; first += slab) {
    for (int e = t; e < slab * tile; e += threads) {
      const int cell = first + e / tile, i = first_i + e % tile, j = first_j + e % tile;
      N_i[e] = average(p, cell, i), F_i[e] = flux(p, v, cell, i);
      if (!diagonal) N_j[e] = average(p, cell, j), F_j[e] = flux(p, v, cell, j);
    }
    gpu::sync_threads();
#pragma unroll 2
    for (int c = 0; c < slab; ++c) {
      float ni[micro], fi[micro], nj[micro], fj[micro];
      load(ni, N_i + c * tile + row), load(fi, F_i + c * tile + row);
      load(nj, N_j + c * tile + column), load(fj, F_j + c * tile + column);
#pragma unroll
      for (int x = 0; x < micro; ++x) {
#pragma unroll
        for (int y = 0; y < micro; ++y) H[x][y] += ni[x] * fj[y] - fi[x] * nj[y];
      }
    }
    if (diagonal && t < tile) {
      for (int c = 0; c < slab; ++c) sum += F_i[c * tile + t];
    }
    gpu::sync_threads();
  }
  // Both triangles from the same numbers, through shared memory: rows of either are written whole.
  float* out = N_i;
  constexpr int stride = tile + 1;
#pragma unroll
  for (int x = 0; x < micro; ++x) {
#pragma unroll
    for (int y = 0; y < micro; ++y) {
      const float r = inverse_root(p, first_i + row + x) * inverse_root(p, first_j + column + y);
      out[(row + x) * stride + column + y] = H[x][y] * 0.5f * r;
    }
  }
  gpu::sync_threads();
  S += k * p.n * p.n;
  for (int e = t; e < tile * tile; e += threads) {
    const int x = e / tile, y = e % tile;
    const float here = out[x * stride + y], mirrored = -out[y * stride + x];
    if (first_i + x < p.n && first_j + y < p.n) {
      const float value = !diagonal || x < y ? here : x == y ? 0.f : mirrored;
      S[int64_t(first_i + x) * p.n + first_j + y] = value;
    }
    if (!diagonal && first_j + x < p.n && first_i + y < p.n) {
      S[int64_t(first_j + x) * p.n + first_i + y] = mirrored;
    }
  }
  if (diagonal && t < tile && first_i + t < p.n) {
    const float r = inverse_root(p, first_i + t);
    delta[k * p.n + first_i + t] = -sum * r * r;
  }
}

template <int tile>
int general_forward(const Problem& p, float* S, float* delta, void* stream) {
  const uint32_t tiles = blocks_of(p.n, tile);
  return gpu::launch(grid(uint32_t(p.K), tiles, tiles, forward_shared<tile>(), stream), general_forward_kernel<tile>, p,
                     S, delta);
}

}  // namespace

int launch_field_generator(const Problem& p, float* S, float* delta, void* stream) {
  if (!p.N) return launch_complete(p, S, delta, stream);
  return p.n <= small_n ? general_forward<small_tile>(p, S, delta, stream)
                        : general_forward<large_tile>(p, S, delta, stream);
}

}  // namespace vfrnn
