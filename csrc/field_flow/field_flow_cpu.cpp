// field_flow on the CPU: h' (B, n) from h along the field v, repeated h <- e * p(tau S) (e * h). Derivation:
// vfrnn_kernels/field_flow/README.md.
//
// Every field is first contracted with the gradient, C_c = sum_k v_ck G_ck B^-1/2 (m, n): after that a term of the
// series costs 4 m n products instead of 2 (d + 1) m n. Samples are then independent of each other, so a thread takes a
// sample through all terms and substeps. A chunk of samples goes through three passes: over cells (C), over samples
// (the series), over cells again (sums over samples, in their order). No sum depends on the number of threads or the
// size of a chunk.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

#include "common/isa.h"
#include "common/mesh.h"
#include "common/tensors.h"
#include "field_flow/field_flow_kernels.h"
#include "field_flow/field_flow_plan.h"

namespace vfrnn {
namespace {

enum Gradient { h_bit = 0, v_bit, b_bit, w_bit, N_bit, G_bit, dt_bit, scale_bit };

template <class T>
const FieldFlowKernels<T>& kernels() {
  if constexpr (sizeof(T) == 4) {
    return select_isa(baseline::field_flow_float, avx2::field_flow_float, avx512::field_flow_float);
  } else {
    return select_isa(baseline::field_flow_double, avx2::field_flow_double, avx512::field_flow_double);
  }
}

// Scratch for one thread, carved into pieces that start on a cache line.
template <class T>
class Scratch {
 public:
  Scratch(const Tensor& like, std::initializer_list<int64_t> counts) {
    int64_t total = 0;
    for (int64_t count : counts) total += padded(count);
    memory_ = empty_tensor(like, {total});
    next_ = memory_.template mutable_data_ptr<T>();
  }
  // The pieces in the order of `counts`; null for an empty one.
  T* take(int64_t count) {
    T* piece = next_;
    next_ += padded(count);
    return count ? piece : nullptr;
  }

 private:
  static int64_t padded(int64_t count) { return (count + 15) / 16 * 16; }
  Tensor memory_;
  T* next_;
};

// One call: its sizes, its scaled mesh and the fields of the current chunk of samples.
template <class T>
struct Problem {
  const FieldFlowKernels<T>& kernel = kernels<T>();
  const MeshKernels<T>& rows = mesh_kernels<T>();
  int64_t B, n, m, d, order, k, chunk;
  bool shared, volume_preserving;  // shared: one field for all samples
  Tensor v_, b_, w_, G_, scaled_N, contracted;
  const T *v, *b, *w, *G;
  std::vector<T> root, half_w;   // b^-1/2, w / 2
  std::vector<T> div, delta, e;  // (fields of the chunk, n)
  T dt, scale, tau;
  const T *N = nullptr, *C = nullptr;

  Problem(const Tensor& h, const Tensor& v_in, const Tensor& b_in, const Tensor& w_in, const Tensor& N_in,
          const Tensor& G_in, const Tensor& dt_in, const Tensor& scale_in, bool volume_preserving, int64_t order,
          int64_t substeps)
      : B(h.size(0)),
        n(h.size(1)),
        m(N_in.size(0)),
        d(G_in.size(1)),
        order(order),
        k(substeps),
        shared(v_in.size(0) == 1 && B != 1),
        volume_preserving(volume_preserving),
        v_(packed(v_in)),
        b_(packed(b_in)),
        w_(packed(w_in)),
        G_(packed(G_in)) {
    v = v_.template const_data_ptr<T>();
    b = b_.template const_data_ptr<T>();
    w = w_.template const_data_ptr<T>();
    G = G_.template const_data_ptr<T>();
    dt = *dt_in.template const_data_ptr<T>();
    scale = *scale_in.template const_data_ptr<T>();
    check_positive<T>("b", b_);
    check_positive<T>("w", w_);
    check_finite<T>("v", v_);
    root.resize(n);
    for (int64_t j = 0; j < n; ++j) root[j] = T(1) / std::sqrt(b[j]);
    half_w.resize(m);
    for (int64_t c = 0; c < m; ++c) half_w[c] = w[c] / 2;
    const Tensor N_packed = packed(N_in);
    const T* raw_N = N_packed.template const_data_ptr<T>();
    if (k == 0) k = plan_substeps<T>(raw_N, G, v, w, root.data(), dt, v_.size(0), m, d, n, order, h);
    tau = dt / T(k);
    scaled_N = empty_tensor(h, {m, n});
    T* out = scaled_N.template mutable_data_ptr<T>();
    for (int64_t c = 0; c < m; ++c) {
      for (int64_t j = 0; j < n; ++j) out[c * n + j] = raw_N[c * n + j] * root[j];
    }
    N = out;
    // Fields of a chunk stay near the caches; every thread gets a few samples.
    constexpr int64_t elements = int64_t(1) << 18;
    chunk = std::max<int64_t>(1, std::min(B, std::max<int64_t>(4 * ts::get_num_threads(), elements / (m * n + 1))));
    const int64_t fields = shared ? 1 : chunk;
    contracted = empty_tensor(h, {fields, m, n});
    C = contracted.template const_data_ptr<T>();
    div.resize(fields * n), delta.resize(fields * n), e.resize(fields * n);
  }

  int64_t field(int64_t sample, int64_t first) const { return shared ? 0 : sample - first; }
  int64_t grain(int64_t cost) const { return 1 + 32768 / (cost + 1); }

  // C of the samples first..last of a chunk; a shared field is contracted with the first chunk.
  void contract(int64_t first, int64_t last) {
    if (shared && first > 0) return;
    const int64_t fields = shared ? 1 : last - first;
    T* out = contracted.template mutable_data_ptr<T>();
    ts::parallel_for(0, m, grain(fields * d * n), [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        for (int64_t f = 0; f < fields; ++f) {
          const int64_t row = shared ? c : (first + f) * m + c;
          rows.contract(G + c * d * n, v + row * d, root.data(), d, n, out + (f * m + c) * n);
        }
      }
    });
    if (shared) exponentiate(0);
  }

  // div v, delta and e of a field of the chunk
  void exponentiate(int64_t f) {
    T *div_f = div.data() + f * n, *delta_f = delta.data() + f * n, *e_f = e.data() + f * n;
    kernel.divergence(C + f * m * n, half_w.data(), root.data(), m, n, div_f);
    const T mean = volume_preserving ? mean_of(div_f) : T(0);
    for (int64_t j = 0; j < n; ++j) {
      delta_f[j] = scale * (div_f[j] - mean);
      e_f[j] = std::exp(-tau / 4 * delta_f[j]);
    }
  }

  T mean_of(const T* x) const {
    T sum = 0;
    for (int64_t j = 0; j < n; ++j) sum += x[j];
    return sum / T(n);
  }

  Flow<T> flow(int64_t f) const { return {m, n, order, k, N, C + f * m * n, half_w.data(), e.data() + f * n, tau}; }

  // Calls samples(begin, end, first) in parallel and then after(first, last), chunk by chunk.
  template <class Samples, class After>
  void for_each_chunk(const Samples& samples, const After& after) {
    for (int64_t first = 0; first < B; first += chunk) {
      const int64_t last = std::min(B, first + chunk);
      contract(first, last);
      ts::parallel_for(first, last, grain(8 * m * n * order * k),
                       [&](int64_t begin, int64_t end) { samples(begin, end, first); });
      after(first, last);
    }
  }
};

Tensor field_flow(const Tensor& h_, const Tensor& v, const Tensor& b, const Tensor& w, const Tensor& N, const Tensor& G,
                  const Tensor& dt, const Tensor& scale, bool volume_preserving, int64_t order, int64_t substeps) {
  const Tensor h = packed(h_);
  Tensor result = empty_tensor(h, {h.size(0), h.size(1)});
  dispatch_real(h, [&](auto zero) {
    using T = decltype(zero);
    Problem<T> problem(h, v, b, w, N, G, dt, scale, volume_preserving, order, substeps);
    const int64_t n = problem.n;
    const T* in = h.const_data_ptr<T>();
    T* out = result.mutable_data_ptr<T>();
    std::vector<T> growth(problem.B, T(0));
    problem.for_each_chunk(
        [&](int64_t begin, int64_t end, int64_t first) {
          Scratch<T> memory(problem.scaled_N, {3 * n});
          T* scratch = memory.take(3 * n);
          for (int64_t i = begin; i < end; ++i) {
            const int64_t f = problem.field(i, first);
            if (!problem.shared) problem.exponentiate(f);
            growth[i] = problem.kernel.forward(problem.flow(f), in + i * n, out + i * n, scratch);
          }
        },
        [](int64_t, int64_t) {});
    T largest = 0;
    for (T x : growth) largest = std::max(largest, x);
    check_substeps<T>(std::abs(double(problem.tau)) * std::sqrt(double(largest)), order, problem.k);
    return 0;
  });
  return result;
}

// Backward. r_0 = e grad and r_{j+1} = -c_j S r_j run the series of -S; grad_h = e sum_j r_j. With the rows X_c and Y_c
// of field_flow_kernels.h, and X also holding -2 B^-1/2 grad_div for delta's part:
//   grad_C_c = (w_c / 2) X_c,  grad_w_c = <X_c, C_c> / 2,  grad_N_c = (w_c / 2) B^-1/2 Y_c,
//   grad_v_ck = <grad_C_c B^-1/2, G_ck>,  grad_G_ck = v_ck grad_C_c B^-1/2.
template <class T>
struct Backward {
  Problem<T> problem;
  int64_t needs;
  T *grad_v, *grad_w, *grad_N, *grad_G;
  Tensor X_, Y_;
  std::vector<T> rows_b, tau_parts, scale_parts;  // of every sample: (B, n), (B,), (B,)

  bool needed(int bit) const { return (needs >> bit & 1) != 0; }
  bool needs_C() const { return needed(v_bit) || needed(w_bit) || needed(G_bit); }

  // grad_h alone is the flow of -S with the same e.
  void state_only(const T* grad, T* grad_h) {
    const int64_t n = problem.n;
    problem.for_each_chunk(
        [&](int64_t begin, int64_t end, int64_t first) {
          Scratch<T> memory(problem.scaled_N, {3 * n});
          T* scratch = memory.take(3 * n);
          for (int64_t i = begin; i < end; ++i) {
            const int64_t f = problem.field(i, first);
            if (!problem.shared) problem.exponentiate(f);
            Flow<T> flow = problem.flow(f);
            flow.tau = -flow.tau;
            problem.kernel.forward(flow, grad + i * n, grad_h + i * n, scratch);
          }
        },
        [](int64_t, int64_t) {});
  }

  // Samples begin..end: the series both ways, then X, Y, and what b, tau and the scale get from each sample.
  void samples(int64_t begin, int64_t end, int64_t first, const T* h, const T* grad, T* grad_h) {
    const int64_t n = problem.n, m = problem.m, k = problem.k, terms = 2 * problem.order * k;
    const int64_t on_C = needs_C() ? terms * m : 0, on_N = needed(N_bit) ? terms * m : 0;
    Scratch<T> memory(problem.scaled_N, {terms * n, on_C, on_N, (k + 1) * n, k * n, 3 * n, n, n, n});
    const FlowTape<T> tape{memory.take(terms * n),   memory.take(on_C),  memory.take(on_N),
                           memory.take((k + 1) * n), memory.take(k * n), memory.take(3 * n)};
    T *own_h = memory.take(n), *grad_e = memory.take(n), *row = memory.take(n);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t f = problem.field(i, first);
      if (!problem.shared) problem.exponentiate(f);
      const Flow<T> flow = problem.flow(f);
      const T *div = problem.div.data() + f * n, *delta = problem.delta.data() + f * n;
      T* row_b = rows_b.data() + i * n;
      T part =
          problem.kernel.backward(flow, h + i * n, grad + i * n, tape, grad_h ? grad_h + i * n : own_h, grad_e, row_b);
      // e = exp(-tau delta / 4), delta = scale (div - mean)
      T scale_part = 0;
      for (int64_t j = 0; j < n; ++j) {
        const T grad_exponent = grad_e[j] * flow.e[j];
        part -= grad_exponent * delta[j] / 4;
        row[j] = -problem.tau / 4 * grad_exponent;
      }
      if (problem.volume_preserving) {
        const T mean = problem.mean_of(row);
        for (int64_t j = 0; j < n; ++j) row[j] -= mean;
      }
      for (int64_t j = 0; j < n; ++j) {
        scale_part += row[j] * div[j];
        row[j] *= problem.scale;
        row_b[j] = -(row_b[j] / 2 + row[j] * div[j]) / problem.b[j];
        row[j] *= -2 * problem.root[j];
      }
      tau_parts[i] = part, scale_parts[i] = scale_part;
      const int64_t place = (i - first) * m * n;
      if (tape.coef_C) {
        problem.kernel.outer_products(tape.coef_C, tape.vectors, row, terms, m, n,
                                      X_.template mutable_data_ptr<T>() + place);
      }
      if (tape.coef_N) {
        problem.kernel.outer_products(tape.coef_N, tape.vectors, nullptr, terms, m, n,
                                      Y_.template mutable_data_ptr<T>() + place);
      }
    }
  }

  // From one field's row x = X_c: its gradients of v, w and G. Overwrites x.
  void field_gradients(int64_t c, T* x, const T* C, int64_t field) {
    const int64_t n = problem.n, d = problem.d, place = (field * problem.m + c) * d;
    const MeshKernels<T>& rows = problem.rows;
    if (grad_w) grad_w[c] += rows.dot(x, C, n) / 2;
    if (!grad_v && !grad_G) return;
    rows.scale(x, problem.half_w[c], problem.root.data(), n);
    for (int64_t l = 0; l < d; ++l) {
      if (grad_v) grad_v[place + l] = rows.dot(x, problem.G + (c * d + l) * n, n);
      if (grad_G) rows.add(grad_G + (c * d + l) * n, problem.v[place + l], x, n);
    }
  }

  // The sums over the samples of a chunk, cell by cell. A shared field's X is collected and used at the end.
  void cells(int64_t first, int64_t last, T* collected) {
    const int64_t n = problem.n, m = problem.m;
    T *X = needs_C() ? X_.template mutable_data_ptr<T>() : nullptr,
      *Y = grad_N ? Y_.template mutable_data_ptr<T>() : nullptr;
    ts::parallel_for(0, m, problem.grain((last - first) * problem.d * n), [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        for (int64_t i = first; i < last; ++i) {
          const int64_t place = ((i - first) * m + c) * n;
          if (Y) problem.rows.add(grad_N + c * n, T(1), Y + place, n);
          if (X && problem.shared) problem.rows.add(collected + c * n, T(1), X + place, n);
          if (X && !problem.shared) field_gradients(c, X + place, problem.C + place, i);
        }
      }
    });
  }

  void run(const T* h, const T* grad, T* grad_h) {
    const int64_t n = problem.n, m = problem.m, B = problem.B;
    rows_b.resize(B * n), tau_parts.resize(B), scale_parts.resize(B);
    X_ = empty_tensor(problem.v_, {needs_C() ? problem.chunk : 0, m, n});
    Y_ = empty_tensor(problem.v_, {needed(N_bit) ? problem.chunk : 0, m, n});
    std::vector<T> collected(problem.shared && needs_C() ? m * n : 0, T(0));
    problem.for_each_chunk(
        [&](int64_t begin, int64_t end, int64_t first) { samples(begin, end, first, h, grad, grad_h); },
        [&](int64_t first, int64_t last) {
          if (needs_C() || grad_N) cells(first, last, collected.data());
        });
    if (problem.shared && needs_C() && B > 0) {
      for (int64_t c = 0; c < m; ++c) field_gradients(c, collected.data() + c * n, problem.C + c * n, 0);
    }
    if (grad_N) {
      for (int64_t c = 0; c < m; ++c) problem.rows.scale(grad_N + c * n, problem.half_w[c], problem.root.data(), n);
    }
  }
};

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Gradients field_flow_backward(const Tensor& grad_, const Tensor& h_, const Tensor& v, const Tensor& b, const Tensor& w,
                              const Tensor& N, const Tensor& G, const Tensor& dt, const Tensor& scale, const Tensor&,
                              bool volume_preserving, int64_t order, int64_t substeps, int64_t needs) {
  const Tensor h = packed(h_), grad = packed(grad_);
  const int64_t n = h.size(1), m = N.size(0), d = G.size(1);
  const auto needed = [&](int bit) { return (needs >> bit & 1) != 0; };
  const auto absent = [&]() { return empty_tensor(h, {0}); };
  Tensor grad_h = needed(h_bit) ? empty_tensor(h, {h.size(0), n}) : absent();
  Tensor grad_v = needed(v_bit) ? zeros_tensor(h, {v.size(0), m, d}) : absent();
  Tensor grad_b = needed(b_bit) ? zeros_tensor(h, {n}) : absent();
  Tensor grad_w = needed(w_bit) ? zeros_tensor(h, {m}) : absent();
  Tensor grad_N = needed(N_bit) ? zeros_tensor(h, {m, n}) : absent();
  Tensor grad_G = needed(G_bit) ? zeros_tensor(h, {m, d, n}) : absent();
  Tensor grad_dt = needed(dt_bit) ? zeros_tensor(h, {}) : absent();
  Tensor grad_scale = needed(scale_bit) ? zeros_tensor(h, {}) : absent();
  dispatch_real(h, [&](auto zero) {
    using T = decltype(zero);
    const auto data = [&](Tensor& t, int bit) { return needed(bit) ? t.mutable_data_ptr<T>() : nullptr; };
    Backward<T> backward{{h, v, b, w, N, G, dt, scale, volume_preserving, order, substeps},
                         needs,
                         data(grad_v, v_bit),
                         data(grad_w, w_bit),
                         data(grad_N, N_bit),
                         data(grad_G, G_bit),
                         {},
                         {},
                         {},
                         {},
                         {}};
    if (needs == 1 << h_bit) {
      backward.state_only(grad.const_data_ptr<T>(), data(grad_h, h_bit));
      return 0;
    }
    backward.run(h.const_data_ptr<T>(), grad.const_data_ptr<T>(), data(grad_h, h_bit));
    T *to_b = data(grad_b, b_bit), *to_dt = data(grad_dt, dt_bit), *to_scale = data(grad_scale, scale_bit);
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
