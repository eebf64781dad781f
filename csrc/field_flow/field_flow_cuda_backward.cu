// The backward CUDA kernel of field_flow: equations (6) to (9) of vfrnn_kernels/field_flow/README.md.
//
// A block takes one sample after the other: the flow, of which it keeps some states, then the adjoint, substep by
// substep from the last. The vectors z = B^-1/2 y_{j+1} and B^-1/2 r_j of one substep and the dots of the cells with
// them are kept; their products are added to X and Y, here the gradients over w_c / 2 of the unscaled C_c and N_c. Then
// all blocks wait for each other and sum over the samples, each sum by one block in a fixed order.
#include "field_flow/field_flow_device.h"

namespace vfrnn {
namespace {

enum Vector { r_, e_, div_, h_, u_, y0_, g_, to_e_, to_u_, to_b_, to_tau_, adjoint_, row_, vectors };
static_assert(vectors == field_flow_backward_vectors);

// What a block needs for its samples: vectors of nodes, the tape and the coefficients of one substep (rows 2 j of
// y_{j+1}, rows 2 j + 1 of r_j), X and Y.
template <class S>
struct Adjoint {
  const FieldFlowProblem& p;
  const FieldFlowBackward& g;
  Mesh<S>& mesh;
  float *vector, *tape, *on_C, *on_N, *X, *Y;

  VFRNN_DEVICE float* at(Vector which) const { return vector + which * p.n; }
  VFRNN_DEVICE float* row(int j) const { return tape + int64_t(j) * p.n; }

  // The terms of one substep from h: y_0, the tape's rows of y, and the coefficients of the rows of r.
  VFRNN_DEVICE void terms(float tau) {
    const float *r = at(r_), *e = at(e_), *h = at(h_);
    float *u = at(u_), *y0 = at(y0_);
    for_nodes(p.n, [&](int j) {
      u[j] = e[j] * h[j];
      row(2 * p.order - 2)[j] = r[j] * u[j];
    });
    for (int k = p.order - 1; k >= 0; --k) {
      gpu::sync_threads();
      const float c = tau / float(k + 1);
      keep_dots(2 * k, 2 * k + 1, -c);
      for_nodes(p.n, [&](int j) {
        const float y = u[j] + c * r[j] * mesh.total(j);
        if (k > 0) {
          row(2 * k - 2)[j] = r[j] * y;
        } else {
          y0[j] = y;
        }
      });
    }
  }
  // The adjoint of the same substep: g becomes the gradient of h.
  VFRNN_DEVICE void series(float tau) {
    const float *r = at(r_), *e = at(e_), *h = at(h_), *u = at(u_), *y0 = at(y0_);
    float *grad = at(g_), *to_e = at(to_e_), *to_u = at(to_u_), *to_b = at(to_b_), *to_tau = at(to_tau_);
    float* adjoint = at(adjoint_);
    for_nodes(p.n, [&](int j) {
      to_e[j] += grad[j] * y0[j];
      adjoint[j] = to_u[j] = e[j] * grad[j];
      row(1)[j] = r[j] * adjoint[j];
    });
    for (int k = 0; k < p.order; ++k) {
      gpu::sync_threads();
      const float c = tau / float(k + 1);
      keep_dots(2 * k + 1, 2 * k, c);
      for_nodes(p.n, [&](int j) {
        const float total = mesh.total(j), along = total * row(2 * k)[j];  // <S r, y_{j+1}>, of this node
        const float y = k > 0 ? row(2 * k - 2)[j] / r[j] : y0[j];
        to_tau[j] -= along / float(k + 1);
        to_b[j] += adjoint[j] * (y - u[j]) - c * along;
        adjoint[j] = -c * r[j] * total;
        to_u[j] += adjoint[j];
        if (k + 1 < p.order) row(2 * k + 3)[j] = r[j] * adjoint[j];
      });
    }
    for_nodes(p.n, [&](int j) {
      to_e[j] += to_u[j] * h[j];
      grad[j] = e[j] * to_u[j];
    });
  }
  // S times the tape's row `from`; its dots become the coefficients of the row `of`.
  VFRNN_DEVICE void keep_dots(int from, int of, float sigma) {
    float *coef_C = on_C + int64_t(of) * p.m, *coef_N = on_N + int64_t(of) * p.m;
    mesh.generator(row(from), [&](int cell, float a, float along) {
      coef_C[cell] = sigma * a;
      coef_N[cell] = -sigma * along;
    });
  }

  // The first substep is done: what delta gets, e = exp(-tau delta / 4) with delta = scale (div - mean).
  VFRNN_DEVICE void finish(const TimeStep& step, float mean, int64_t sample) {
    const float *r = at(r_), *e = at(e_), *div = at(div_), *grad = at(g_), *to_e = at(to_e_), *to_b = at(to_b_);
    float *to_delta = at(row_), *to_tau = at(to_tau_), *to_scale = at(adjoint_);
    const float scale = *p.scale;
    for_nodes(p.n, [&](int j) { to_delta[j] = -0.25f * step.tau * to_e[j] * e[j]; });
    float taken_off = 0.f;
    if (p.volume_preserving) {
      gpu::sync_threads();
      taken_off = sum_of(to_delta, p.n) / float(p.n);
      gpu::sync_threads();
    }
    for_nodes(p.n, [&](int j) {
      const float on_delta = to_delta[j] - taken_off;
      const int64_t place = sample * p.n + j;
      if (g.grad_h) g.grad_h[place] = grad[j];
      g.rows_b[place] = -(0.5f * to_b[j] + scale * on_delta * div[j]) / p.b[j];
      to_tau[j] -= 0.25f * to_e[j] * e[j] * scale * (div[j] - mean);
      to_scale[j] = on_delta * div[j];
      to_delta[j] = -2.f * scale * r[j] * r[j] * on_delta;
    });
    gpu::sync_threads();
    if (mesh.warp == 0) {
      const float on_tau = sum_of(to_tau, p.n), on_scale = sum_of(to_scale, p.n);
      if (mesh.lane == 0) g.parts[2 * sample] = on_tau / float(step.count), g.parts[2 * sample + 1] = on_scale;
    }
  }

  // out (m, n) += coefficients^T tape (+ 1 more^T); the first time out is set. A thread adds to its own entries.
  VFRNN_DEVICE void add_products(const float* coefficients, const float* more, bool is_first, float* out) const {
    constexpr int rows = S::rows, columns = S::columns;
    for (int first = 0; first < p.m; first += mesh.warps * rows) {
      float sums[rows][columns];
#pragma unroll
      for (int i = 0; i < rows; ++i) {
        const int c = mesh.cell(first, i);
#pragma unroll
        for (int q = 0; q < columns; ++q) {
          const bool inside = c < p.m && mesh.node(q) < p.n;
          sums[i][q] = inside && !is_first ? out[mesh.place(c, q)] : 0.f;
          if (inside && more) sums[i][q] += more[mesh.node(q)];
        }
      }
#pragma unroll 1
      for (int t = 0; t < 2 * p.order; ++t) {
        float factors[rows], x[columns];
#pragma unroll
        for (int i = 0; i < rows; ++i) {
          factors[i] = mesh.cell(first, i) < p.m ? coefficients[int64_t(t) * p.m + mesh.cell(first, i)] : 0.f;
        }
#pragma unroll
        for (int q = 0; q < columns; ++q) x[q] = mesh.node(q) < p.n ? row(t)[mesh.node(q)] : 0.f;
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
  VFRNN_DEVICE void field_gradients(int64_t sample) const {
    constexpr int columns = S::columns, axes = 4;
    for (int c = mesh.warp; c < p.m; c += mesh.warps) {
      float x[columns], part_w = 0.f;
      mesh.load(X, c, x);
      const int64_t first_axis = (sample * p.m + c) * p.d;
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
      if (mesh.lane == 0 && g.parts_w) g.parts_w[sample * p.m + c] = part_w;
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
#pragma unroll 2
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
  const int64_t slot = blockIdx.x, size = int64_t(p.m) * p.n, terms = 2 * int64_t(p.order);
  Mesh<S> mesh(p, layout, of_slot(g.C, p.one_field ? 0 : size));
  float* shared = mesh.shared();
  const bool to_X = g.grad_v || g.grad_w || g.grad_G, one_X_each = !p.one_field && g.grad_G;
  float* coefficients =
      layout.coefficients < 0 ? of_slot(g.coefficients, 2 * terms * p.m) : shared + layout.coefficients;
  Adjoint<S> adjoint = {p,
                        g,
                        mesh,
                        shared + layout.vectors,
                        layout.tape < 0 ? of_slot(g.tape, terms * p.n) : shared + layout.tape,
                        coefficients,
                        coefficients + terms * p.m,
                        layout.X < 0 ? of_slot(g.X, size) : shared + layout.X,
                        layout.Y < 0 ? of_slot(g.Y, size) : shared + layout.Y};
  const auto at = [&](Vector which) { return adjoint.at(which); };
  const float *r = at(r_), *e = at(e_);
  float* h = at(h_);
  for_nodes(p.n, [&](int j) { at(r_)[j] = inverse_root(p.b[j]); });
  uint32_t round = 0;
  if (p.one_field) {
    contract_for_all(mesh, g.C);
    gpu::grid_sync(g.counter, ++round);
  }
  const TimeStep step = time_step(*g.taken, *p.dt);
  const int segment = (step.count + g.state_count - 1) / g.state_count;
  float* states = g.states + slot * g.state_count * p.n;
  float mean = 0.f;
  for (int64_t sample = slot; sample < p.B; sample += layout.slots) {
    if (!p.one_field || sample == slot) {
      mesh.start(p.one_field ? nullptr : p.v + sample * p.m * p.d, p.one_field ? g.C : nullptr);
      mean = divergence(mesh, r, step.tau, at(div_), at(e_));
    }
    if (one_X_each && layout.X < 0) adjoint.X = g.X + sample * size;
    const bool sets_X = !p.one_field || sample == slot;
    for_nodes(p.n, [&](int j) { h[j] = g.h[sample * p.n + j]; });
    for (int s = 0; s < step.count; ++s) {
      if (s % segment == 0) for_nodes(p.n, [&](int j) { states[int64_t(s / segment) * p.n + j] = h[j]; });
      if (s + 1 < step.count) substep(mesh, r, e, step.tau, h, at(u_), at(row_));
    }
    for_nodes(p.n, [&](int j) {
      at(g_)[j] = g.grad[sample * p.n + j];
      at(to_e_)[j] = at(to_b_)[j] = at(to_tau_)[j] = 0.f;
    });
    for (int s = step.count - 1; s >= 0; --s) {
      for_nodes(p.n, [&](int j) { h[j] = states[int64_t(s / segment) * p.n + j]; });
      for (int again = s % segment; again > 0; --again) substep(mesh, r, e, step.tau, h, at(u_), at(row_));
      adjoint.terms(step.tau);
      adjoint.series(step.tau);
      if (s == 0) adjoint.finish(step, mean, sample);
      const bool is_last = s == step.count - 1;
      if (to_X) adjoint.add_products(adjoint.on_C, s == 0 ? at(row_) : nullptr, is_last && sets_X, adjoint.X);
      if (g.grad_N) adjoint.add_products(adjoint.on_N, nullptr, is_last && sample == slot, adjoint.Y);
      gpu::sync_threads();
    }
    if (!p.one_field && (g.grad_v || g.grad_w)) adjoint.field_gradients(sample);
    if (one_X_each && layout.X >= 0) adjoint.copy(adjoint.X, g.X + sample * size);
  }
  if (slot < layout.slots) {
    if (p.one_field && to_X && layout.X >= 0) adjoint.copy(adjoint.X, g.X + slot * size);
    if (g.grad_N && layout.Y >= 0) adjoint.copy(adjoint.Y, g.Y + slot * size);
  }
  gpu::grid_sync(g.counter, ++round);

  const bool of_cells = to_X || g.grad_N;
  const int cells = of_cells ? p.m : 0, chunks = g.grad_b ? (p.n + 31) / 32 : 0;
  for (int task = int(blockIdx.x); task <= cells + chunks; task += int(gridDim.x)) {
    if (task < cells) {
      sum_cell(mesh, g, layout.slots, at(row_), task);
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
