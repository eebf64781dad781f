// What the CUDA kernels of field_flow share: the mesh of a sample on the chip, and S y as a product of the whole block.
// Included by .cu files only.
//
// With z = B^-1/2 y and C_c = sum_k v_ck G_ck, both meshes unscaled,
//   S y = B^-1/2 sum_c (w_c / 2) ((C_c.z) N_c - (N_c.z) C_c),   div v = -B^-1 sum_c w_c C_c.
// A warp owns cells, its lanes nodes. It has the dots of its cells after one reduction among its lanes, and adds its
// share of the sum with the entries still in registers; the shares of the warps meet in shared memory.
#pragma once

#include "common/gpu.h"
#include "common/mesh_device.h"
#include "field_flow/cuda.h"

namespace vfrnn {
namespace {

VFRNN_DEVICE float weight(const FieldFlowProblem& p, int cell) {
  return gpu::positive(p.w[cell]);
}

// This block's piece of a scratch in global memory, null where there is none.
VFRNN_DEVICE float* of_slot(float* scratch, int64_t size) {
  return scratch ? scratch + int64_t(blockIdx.x) * size : nullptr;
}

// The sums over the lanes of x[0..count), count a power of two up to 32: each step halves the numbers that a lane
// carries. The result is the sum of x[lane >> (5 - log2(count))].
template <int count, int mask = 16>
VFRNN_DEVICE float scattered_sum(float* x) {
  if constexpr (mask == 0) {
    return x[0];
  } else if constexpr (count == 1) {
    x[0] += gpu::shuffle_xor(x[0], mask);
    return scattered_sum<1, mask / 2>(x);
  } else {
    const bool upper = (gpu::lane() & mask) != 0;
#pragma unroll
    for (int i = 0; i < count / 2; ++i) {
      const float kept = upper ? x[i + count / 2] : x[i], given = upper ? x[i] : x[i + count / 2];
      x[i] = kept + gpu::shuffle_xor(given, mask);
    }
    return scattered_sum<count / 2, mask / 2>(x);
  }
}
struct TimeStep {
  int count;
  float tau;
};
// A plan that found no number of substeps makes everything NaN.
VFRNN_DEVICE TimeStep time_step(float taken, float dt) {
  if (!(taken >= 1.f)) return {1, gpu::not_a_number()};
  return {int(taken), dt / taken};
}

template <int columns_, int rows_, bool resident_>
struct Shape {
  static constexpr int columns = columns_, rows = rows_, most_warps = columns_ == 32 ? 8 : 16;
  static constexpr int most_threads = 32 * most_warps, stride = 32 * columns_;
  static constexpr bool resident = resident_;
};

// The mesh of a sample, for the threads of a block.
template <class S>
struct Mesh {
  static constexpr int columns = S::columns, rows = S::rows, stride = S::stride;
  const FieldFlowProblem& p;
  int lane = gpu::lane(), warp = gpu::warp(), warps = int(blockDim.x) / 32;
  float* shares;                             // (warps, stride): of a sum over cells, one for each warp
  const float* all_N;                        // (m, n)
  float* all_C;                              // (m, n); not used if resident
  float N[rows][columns], C[rows][columns];  // of the cells first + warp + warps * (0, ..., rows - 1)
  // Of the sums over the lanes for these cells, N_c.z and C_c.z of each in turn, a lane has that of one; w_c / 2 of it.
  static constexpr int lanes = 16 / rows;  // that have the same
  float half_w = 0.f;

  VFRNN_DEVICE Mesh(const FieldFlowProblem& problem, const FieldFlowLayout& layout, float* global_C)
      : p(problem), shares(shared()), all_N(problem.N), all_C(layout.C < 0 ? global_C : shared() + layout.C) {
    if constexpr (!S::resident) {
      if (layout.N >= 0) {
        float* copy = shared() + layout.N;
        for (int e = int(threadIdx.x); e < p.m * p.n; e += int(blockDim.x)) copy[e] = p.N[e];
        all_N = copy;
        gpu::sync_threads();
      }
    }
  }
  static VFRNN_DEVICE float* shared() { return reinterpret_cast<float*>(gpu::shared_memory()); }

  VFRNN_DEVICE int cell(int first, int row) const { return first + warp + warps * row; }
  VFRNN_DEVICE int node(int column) const { return lane + 32 * column; }
  VFRNN_DEVICE int64_t place(int cell, int column) const { return int64_t(cell) * p.n + node(column); }
  VFRNN_DEVICE void load(const float* from, int cell, float (&x)[columns]) const {
#pragma unroll
    for (int q = 0; q < columns; ++q) x[q] = cell < p.m && node(q) < p.n ? from[place(cell, q)] : 0.f;
  }
  // C of a cell from the field v (m, d)
  VFRNN_DEVICE void contract(const float* v, int cell, float (&x)[columns]) const {
#pragma unroll
    for (int q = 0; q < columns; ++q) x[q] = 0.f;
    if (cell >= p.m) return;
    const float *along = v + int64_t(cell) * p.d, *G = p.G + int64_t(cell) * p.d * p.n;
#pragma unroll 2
    for (int k = 0; k < p.d; ++k, G += p.n) {
      const float factor = along[k];
#pragma unroll
      for (int q = 0; q < columns; ++q) x[q] += node(q) < p.n ? factor * G[node(q)] : 0.f;
    }
  }
  VFRNN_DEVICE void load_weights(int first) {
    const int c = cell(first, lane / (2 * lanes));
    half_w = c < p.m ? 0.5f * weight(p, c) : 0.f;
  }

  // C of a cell from the field v (m, d), or if it is null from the contracted field (m, n)
  VFRNN_DEVICE void find_C(const float* v, const float* contracted, int cell, float (&x)[columns]) const {
    if (v) {
      contract(v, cell, x);
    } else {
      load(contracted, cell, x);
    }
  }
  // That field becomes the one of the mesh.
  VFRNN_DEVICE void start(const float* v, const float* contracted) {
    if constexpr (S::resident) {
      const int first = gpu::opaque(0);  // the addresses are needed here alone
#pragma unroll
      for (int i = 0; i < rows; ++i) find_C(v, contracted, cell(first, i), C[i]);
#pragma unroll
      for (int i = 0; i < rows; ++i) load(all_N, cell(first, i), N[i]);
      load_weights(first);
    } else if (contracted != all_C) {
      for (int c = warp; c < p.m; c += warps) {
        float x[columns];
        find_C(v, contracted, c, x);
#pragma unroll
        for (int q = 0; q < columns; ++q) {
          if (node(q) < p.n) all_C[place(c, q)] = x[q];  // read again by this thread alone
        }
      }
    }
  }

  // C, to be given to `start` again; it is read by the threads that write it.
  VFRNN_DEVICE void keep(float* to) const {
    const int first = gpu::opaque(0);
#pragma unroll
    for (int i = 0; i < rows; ++i) {
#pragma unroll
      for (int q = 0; q < columns; ++q) {
        if (cell(first, i) < p.m && node(q) < p.n) to[place(cell(first, i), q)] = C[i][q];
      }
    }
  }

  // f(first) with the rows of one set of cells after the other in N, C and half_w
  template <class F>
  VFRNN_DEVICE void for_rows(const F& f) {
    if constexpr (S::resident) {
      f(gpu::opaque(0));
    } else {
      for (int first = 0; first < p.m; first += warps * rows) {
#pragma unroll
        for (int i = 0; i < rows; ++i) {
          load(all_N, cell(first, i), N[i]);
          load(all_C, cell(first, i), C[i]);
        }
        load_weights(first);
        f(first);
      }
    }
  }

  // This warp's share of a sum over cells, to be added up by `total` after the sync at its end.
  VFRNN_DEVICE void share(const float (&sum)[columns]) {
#pragma unroll
    for (int q = 0; q < columns; ++q) shares[warp * stride + node(q)] = sum[q];
    gpu::sync_threads();
  }
  VFRNN_DEVICE float total(int j) const {
    float sum = 0.f;
    for (int other = 0; other < warps; ++other) sum += shares[other * stride + j];
    return sum;
  }

  // total(j) is then b^1/2 (S y)_j for z = B^-1/2 y; for every cell keep(c, 0, N_c.z) and keep(c, 1, C_c.z) by one
  // lane.
  template <class Keep>
  VFRNN_DEVICE void generator(const float* from, const Keep& keep) {
    float z[columns], sum[columns] = {};
#pragma unroll
    for (int q = 0; q < columns; ++q) z[q] = node(q) < p.n ? from[node(q)] : 0.f;
    for_rows([&](int first) {
      float dots[2 * rows] = {};
#pragma unroll
      for (int i = 0; i < rows; ++i) {
#pragma unroll
        for (int q = 0; q < columns; ++q) {
          dots[2 * i] += N[i][q] * z[q];
          dots[2 * i + 1] += C[i][q] * z[q];
        }
      }
      const float mine = scattered_sum<2 * rows>(dots), weighted = half_w * mine;
      const int c = cell(first, lane / (2 * lanes));
      if (lane % lanes == 0 && c < p.m) keep(c, lane / lanes % 2, mine);
#pragma unroll
      for (int i = 0; i < rows; ++i) {
        const float on_C = gpu::shuffle(weighted, 2 * i * lanes), on_N = gpu::shuffle(weighted, (2 * i + 1) * lanes);
#pragma unroll
        for (int q = 0; q < columns; ++q) sum[q] += on_N * N[i][q] - on_C * C[i][q];
      }
    });
    share(sum);
  }
  // total(j) is then sum_c w_c C_cj / 2.
  VFRNN_DEVICE void divergence() {
    float sum[columns] = {};
    for_rows([&](int) {
#pragma unroll
      for (int i = 0; i < rows; ++i) {
        const float factor = gpu::shuffle(half_w, 2 * i * lanes);
#pragma unroll
        for (int q = 0; q < columns; ++q) sum[q] += factor * C[i][q];
      }
    });
    share(sum);
  }
};

// Values of a node, in shared memory; a thread reads and writes those of its own nodes. An odd number of them: no two
// lanes meet in a bank.
struct Node {
  float r, e;  // b^-1/2, exp(-tau delta / 4)
  float div, h, u;
};
static_assert(sizeof(Node) == field_flow_forward_values * sizeof(float));
// f(j) for the nodes that this thread owns
template <class F>
VFRNN_DEVICE void for_nodes(int n, const F& f) {
#pragma unroll 1
  for (int j = int(threadIdx.x); j < n; j += int(blockDim.x)) f(j);
}
// The sum of value(j) over the nodes, in every thread
template <class Value>
VFRNN_DEVICE float sum_of(int n, const Value& value) {
  float sum = 0.f;
#pragma unroll 1
  for (int j = gpu::lane(); j < n; j += 32) sum += value(j);
  return gpu::warp_sum(sum);
}

// The field that all samples share, contracted by all blocks: C (m, n). Then all have to wait for each other.
template <class S>
VFRNN_DEVICE void contract_for_all(const Mesh<S>& mesh, float* C) {
  const FieldFlowProblem& p = mesh.p;
  const int count = p.m * S::columns, step = int(gridDim.x) * mesh.warps;
  for (int task = int(blockIdx.x) + mesh.warp * int(gridDim.x); task < count; task += step) {
    const int c = task / S::columns, j = task % S::columns * 32 + mesh.lane;
    if (j >= p.n) continue;
    const float *along = p.v + int64_t(c) * p.d, *G = p.G + int64_t(c) * p.d * p.n + j;
    float sum = 0.f;
#pragma unroll 8
    for (int k = 0; k < p.d; ++k) sum += along[k] * G[int64_t(k) * p.n];
    C[int64_t(c) * p.n + j] = sum;
  }
}

// One substep of the flow: h <- e * p(tau S) (e * h). z (n,) is scratch in shared memory.
template <class S, class Nodes>
VFRNN_DEVICE void substep(Mesh<S>& mesh, Nodes* nodes, float tau, float* z) {
  const int n = mesh.p.n, order = mesh.p.order;
  for_nodes(n, [&](int j) {
    nodes[j].u = nodes[j].e * nodes[j].h;
    z[j] = nodes[j].r * nodes[j].u;
  });
  for (int term = 0; term < order; ++term) {
    gpu::sync_threads();
    mesh.generator(z, [](int, int, float) {});
    const float factor = tau / float(order - term);
    const bool last = term == order - 1;
    for_nodes(n, [&](int j) {
      const float y = nodes[j].u + factor * nodes[j].r * mesh.total(j);
      if (last) {
        nodes[j].h = nodes[j].e * y;
      } else {
        z[j] = nodes[j].r * y;
      }
    });
  }
  gpu::sync_threads();
}
// div v and e of the field that `start` has given to the mesh. The result is the mean that is taken off div v.
template <class S, class Nodes>
VFRNN_DEVICE float divergence(Mesh<S>& mesh, Nodes* nodes, float tau) {
  const int n = mesh.p.n;
  mesh.divergence();
  for_nodes(n, [&](int j) { nodes[j].div = -2.f * nodes[j].r * nodes[j].r * mesh.total(j); });
  float mean = 0.f;
  if (mesh.p.volume_preserving) {
    gpu::sync_threads();
    mean = sum_of(n, [&](int j) { return nodes[j].div; }) / float(n);
  }
  const float factor = -0.25f * tau * *mesh.p.scale;
  for_nodes(n, [&](int j) { nodes[j].e = expf(factor * (nodes[j].div - mean)); });
  gpu::sync_threads();
  return mean;
}

}  // namespace

// The kernel of a layout: f(shape), with f a generic lambda.
template <class F>
int with_shape(const FieldFlowLayout& layout, const F& f) {
  if (layout.columns == 2) return layout.resident ? f(Shape<2, 4, true>{}) : f(Shape<2, 4, false>{});
  if (layout.columns == 8) return layout.resident ? f(Shape<8, 4, true>{}) : f(Shape<8, 4, false>{});
  return f(Shape<32, 1, false>{});
}

}  // namespace vfrnn
