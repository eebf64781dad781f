// The backward CUDA kernel of field_flow: equations (6) to (9) of vfrnn_kernels/field_flow/README.md.
//
// A block takes one sample after the other: the flow, of which it keeps some states, then the adjoint, substep by
// substep from the last. The vectors z = B^-1/2 y_{j+1} and B^-1/2 r_j of one substep and the dots of the cells with
// them are kept; their products are added to X and Y, here the gradients over w_c / 2 of the unscaled C_c and N_c. Then
// all blocks wait for each other and sum over the samples, each sum by one block in a fixed order.
#include "field_flow/device.h"

namespace vfrnn {
namespace {

// Beside the flow: y_0; the gradients of h, e, u, b and tau; r_j; and, at the end, the row that all of X gets.
struct AdjointNode : Node {
  float y0, grad, to_e, to_u, to_b, to_tau, adjoint, more;
};
static_assert(sizeof(AdjointNode) == field_flow_backward_values * sizeof(float));

// What all threads of a block have in common, in shared memory too.
struct Times {
  float tau, mean;     // taken off div v
  int X_index;         // of this block's X in global memory
  int count, segment;  // substeps, and how many of them from one kept state to the next
};
static_assert(sizeof(Times) <= field_flow_backward_common * sizeof(float));

// What a block does for a sample. Of one substep it keeps, on the tape, rows 2 j of z = B^-1/2 y_{j+1} and 2 j + 1 of
// B^-1/2 r_j, and the same rows of the coefficients with which they enter X and Y. Where those pieces are is computed
// whenever one is used: the registers hold the mesh.
template <class S>
struct Adjoint {
  const FieldFlowProblem& p;
  const FieldFlowBackward& g;
  const FieldFlowLayout& layout;
  Mesh<S>& mesh;
  AdjointNode* nodes;
  Times* times;

  static VFRNN_DEVICE float* piece(int place, float* global, int64_t index, int64_t size) {
    place = gpu::opaque(place);
    return place < 0 ? global + index * size : Mesh<S>::shared() + place;
  }
  VFRNN_DEVICE int64_t size() const { return int64_t(p.m) * p.n; }
  VFRNN_DEVICE float* row(int j) const {
    return piece(layout.tape, g.tape, blockIdx.x, 2 * int64_t(p.order) * p.n) + int64_t(j) * p.n;
  }
  VFRNN_DEVICE float* coefficients(bool of_Y) const {
    const int64_t count = 2 * int64_t(p.order) * p.m;
    return piece(layout.coefficients, g.coefficients, blockIdx.x, 2 * count) + (of_Y ? count : 0);
  }
  VFRNN_DEVICE float* X() const { return piece(layout.X, g.X, times->X_index, size()); }
  VFRNN_DEVICE float* Y() const { return piece(layout.Y, g.Y, blockIdx.x, size()); }

  // The terms of one substep from h: y_0, the tape's rows of y, and the coefficients of the rows of r.
  VFRNN_DEVICE void terms() {
    const float tau = times->tau;
    for_nodes(p.n, [&](int j) {
      nodes[j].u = nodes[j].e * nodes[j].h;
      row(2 * p.order - 2)[j] = nodes[j].r * nodes[j].u;
    });
    for (int k = p.order - 1; k >= 0; --k) {
      gpu::sync_threads();
      const float c = tau / float(k + 1);
      keep_dots(2 * k, 2 * k + 1, -c);
      for_nodes(p.n, [&](int j) {
        const float y = nodes[j].u + c * nodes[j].r * mesh.total(j);
        if (k > 0) {
          row(2 * k - 2)[j] = nodes[j].r * y;
        } else {
          nodes[j].y0 = y;
        }
      });
    }
  }
  // The adjoint of the same substep: g becomes the gradient of h.
  VFRNN_DEVICE void series() {
    const float tau = times->tau;
    for_nodes(p.n, [&](int j) {
      AdjointNode& node = nodes[j];
      node.to_e += node.grad * node.y0;
      node.adjoint = node.to_u = node.e * node.grad;
      row(1)[j] = node.r * node.adjoint;
    });
    for (int k = 0; k < p.order; ++k) {
      gpu::sync_threads();
      const float c = tau / float(k + 1);
      keep_dots(2 * k + 1, 2 * k, c);
      for_nodes(p.n, [&](int j) {
        AdjointNode& node = nodes[j];
        const float total = mesh.total(j), along = total * row(2 * k)[j];  // <S r_k, y_{k+1}>, of this node
        const float y = k > 0 ? row(2 * k - 2)[j] / node.r : node.y0;
        node.to_tau -= along / float(k + 1);
        node.to_b += node.adjoint * (y - node.u) - c * along;
        node.adjoint = -c * node.r * total;
        node.to_u += node.adjoint;
        if (k + 1 < p.order) row(2 * k + 3)[j] = node.r * node.adjoint;
      });
    }
    for_nodes(p.n, [&](int j) {
      nodes[j].to_e += nodes[j].to_u * nodes[j].h;
      nodes[j].grad = nodes[j].e * nodes[j].to_u;
    });
  }
  // S times the tape's row `from`; its dots become the coefficients of the row `of`.
  VFRNN_DEVICE void keep_dots(int from, int of, float sigma) {
    // of C: sigma N_c.z, and of N: -sigma C_c.z
    mesh.generator(row(from), [&](int cell, int which, float dot) {
      coefficients(which == 1)[int64_t(of) * p.m + cell] = which == 0 ? sigma * dot : -sigma * dot;
    });
  }

  // The first substep is done: what delta gets, e = exp(-tau delta / 4) with delta = scale (div - mean).
  VFRNN_DEVICE void finish(int sample) {
    const float tau = times->tau, mean = times->mean;
    const float scale = *p.scale;
    for_nodes(p.n, [&](int j) { nodes[j].more = -0.25f * tau * nodes[j].to_e * nodes[j].e; });
    float taken_off = 0.f;
    if (p.volume_preserving) {
      gpu::sync_threads();
      taken_off = sum_of(p.n, [&](int j) { return nodes[j].more; }) / float(p.n);
      gpu::sync_threads();
    }
    for_nodes(p.n, [&](int j) {
      AdjointNode& node = nodes[j];
      const float on_delta = node.more - taken_off;
      const int64_t place = int64_t(sample) * p.n + j;
      if (g.grad_h) g.grad_h[place] = node.grad;
      g.rows_b[place] = -(0.5f * node.to_b + scale * on_delta * node.div) / p.b[j];
      node.to_tau -= 0.25f * node.to_e * node.e * scale * (node.div - mean);
      node.adjoint = on_delta * node.div;  // of the scale, from here on
      node.more = -2.f * scale * node.r * node.r * on_delta;
    });
    gpu::sync_threads();
    if (mesh.warp == 0) {
      const float on_tau = sum_of(p.n, [&](int j) { return nodes[j].to_tau; });
      const float on_scale = sum_of(p.n, [&](int j) { return nodes[j].adjoint; });
      if (mesh.lane == 0) g.parts[2 * sample] = on_tau / float(times->count), g.parts[2 * sample + 1] = on_scale;
    }
  }

  // X or Y += coefficients^T tape (+ 1 more^T if `ends`); the first time it is set. A thread adds to its own entries.
  VFRNN_DEVICE void add_products(bool to_Y, bool ends, bool is_first) const {
    constexpr int rows = S::rows, columns = S::columns;
    float* out = to_Y ? Y() : X();
    for (int first = 0; first < p.m; first += mesh.warps * rows) {
      float sums[rows][columns];
#pragma unroll
      for (int i = 0; i < rows; ++i) {
        const int c = mesh.cell(first, i);
#pragma unroll
        for (int q = 0; q < columns; ++q) {
          const bool inside = c < p.m && mesh.node(q) < p.n;
          sums[i][q] = inside && !is_first ? out[mesh.place(c, q)] : 0.f;
          if (inside && ends) sums[i][q] += nodes[mesh.node(q)].more;
        }
      }
      const float *z = row(0) + mesh.lane, *factor = coefficients(to_Y) + mesh.cell(first, 0);
#pragma unroll 2
      for (int t = 0; t < 2 * p.order; ++t, z += p.n, factor += p.m) {
        float factors[rows], x[columns];
#pragma unroll
        for (int i = 0; i < rows; ++i) factors[i] = mesh.cell(first, i) < p.m ? factor[mesh.warps * i] : 0.f;
#pragma unroll
        for (int q = 0; q < columns; ++q) x[q] = mesh.node(q) < p.n ? z[32 * q] : 0.f;
#pragma unroll
        for (int i = 0; i < rows; ++i) {
#pragma unroll
          for (int q = 0; q < columns; ++q) sums[i][q] += factors[i] * x[q];
        }
      }
#pragma unroll
      for (int i = 0; i < rows; ++i) {
        const int c = mesh.cell(first, i);
#pragma unroll
        for (int q = 0; q < columns; ++q) {
          if (c < p.m && mesh.node(q) < p.n) out[mesh.place(c, q)] = sums[i][q];
        }
      }
    }
  }

  // grad_v_ck = (w_c / 2) <X_c, G_ck> of a sample with its own field, and its part <X_c, C_c> / 2 of grad_w_c
  VFRNN_DEVICE void field_gradients(int sample) const {
    constexpr int columns = S::columns, axes = 4;
    for (int c = mesh.warp; c < p.m; c += mesh.warps) {
      float x[columns], part_w = 0.f;
      mesh.load(X(), c, x);
      const int64_t first_axis = (int64_t(sample) * p.m + c) * p.d;
      const float half_w = 0.5f * weight(p, c);
      for (int k = 0; k < p.d; k += axes) {
        float along[axes] = {};
#pragma unroll
        for (int a = 0; a < axes; ++a) {
          if (k + a >= p.d) continue;
          const float* G = p.G + (int64_t(c) * p.d + k + a) * p.n;
#pragma unroll
          for (int q = 0; q < columns; ++q) along[a] += mesh.node(q) < p.n ? x[q] * G[mesh.node(q)] : 0.f;
        }
        const float total = scattered_sum<axes>(along);  // of axis lane / 8
        const int axis = k + mesh.lane / 8;
        if (mesh.lane % 8 == 0 && axis < p.d) {
          if (g.grad_v) g.grad_v[first_axis + axis] = half_w * total;
          part_w += 0.5f * p.v[first_axis + axis] * total;
        }
      }
      part_w = gpu::warp_sum(part_w);
      if (mesh.lane == 0 && g.parts_w) g.parts_w[int64_t(sample) * p.m + c] = part_w;
    }
  }
  // X or Y of this block, from shared to global memory: every thread its own entries
  VFRNN_DEVICE void copy(const float* from, float* to) const {
    for (int c = mesh.warp; c < p.m; c += mesh.warps) {
      for (int j = mesh.lane; j < p.n; j += 32) to[int64_t(c) * p.n + j] = from[int64_t(c) * p.n + j];
    }
  }
};

// ---- sums over the samples ----

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

template <class S>
__global__ void __launch_bounds__(S::most_threads, 1)
    backward_kernel(FieldFlowProblem p, FieldFlowBackward g, FieldFlowLayout layout) {
  float* C = of_slot(g.C, p.one_field ? 0 : int64_t(p.m) * p.n);
  Mesh<S> mesh(p, layout, C);
  const int slot = gpu::opaque(int(blockIdx.x));
  const bool to_X = g.grad_v || g.grad_w || g.grad_G, one_X_each = !p.one_field && g.grad_G;
  AdjointNode* nodes = reinterpret_cast<AdjointNode*>(mesh.shared() + layout.nodes);
  float* z = mesh.shared() + layout.z;
  Times* times = reinterpret_cast<Times*>(z + p.n);
  Adjoint<S> adjoint = {p, g, layout, mesh, nodes, times};
  for_nodes(p.n, [&](int j) { nodes[j].r = gpu::inverse_root(p.b[j]); });
  if (threadIdx.x == 0) {
    const TimeStep step = time_step(*g.taken, *p.dt);
    *times = {step.tau, 0.f, slot, step.count, (step.count + g.state_count - 1) / g.state_count};
  }
  gpu::sync_threads();
  uint32_t round = 0;
  if (p.one_field) {
    contract_for_all(mesh, g.C);
    gpu::grid_sync(g.counter, ++round);
  }
  const auto state = [&](int s) { return g.states + (int64_t(slot) * g.state_count + s / times->segment) * p.n; };
  for (int sample = slot; sample < p.B; sample += layout.slots) {
    if (S::resident || !p.one_field || sample == slot) {
      mesh.start(p.one_field ? nullptr : p.v + int64_t(sample) * p.m * p.d, p.one_field ? g.C : nullptr);
    }
    if (!p.one_field || sample == slot) {
      const float mean = divergence(mesh, nodes, times->tau);
      if (threadIdx.x == 0) times->mean = mean;
    }
    if (S::resident && !p.one_field && times->count > 1) mesh.keep(C);
    if (one_X_each && threadIdx.x == 0) times->X_index = sample;
    const bool sets_X = !p.one_field || sample == slot;
    for_nodes(p.n, [&](int j) { nodes[j].h = g.h[int64_t(sample) * p.n + j]; });
    for (int s = 0; s < times->count; ++s) {
      if (s % times->segment == 0) for_nodes(p.n, [&](int j) { state(s)[j] = nodes[j].h; });
      if (s + 1 < times->count) substep(mesh, nodes, times->tau, z);
    }
    for_nodes(p.n, [&](int j) {
      nodes[j].grad = g.grad[int64_t(sample) * p.n + j];
      nodes[j].to_e = nodes[j].to_b = nodes[j].to_tau = 0.f;
    });
    for (int s = times->count - 1;; --s) {
      for_nodes(p.n, [&](int j) { nodes[j].h = state(s)[j]; });
      for (int again = s % times->segment; again > 0; --again) substep(mesh, nodes, times->tau, z);
      adjoint.terms();
      adjoint.series();
      if (s == 0) adjoint.finish(sample);
      const bool is_last = s == times->count - 1;
      if (to_X) adjoint.add_products(false, s == 0, is_last && sets_X);
      if (g.grad_N) adjoint.add_products(true, false, is_last && sample == slot);
      gpu::sync_threads();
      if (s == 0) break;
      if (S::resident) mesh.start(nullptr, C);  // which leaves the registers to the products
    }
    if (!p.one_field && (g.grad_v || g.grad_w)) adjoint.field_gradients(sample);
    if (one_X_each && layout.X >= 0) adjoint.copy(adjoint.X(), g.X + sample * adjoint.size());
    gpu::sync_threads();
  }
  if (slot < layout.slots) {
    if (p.one_field && to_X && layout.X >= 0) adjoint.copy(adjoint.X(), g.X + slot * adjoint.size());
    if (g.grad_N && layout.Y >= 0) adjoint.copy(adjoint.Y(), g.Y + slot * adjoint.size());
  }
  gpu::grid_sync(g.counter, ++round);

  const bool of_cells = to_X || g.grad_N;
  const int cells = of_cells ? p.m : 0, chunks = g.grad_b ? (p.n + 31) / 32 : 0;
  for (int task = int(blockIdx.x); task <= cells + chunks; task += int(gridDim.x)) {
    if (task < cells) {
      sum_cell(mesh, g, layout.slots, z, task);
    } else if (task < cells + chunks) {
      sum_b(mesh, g, 32 * (task - cells));
    } else if (mesh.warp == 0) {
      float on_dt = 0.f, on_scale = 0.f;
      for (int64_t i = mesh.lane; i < p.B; i += 32) on_dt += g.parts[2 * i], on_scale += g.parts[2 * i + 1];
      on_dt = gpu::warp_sum(on_dt), on_scale = gpu::warp_sum(on_scale);
      if (mesh.lane == 0 && g.grad_dt) *g.grad_dt = on_dt;
      if (mesh.lane == 0 && g.grad_scale) *g.grad_scale = on_scale;
    }
  }
}

}  // namespace

int launch_field_flow_backward(const FieldFlowProblem& problem, const FieldFlowBackward& backward,
                               const FieldFlowLayout& layout, void* stream) {
  const gpu::Launch l = {uint32_t(layout.blocks), 1, 1,    uint32_t(32 * layout.warps),
                         layout.shared,           1, true, static_cast<cudaStream_t>(stream)};
  return with_shape(
      layout, [&](auto shape) { return gpu::launch(l, backward_kernel<decltype(shape)>, problem, backward, layout); });
}

}  // namespace vfrnn
