// flow_recurrence on the CPU: h_t = act(flow of h_{t-1} along v + V x_t, + U x_t + c) for all steps (T, B, n).
// Derivation: vfrnn_kernels/flow_recurrence/README.md; one sample's flow: field_flow/.
//
// A thread takes a sample through all steps: its field, contracted with the gradient, stays in the second cache. The
// backward goes chunk by chunk of steps, back in time: threads leave the gradients of the pre-activations and of the
// fields, and what x, U, c, v and V get are a few products per chunk. The mesh's gradients are summed by groups of
// samples, then over the groups. Neither chunks nor groups depend on the number of threads, so no bit does.
// Where few rows of x differ from each other, repeated.h has the steps.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "common/matmul.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "common/tensors.h"
#include "field_flow/problem.h"
#include "flow_recurrence/layer.h"
#include "flow_recurrence/plan.h"
#include "flow_recurrence/repeated.h"

namespace vfrnn {
namespace {

enum Gradient {
  x_bit = 0,
  U_bit,
  c_bit,
  v_bit,
  V_bit,
  b_bit,
  w_bit,
  N_bit,
  G_bit,
  h0_bit,
  beta_bit,
  dt_bit,
  scale_bit
};

// The distinct rows of x, as many as are of use to the plan or may have matrices.
template <class T>
DistinctRows rows_of(const Layer<T>& layer) {
  const int64_t rows = layer.steps * layer.B;
  return distinct_rows(layer.x, rows, layer.i, std::max(layer.i + 1, RepeatedFields<T>::most(rows, layer.n)));
}
template <class T>
bool has_matrices(const Layer<T>& layer, const FlowProblem<T>& problem, const DistinctRows& found) {
  const int64_t rows = layer.steps * layer.B, count = int64_t(found.first.size());
  return found.all && count <= RepeatedFields<T>::most(rows, layer.n) && RepeatedFields<T>::pays(problem, count, rows);
}

std::tuple<Tensor, Tensor> flow_recurrence(const Tensor& x, const Tensor& U, std::optional<Tensor> c, const Tensor& v,
                                           const Tensor& V, const Tensor& b, const Tensor& w, const Tensor& N,
                                           const Tensor& G, const Tensor& h0, std::optional<Tensor> beta,
                                           const Tensor& dt, const Tensor& scale, Activation activation,
                                           bool volume_preserving, int64_t order, int64_t substeps) {
  Tensor hs = empty_tensor(x, {x.size(0), x.size(1), U.size(0)}), taken = empty_tensor(x, {2});
  dispatch_real(x, [&](auto zero) {
    using T = decltype(zero);
    const Layer<T> layer(x, U, c, v, V, h0, beta, activation);
    FlowProblem<T> problem({h0, v, b, w, N, G, dt, scale, volume_preserving, order, substeps}, false);
    T* const states = hs.mutable_data_ptr<T>();
    bool matrices = false;
    if (substeps == 0) {
      const DistinctRows rows = rows_of(layer);
      const double bound = std::abs(double(problem.dt)) * largest_generator(layer, problem, rows);
      const SeriesPlan plan = planned_series<T>(bound, order);
      problem.set_series(plan.order, plan.substeps);
      matrices = order == 0 && has_matrices(layer, problem, rows);
      if (matrices) RepeatedFields<T>(layer, problem, rows).forward(states);
    } else {
      problem.set_series(order == 0 ? default_order : order, substeps);
    }
    T* const plan = taken.mutable_data_ptr<T>();
    plan[0] = T(problem.k), plan[1] = T(problem.order);
    if (matrices) return 0;
    const int64_t n = layer.n, work = 8 * layer.steps * problem.m * n * problem.order * problem.k;
    std::vector<T> growth(layer.B, T(0));
    std::vector<char> finite(layer.B, true), fits(layer.B, true);
    parallel_for(0, layer.B, 1 + 32768 / (work + 1), [&](int64_t begin, int64_t end) {
      FlowFields<T> field(problem, 1);
      Pieces<T> memory({layer.cells, n, 3 * n});
      T *v_t = memory.take(layer.cells), *moved = memory.take(n), *scratch = memory.take(3 * n);
      StopCheck stop(problem.series_work());
      for (int64_t s = begin; s < end; ++s) {
        const T* previous = layer.h0 + s * n;
        for (int64_t t = 0; t < layer.steps && !stop.asked(); ++t) {
          const int64_t row = layer.row(t, s);
          T* h = states + row * n;
          layer.field(row, v_t);
          if (!all_finite(v_t, layer.cells)) finite[s] = false;
          field.load(v_t, 1);
          if (!field.fits(0)) fits[s] = false;
          growth[s] = std::max(growth[s], problem.kernel.forward(field.flow(0), previous, moved, scratch));
          layer.input(row, h);
          layer.kernel.activate(layer.activation, moved, layer.c, layer.beta, n, h);
          previous = h;
        }
      }
    });
    for (char all : finite) require(all, "v + V x must be finite for every input x, got NaN or infinity");
    problem.check_fits(fits);
    problem.check_growth(growth);
    return 0;
  });
  return {hs, taken};
}

template <class T>
class Backward {
 public:
  Backward(const Layer<T>& layer, const FlowProblem<T>& problem, const LayerGradients<T>& to, const T* grad_hs,
           const T* hs)
      : layer_(layer),
        problem_(problem),
        to_(to),
        grad_hs_(grad_hs),
        hs_(hs),
        mn_(problem.m * problem.n),
        groups_(std::min<int64_t>(layer.B, 64)),
        chunk_(std::clamp<int64_t>((int64_t(1) << 18) / (layer.B * (layer.n + layer.cells)), 1, layer.steps)),
        grad_z_(chunk_ * layer.B * layer.n),
        grad_v_(needs_v() ? chunk_ * layer.B * layer.cells : 0),
        carried_(layer.B * layer.n, T(0)),
        sums_b_(groups_ * layer.n, T(0)),
        sums_w_(groups_ * problem.m, T(0)),
        sums_N_(to.N ? groups_ * mn_ : 0, T(0)),
        sums_G_(to.G ? groups_ * problem.d * mn_ : 0, T(0)),
        sums_tau_(groups_, T(0)),
        sums_scale_(groups_, T(0)) {}

  void run() {
    for (int64_t last = layer_.steps; last > 0; last -= chunk_) {
      const int64_t first = std::max<int64_t>(0, last - chunk_);
      parallel_for(0, groups_, 1, [&](int64_t begin, int64_t end) {
        for (int64_t g = begin; g < end; ++g) group(g, first, last);
      });
      products(first, last);
    }
    if (to_.h0) std::copy(carried_.begin(), carried_.end(), to_.h0);
    const auto& rows = problem_.rows;
    const int64_t n = problem_.n, m = problem_.m, d = problem_.d;
    for (int64_t g = 0; g < groups_; ++g) {
      if (to_.b) rows.add(to_.b, T(1), sums_b_.data() + g * n, n);
      if (to_.w) rows.add(to_.w, T(1), sums_w_.data() + g * m, m);
      if (to_.N) rows.add(to_.N, T(1), sums_N_.data() + g * mn_, mn_);
      if (to_.G) rows.add(to_.G, T(1), sums_G_.data() + g * d * mn_, d * mn_);
      if (to_.dt) *to_.dt += sums_tau_[g] / T(problem_.k);
      if (to_.scale) *to_.scale += sums_scale_[g];
    }
    for (int64_t c = 0; to_.N && c < m; ++c) rows.scale(to_.N + c * n, problem_.half_w[c], problem_.root.data(), n);
  }

 private:
  bool needs_v() const { return to_.x || to_.v || to_.V; }

  // The samples of a group, back through the steps first..last.
  void group(int64_t g, int64_t first, int64_t last) {
    const int64_t n = problem_.n, m = problem_.m, k = problem_.k, terms = 2 * problem_.order * k, B = layer_.B;
    const int64_t on_C = needs_v() || to_.w || to_.G ? terms * m : 0, on_N = to_.N ? terms * m : 0;
    const int64_t X_size = on_C ? mn_ : 0, Y_size = on_N ? mn_ : 0;
    Pieces<T> memory(
        {terms * n, on_C, on_N, (k + 1) * n, k * n, terms / 2 * n, 3 * n, layer_.cells, n, n, n, X_size, Y_size});
    const FlowTape<T> tape{memory.take(terms * n),   memory.take(on_C),  memory.take(on_N),
                           memory.take((k + 1) * n), memory.take(k * n), memory.take(terms / 2 * n),
                           memory.take(3 * n)};
    T *v_t = memory.take(layer_.cells), *grad_e = memory.take(n), *row = memory.take(n), *grad_b = memory.take(n);
    T *X = memory.take(X_size), *Y = memory.take(Y_size);
    FlowFields<T> field(problem_, 1);
    StopCheck stop(3 * problem_.series_work());
    for (int64_t s = B * g / groups_; s < B * (g + 1) / groups_; ++s) {
      T* carried = carried_.data() + s * n;
      for (int64_t t = last - 1; t >= first && !stop.asked(); --t) {
        const int64_t at = layer_.row(t, s), in_chunk = layer_.row(t - first, s);
        const T* previous = t > 0 ? hs_ + (at - B) * n : layer_.h0 + s * n;
        T* grad_z = grad_z_.get() + in_chunk * n;
        layer_.kernel.derivative(layer_.activation, hs_ + at * n, grad_hs_ + at * n, carried, n, grad_z);
        layer_.field(at, v_t);
        field.load(v_t, 1);
        const auto [tau, scale] =
            sample_gradients<T>(problem_, field, 0, previous, grad_z, tape, {carried, grad_b, row, grad_e});
        sums_tau_[g] += tau, sums_scale_[g] += scale;
        problem_.rows.add(sums_b_.data() + g * n, T(1), grad_b, n);
        if (X) {
          problem_.kernel.outer_products(tape.coef_C, tape.vectors, row, terms, m, n, X);
          problem_.field_gradients(field.C(0), v_t, X, to_.w ? sums_w_.data() + g * m : nullptr,
                                   needs_v() ? grad_v_.get() + in_chunk * layer_.cells : nullptr,
                                   to_.G ? sums_G_.data() + g * problem_.d * mn_ : nullptr);
        }
        if (Y) {
          problem_.kernel.outer_products(tape.coef_N, tape.vectors, nullptr, terms, m, n, Y);
          problem_.rows.add(sums_N_.data() + g * mn_, T(1), Y, mn_);
        }
      }
    }
  }

  // What x, U, c, beta, v and V get from the steps first..last.
  void products(int64_t first, int64_t last) {
    const int64_t n = layer_.n, i = layer_.i, cells = layer_.cells, rows = (last - first) * layer_.B;
    const T *grad_z = grad_z_.get(), *grad_v = grad_v_.get(), *x = layer_.x + first * layer_.B * i;
    if (to_.x && i > 0) {
      T* grad_x = to_.x + first * layer_.B * i;
      matmul<T>(grad_x, {grad_z, n, 1}, {layer_.U, i, 1}, rows, n, i);
      if (cells > 0) matmul<T>(grad_x, {grad_v, cells, 1}, {layer_.V, i, 1}, rows, cells, i, true);
    }
    if (to_.V && i > 0 && cells > 0) matmul<T>(to_.V, {grad_v, 1, cells}, {x, i, 1}, cells, rows, i, true);
    for (int64_t row = 0; to_.v && row < rows; ++row) problem_.rows.add(to_.v, T(1), grad_v + row * cells, cells);
    layer_.add_gradients(to_, first, last, grad_z, hs_);
  }

  const Layer<T>& layer_;
  const FlowProblem<T>& problem_;
  const LayerGradients<T> to_;
  const T *grad_hs_, *hs_;
  int64_t mn_, groups_, chunk_;
  Scratch<T> grad_z_, grad_v_;  // of a chunk: (steps, B, n), (steps, B, m, d)
  std::vector<T> carried_;      // (B, n): the gradient of the state before the steps that are done
  std::vector<T> sums_b_, sums_w_, sums_N_, sums_G_, sums_tau_, sums_scale_;  // by group
};

using Results =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Results flow_recurrence_backward(const Tensor& grad_hs_, const Tensor& x, const Tensor& U, std::optional<Tensor> c,
                                 const Tensor& v, const Tensor& V, const Tensor& b, const Tensor& w, const Tensor& N,
                                 const Tensor& G, const Tensor& h0, std::optional<Tensor> beta, const Tensor& dt,
                                 const Tensor& scale, const Tensor& hs_, const Tensor& taken, Activation activation,
                                 bool volume_preserving, int64_t order, int64_t substeps, int64_t needs) {
  const int64_t T_ = x.size(0), B = x.size(1), i = x.size(2), n = U.size(0), m = G.size(0), d = G.size(1);
  const auto zeros = [&](int bit, std::initializer_list<int64_t> sizes, bool present = true) {
    return wanted(needs, bit) && present ? zeros_tensor(x, sizes) : empty_tensor(x, {0});
  };
  Results results{zeros(x_bit, {T_, B, i}),
                  zeros(U_bit, {n, i}),
                  zeros(c_bit, {n}, c.has_value()),
                  zeros(v_bit, {m, d}),
                  zeros(V_bit, {m, d, i}),
                  zeros(b_bit, {n}),
                  zeros(w_bit, {m}),
                  zeros(N_bit, {m, n}),
                  zeros(G_bit, {m, d, n}),
                  zeros(h0_bit, {B, n}),
                  zeros(beta_bit, {n}, beta.has_value()),
                  zeros(dt_bit, {}),
                  zeros(scale_bit, {})};
  if (T_ == 0 || B == 0) return results;
  const Tensor grad_hs = packed(grad_hs_), hs = packed(hs_);
  dispatch_real(x, [&](auto zero) {
    using T = decltype(zero);
    const Layer<T> layer(x, U, c, v, V, h0, beta, activation);
    const SeriesPlan plan{int64_t(taken.const_data_ptr<T>()[1]), int64_t(taken.const_data_ptr<T>()[0])};
    require(plan.substeps >= 1 && plan.order >= 1, "taken must be what flow_recurrence returned, got ", plan.substeps,
            " substeps of order ", plan.order);
    const FlowProblem<T> problem({h0, v, b, w, N, G, dt, scale, volume_preserving, plan.order, plan.substeps});
    const auto data = [&](Tensor& t, int bit, bool present = true) {
      return wanted(needs, bit) && present ? t.mutable_data_ptr<T>() : nullptr;
    };
    auto& [gx, gU, gc, gv, gV, gb, gw, gN, gG, gh0, gbeta, gdt, gscale] = results;
    LayerGradients<T> to{};
    to.x = data(gx, x_bit), to.U = data(gU, U_bit), to.c = data(gc, c_bit, c.has_value());
    to.v = data(gv, v_bit), to.V = data(gV, V_bit), to.b = data(gb, b_bit), to.w = data(gw, w_bit);
    to.N = data(gN, N_bit), to.G = data(gG, G_bit), to.h0 = data(gh0, h0_bit);
    to.beta = data(gbeta, beta_bit, beta.has_value()), to.dt = data(gdt, dt_bit), to.scale = data(gscale, scale_bit);
    const T *grad_states = grad_hs.const_data_ptr<T>(), *states = hs.const_data_ptr<T>();
    if (order == 0 && substeps == 0 && !to.x) {
      const DistinctRows rows = rows_of(layer);
      if (has_matrices(layer, problem, rows)) {
        RepeatedFields<T>(layer, problem, rows).backward(to, grad_states, states);
        return 0;
      }
    }
    Backward<T>(layer, problem, to, grad_states, states).run();
    return 0;
  });
  return results;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, CPU, m) {
  m.impl("flow_recurrence", TORCH_BOX(&flow_recurrence));
  m.impl("flow_recurrence_backward", TORCH_BOX(&flow_recurrence_backward));
}

}  // namespace vfrnn
