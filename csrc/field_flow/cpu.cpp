// field_flow on the CPU: h' (B, n) from h along the field v, repeated h <- e * p(tau S) (e * h). Derivation:
// vfrnn_kernels/field_flow/README.md.
//
// Every field is first contracted with the gradient, C_c = sum_k v_ck G_ck B^-1/2 (m, n): after that a term of the
// series costs 4 m n products instead of 2 (d + 1) m n. Samples are then independent of each other: a thread contracts
// the fields of a few samples, takes those through all terms and substeps, and goes to the next few, so that what it
// made it finds in its own cache. Sums over samples follow in their order, chunk by chunk, split over cells: no sum
// depends on the number of threads or the size of a chunk.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "common/gradients.h"
#include "common/scratch.h"
#include "common/team.h"
#include "common/tensors.h"
#include "field_flow/problem.h"

namespace vfrnn {
namespace {

enum Gradient { h_bit = 0, v_bit, b_bit, w_bit, N_bit, G_bit, dt_bit, scale_bit };

// f(fields, index of its field, sample) for the samples begin..end, a few fields at a time; then done(first, last,
// fields) for those few. `common` holds the field that all share, or is null.
template <class T, class F, class Done>
void for_fields(const FlowProblem<T>& problem, const FlowFields<T>* common, int64_t begin, int64_t end, const F& f,
                const Done& done) {
  StopCheck stop(problem.series_work());
  if (common) {
    for (int64_t i = begin; i < end && !stop.asked(); ++i) f(*common, 0, i);
    return done(begin, end, *common);
  }
  const int64_t step = FlowFields<T>::at_once(problem);
  FlowFields<T> fields(problem, step);
  for (int64_t first = begin; first < end && !stop_asked(); first += step) {
    const int64_t last = std::min(end, first + step);
    fields.load(problem.v + first * problem.m * problem.d, last - first);
    for (int64_t i = first; i < last && !stop.asked(); ++i) f(fields, i - first, i);
    done(first, last, fields);
  }
}

template <class T>
std::optional<FlowFields<T>> shared_field(const FlowProblem<T>& problem) {
  std::optional<FlowFields<T>> field;
  if (problem.shared && problem.B > 0) {
    field.emplace(problem, 1);
    field->load(problem.v, 1);
  }
  return field;
}

// h' of all samples, with the growth (kernels.h) of each and whether its e are numbers, where these are asked for;
// tau_sign -1: the flow of -S.
template <class T>
void flow_states(const FlowProblem<T>& problem, T tau_sign, const T* h, T* out, T* growth, char* fits) {
  const int64_t n = problem.n;
  const std::optional<FlowFields<T>> common = shared_field(problem);
  problem.for_samples(0, problem.B, [&](int64_t begin, int64_t end) {
    const Scratch<T> scratch(3 * n);
    for_fields<T>(
        problem, common ? &*common : nullptr, begin, end,
        [&](const FlowFields<T>& fields, int64_t f, int64_t i) {
          Flow<T> flow = fields.flow(f);
          flow.tau *= tau_sign;
          const T x = problem.kernel.forward(flow, h + i * n, out + i * n, scratch.get());
          if (growth) growth[i] = x, fits[i] = fields.fits(f);
        },
        [](int64_t, int64_t, const FlowFields<T>&) {});
  });
}

std::tuple<Tensor, Tensor> field_flow(const Tensor& h_, const Tensor& v, const Tensor& b, const Tensor& w,
                                      const Tensor& N, const Tensor& G, const Tensor& dt, const Tensor& scale,
                                      bool volume_preserving, int64_t order, int64_t substeps) {
  const Tensor h = packed(h_);
  Tensor result = empty_tensor(h, {h.size(0), h.size(1)}), taken = empty_tensor(h, {});
  dispatch_real(h, [&](auto zero) {
    using T = decltype(zero);
    const FlowProblem<T> problem({h, v, b, w, N, G, dt, scale, volume_preserving, order, substeps});
    *taken.mutable_data_ptr<T>() = T(problem.k);
    std::vector<T> growth(problem.B, T(0));
    std::vector<char> fits(problem.B, true);
    flow_states(problem, T(1), h.const_data_ptr<T>(), result.mutable_data_ptr<T>(), growth.data(), fits.data());
    problem.check_fits(fits);
    problem.check_growth(growth);
    return 0;
  });
  return {result, taken};
}

// Backward. r_0 = e grad and r_{j+1} = -c_j S r_j run the series of -S; grad_h = e sum_j r_j. With the rows X_c and Y_c
// of kernels.h, and X also holding -2 B^-1/2 grad_div for delta's part:
//   grad_C_c = (w_c / 2) X_c,  grad_w_c = <X_c, C_c> / 2,  grad_N_c = (w_c / 2) B^-1/2 Y_c,
//   grad_v_ck = <grad_C_c B^-1/2, G_ck>,  grad_G_ck = v_ck grad_C_c B^-1/2.
template <class T>
struct Backward {
  FlowProblem<T> problem;
  NeededGradients needed;
  T *grad_v, *grad_w, *grad_N, *grad_G;
  // Of the samples of a chunk: X (.., m, n), once scaled the gradient of C B^1/2, and Y (.., m, n).
  int64_t chunk = 0;
  std::unique_ptr<Scratch<T>> X = nullptr, Y = nullptr;
  // Of every sample: (B, n), (B, m), (B,), (B,)
  std::vector<T> rows_b = {}, rows_w = {}, tau_parts = {}, scale_parts = {};

  bool needs_C() const { return needed(v_bit) || needed(w_bit) || needed(G_bit); }
  int64_t place(int64_t i, int64_t first) const { return (i - first) * problem.m * problem.n; }

  // The gradients of the fields of the samples begin..end, from their X at xs: those of w and v; X scaled for that of
  // G. Cell by cell, since these few share G_c. A shared field is left to `cells`.
  void field_gradients(int64_t begin, int64_t end, T* xs, const FlowFields<T>& fields) {
    const auto& [n, m, d, rows] = std::tie(problem.n, problem.m, problem.d, problem.rows);
    for (int64_t c = 0; c < m; ++c) {
      for (int64_t i = begin; i < end; ++i) {
        T* x = xs + place(i, begin) + c * n;
        if (grad_w) rows_w[i * m + c] = rows.dot(x, fields.C(problem.shared ? 0 : i - begin) + c * n, n) / 2;
        if (problem.shared || !(grad_v || grad_G)) continue;
        rows.scale(x, problem.half_w[c], problem.root.data(), n);
        if (grad_v) rows.contract_adjoint(problem.G + c * d * n, x, T(1), d, n, grad_v + (i * m + c) * d);
      }
    }
  }

  // Samples begin..end of the chunk from `first`: the series both ways, then X, Y, and what b, w, tau and the scale get
  // from each sample.
  void samples(const FlowFields<T>* common, int64_t begin, int64_t end, int64_t first, const T* h, const T* grad,
               T* grad_h) {
    const int64_t n = problem.n, m = problem.m, k = problem.k, terms = 2 * problem.order * k;
    const int64_t on_C = needs_C() ? terms * m : 0, on_N = needed(N_bit) ? terms * m : 0;
    Pieces<T> memory({terms * n, on_C, on_N, (k + 1) * n, k * n, terms / 2 * n, 3 * n, n, n, n});
    const FlowTape<T> tape{memory.take(terms * n),   memory.take(on_C),  memory.take(on_N),
                           memory.take((k + 1) * n), memory.take(k * n), memory.take(terms / 2 * n),
                           memory.take(3 * n)};
    T *own_h = memory.take(n), *grad_e = memory.take(n), *row = memory.take(n);
    // Of sample i, in the chunk or, where nothing is summed over the chunk, with those few that started at `from`.
    const Scratch<T> own_X(X || !on_C ? 0 : FlowFields<T>::at_once(problem) * m * n);
    const auto xs = [&](int64_t i, int64_t from) {
      return X ? X->get() + place(i, first) : own_X.get() + place(i, from);
    };
    const auto sample = [&](const FlowFields<T>& fields, int64_t f, int64_t i) {
      std::tie(tau_parts[i], scale_parts[i]) =
          sample_gradients<T>(problem, fields, f, h + i * n, grad + i * n, tape,
                              {grad_h ? grad_h + i * n : own_h, rows_b.data() + i * n, row, grad_e});
      if (tape.coef_C) {
        problem.kernel.outer_products(tape.coef_C, tape.vectors, row, terms, m, n, xs(i, i - f));
      }
      if (tape.coef_N) {
        problem.kernel.outer_products(tape.coef_N, tape.vectors, nullptr, terms, m, n, Y->get() + place(i, first));
      }
    };
    for_fields<T>(problem, common, begin, end, sample, [&](int64_t from, int64_t to, const FlowFields<T>& fields) {
      if (tape.coef_C) field_gradients(from, to, xs(from, from), fields);
    });
  }

  // The sums over the samples of a chunk, cell by cell. A shared field's X is collected and used at the end.
  void cells(int64_t first, int64_t last, T* collected) {
    const int64_t n = problem.n, m = problem.m, d = problem.d;
    const MeshKernels<T>& rows = problem.rows;
    parallel_for(0, m, 1 + 32768 / ((last - first) * d * n + 1), [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        for (int64_t i = first; i < last; ++i) {
          const int64_t row = place(i, first) + c * n;
          if (grad_N) rows.add(grad_N + c * n, T(1), Y->get() + row, n);
          if (collected) rows.add(collected + c * n, T(1), X->get() + row, n);
          for (int64_t l = 0; grad_G && !collected && l < d; ++l) {
            rows.add(grad_G + (c * d + l) * n, problem.v[(i * m + c) * d + l], X->get() + row, n);
          }
        }
      }
    });
  }
  void collected_gradients(T* collected) {
    const auto& [n, m, d, rows] = std::tie(problem.n, problem.m, problem.d, problem.rows);
    for (int64_t c = 0; c < m; ++c) {
      T* x = collected + c * n;
      rows.scale(x, problem.half_w[c], problem.root.data(), n);
      if (grad_v) rows.contract_adjoint(problem.G + c * d * n, x, T(1), d, n, grad_v + c * d);
      for (int64_t l = 0; grad_G && l < d; ++l) rows.set(grad_G + (c * d + l) * n, problem.v[c * d + l], x, n);
    }
  }

  void run(const T* h, const T* grad, T* grad_h) {
    const int64_t n = problem.n, m = problem.m, B = problem.B;
    rows_b.resize(B * n), rows_w.resize(grad_w ? B * m : 0), tau_parts.resize(B), scale_parts.resize(B);
    const std::optional<FlowFields<T>> common = shared_field(problem);
    const bool collects = problem.shared && (grad_v || grad_G);
    // X and Y of a chunk stay near the caches; every thread gets a few samples.
    constexpr int64_t elements = int64_t(1) << 18;
    const bool keeps_X = grad_G || problem.shared;
    chunk = B;
    if (keeps_X || grad_N) chunk = std::min(B, std::max<int64_t>(elements / (m * n + 1), 4 * usable_threads()));
    if (needs_C() && keeps_X) X = std::make_unique<Scratch<T>>(chunk * m * n);
    if (grad_N) Y = std::make_unique<Scratch<T>>(chunk * m * n);
    std::vector<T> collected(collects ? m * n : 0, T(0));
    for (int64_t first = 0; first < B; first += chunk) {
      const int64_t last = std::min(B, first + chunk);
      problem.for_samples(first, last, [&](int64_t begin, int64_t end) {
        samples(common ? &*common : nullptr, begin, end, first, h, grad, grad_h);
      });
      if (grad_N || grad_G || collects) cells(first, last, collects ? collected.data() : nullptr);
    }
    if (collects && B > 0) collected_gradients(collected.data());
    for (int64_t i = 0; grad_w && i < B; ++i) problem.rows.add(grad_w, T(1), rows_w.data() + i * m, m);
    for (int64_t c = 0; grad_N && c < m; ++c)
      problem.rows.scale(grad_N + c * n, problem.half_w[c], problem.root.data(), n);
  }
};

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Gradients field_flow_backward(const Tensor& grad_, const Tensor& h_, const Tensor& v, const Tensor& b, const Tensor& w,
                              const Tensor& N, const Tensor& G, const Tensor& dt, const Tensor& scale, const Tensor&,
                              const Tensor& taken, bool volume_preserving, int64_t order, int64_t, int64_t needs) {
  const Tensor h = packed(h_), grad = packed(grad_);
  const int64_t n = h.size(1), m = N.size(0), d = G.size(1);
  const NeededGradients needed(h, needs);
  Tensor grad_h = needed.empty(h_bit, {h.size(0), n}), grad_v = needed.zeros(v_bit, {v.size(0), m, d});
  Tensor grad_b = needed.zeros(b_bit, {n}), grad_w = needed.zeros(w_bit, {m}), grad_N = needed.zeros(N_bit, {m, n});
  Tensor grad_G = needed.zeros(G_bit, {m, d, n});
  Tensor grad_dt = needed.zeros(dt_bit, {}), grad_scale = needed.zeros(scale_bit, {});
  dispatch_real(h, [&](auto zero) {
    using T = decltype(zero);
    const int64_t substeps = int64_t(*taken.const_data_ptr<T>());
    require(substeps >= 1, "taken must be what field_flow returned, got ", substeps);
    const FlowInputs inputs{h, v, b, w, N, G, dt, scale, volume_preserving, order, substeps};
    T* const to_h = needed.data<T>(h_bit, grad_h);
    if (needed.only(h_bit)) {  // the adjoint of the flow of S is the flow of -S
      flow_states(FlowProblem<T>(inputs), T(-1), grad.const_data_ptr<T>(), to_h, static_cast<T*>(nullptr), nullptr);
      return 0;
    }
    Backward<T> backward{FlowProblem<T>(inputs),        needed,
                         needed.data<T>(v_bit, grad_v), needed.data<T>(w_bit, grad_w),
                         needed.data<T>(N_bit, grad_N), needed.data<T>(G_bit, grad_G)};
    backward.run(h.const_data_ptr<T>(), grad.const_data_ptr<T>(), to_h);
    T *to_b = needed.data<T>(b_bit, grad_b), *to_dt = needed.data<T>(dt_bit, grad_dt),
      *to_scale = needed.data<T>(scale_bit, grad_scale);
    for (int64_t i = 0; i < h.size(0); ++i) {
      if (to_b) backward.problem.rows.add(to_b, T(1), backward.rows_b.data() + i * n, n);
      if (to_dt) *to_dt += backward.tau_parts[i] / T(backward.problem.k);
      if (to_scale) *to_scale += backward.scale_parts[i];
    }
    return 0;
  });
  return {grad_h, grad_v, grad_b, grad_w, grad_N, grad_G, grad_dt, grad_scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, CPU, m) {
  m.impl("field_flow", TORCH_BOX(&field_flow));
  m.impl("field_flow_backward", TORCH_BOX(&field_flow_backward));
}

}  // namespace vfrnn
