// The inputs of a layer of flow_recurrence.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/isa.h"
#include "common/matmul.h"
#include "common/mesh_kernels.h"
#include "common/tensors.h"
#include "flow_recurrence/kernels.h"

namespace vfrnn {

// Where the gradients go; null: not asked for.
template <class T>
struct LayerGradients {
  T *x, *U, *c, *v, *V, *b, *w, *N, *G, *h0, *beta, *dt, *scale;
};

// The inputs of a layer and what it makes of them.
template <class T>
struct Layer {
  const MeshKernels<T>& rows = IsaTable<MeshKernels<T>>::active();
  const FlowRecurrenceKernels<T>& kernel = IsaTable<FlowRecurrenceKernels<T>>::active();
  Activation activation;
  int64_t steps, B, i, n, cells;  // cells: m d, the length of a field
  Tensor x_, U_, v_, V_, h0_;
  std::optional<Tensor> c_, beta_;
  const T *x, *U, *v, *V, *h0, *c, *beta;
  std::vector<T> U_by_input, V_by_input;  // transposed

  Layer(const Tensor& x_in, const Tensor& U_in, const std::optional<Tensor>& c_in, const Tensor& v_in,
        const Tensor& V_in, const Tensor& h0_in, const std::optional<Tensor>& beta_in, Activation activation_in)
      : activation(activation_in),
        steps(x_in.size(0)),
        B(x_in.size(1)),
        i(x_in.size(2)),
        n(U_in.size(0)),
        cells(v_in.numel()),
        x_(packed(x_in)),
        U_(packed(U_in)),
        v_(packed(v_in)),
        V_(packed(V_in)),
        h0_(packed(h0_in)) {
    const auto data = [](const Tensor& t) { return t.template const_data_ptr<T>(); };
    x = data(x_), U = data(U_), v = data(v_), V = data(V_), h0 = data(h0_);
    if (c_in.has_value()) c_ = packed(*c_in);
    if (beta_in.has_value()) beta_ = packed(*beta_in);
    c = c_.has_value() ? data(*c_) : nullptr;
    beta = beta_.has_value() ? data(*beta_) : nullptr;
    U_by_input = transposed(U, n), V_by_input = transposed(V, cells);
  }

  // out (n,) = U x_t
  void input(int64_t row, T* out) const { rows.contract(U_by_input.data(), x + row * i, i, nullptr, i, n, 1, out, n); }
  int64_t row(int64_t t, int64_t sample) const { return t * B + sample; }
  // (i, rows) from (rows, i): products with x_t then run along the rows, which are many, and not along x_t
  std::vector<T> transposed(const T* A, int64_t rows) const {
    std::vector<T> result(rows * i);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t k = 0; k < i; ++k) result[k * rows + r] = A[r * i + k];
    }
    return result;
  }
  // out (m, d) = v + V x_t
  void field(int64_t row, T* out) const {
    rows.contract(V_by_input.data(), x + row * i, i, nullptr, i, cells, 1, out, cells);
    for (int64_t k = 0; k < cells; ++k) out[k] += v[k];
  }
  // What U, c and beta get from grad_z (steps, B, n) of the steps first..last.
  void add_gradients(const LayerGradients<T>& to, int64_t first, int64_t last, const T* grad_z, const T* hs) const {
    const int64_t count = (last - first) * B;
    if (to.U && i > 0) matmul<T>(to.U, {grad_z, 1, n}, {x + first * B * i, i, 1}, n, count, i, true);
    for (int64_t r = 0; r < count; ++r) {
      const T* z = grad_z + r * n;
      if (to.c) rows.add(to.c, T(1), z, n);
      const T* h = hs + (first * B + r) * n;
      for (int64_t j = 0; to.beta && j < n; ++j) to.beta[j] += h[j] > 0 ? z[j] : -z[j];
    }
  }
};

}  // namespace vfrnn
