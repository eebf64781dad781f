// The adjoint of the flow of one sample, for the backward CUDA kernel: equations (6) to (9) of
// vfrnn_kernels/field_flow/README.md. Included by backward.cu only.
#pragma once

#include "field_flow/device.h"

namespace vfrnn {
namespace {

// Beside the flow: y_0; the gradients of h, e, u, b and tau; r_j; and `more`, c_j S y_{j+1} of the term at hand and, at
// the end, the row that all of X gets.
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

  // The terms of one substep from h: y_0, the tape's rows of y, and the coefficients of the rows of r. Those rows have
  // c_j S y_{j+1} until `series`, since y_j - u would have only the digits that are left of it beside u.
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
        const float image = c * nodes[j].r * mesh.total(j), y = nodes[j].u + image;
        row(2 * k + 1)[j] = image;
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
      next(j, 0);
    });
    for (int k = 0; k < p.order; ++k) {
      gpu::sync_threads();
      const float c = tau / float(k + 1);
      keep_dots(2 * k + 1, 2 * k, c);
      for_nodes(p.n, [&](int j) {
        AdjointNode& node = nodes[j];
        const float total = mesh.total(j), along = total * row(2 * k)[j];  // <S r_k, y_{k+1}>, of this node
        node.to_tau -= along / float(k + 1);
        node.to_b += node.adjoint * node.more - c * along;
        node.adjoint = -c * node.r * total;
        node.to_u += node.adjoint;
        if (k + 1 < p.order) next(j, k + 1);
      });
    }
    for_nodes(p.n, [&](int j) {
      nodes[j].to_e += nodes[j].to_u * nodes[j].h;
      nodes[j].grad = nodes[j].e * nodes[j].to_u;
    });
  }
  // r_k of node j, in `adjoint`, takes the place of c_k S y_{k+1} on the tape; only this thread has read that.
  VFRNN_DEVICE void next(int j, int k) const {
    float* place = row(2 * k + 1) + j;
    nodes[j].more = *place;
    *place = nodes[j].r * nodes[j].adjoint;
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

}  // namespace
}  // namespace vfrnn
