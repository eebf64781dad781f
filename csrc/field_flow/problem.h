// What field_flow on the CPU needs to know of a call, a few of its fields ready to be followed, and the gradients of
// one sample: shared with flow_recurrence. Derivation: vfrnn_kernels/field_flow/README.md.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <tuple>
#include <vector>

#include "common/isa.h"
#include "common/mesh.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "common/tensors.h"
#include "field_flow/inputs.h"
#include "field_flow/kernels.h"
#include "field_flow/plan.h"

namespace vfrnn {

// Pieces of one Scratch, each starting on a cache line.
template <class T>
class Pieces {
 public:
  explicit Pieces(std::initializer_list<int64_t> counts) : memory_(total(counts)), next_(memory_.get()) {}
  // The pieces in the order of `counts`; null for an empty one.
  T* take(int64_t count) {
    T* piece = next_;
    next_ += padded(count);
    return count ? piece : nullptr;
  }

 private:
  static int64_t padded(int64_t count) { return (count + 15) / 16 * 16; }
  static int64_t total(std::initializer_list<int64_t> counts) {
    int64_t sum = 0;
    for (int64_t count : counts) sum += padded(count);
    return sum;
  }
  Scratch<T> memory_;
  T* next_;
};

// One call: its sizes and its scaled mesh.
template <class T>
struct FlowProblem {
  const FieldFlowKernels<T>& kernel = IsaTable<FieldFlowKernels<T>>::active();
  const MeshKernels<T>& rows = IsaTable<MeshKernels<T>>::active();
  int64_t B, n, m, d, order, k;
  bool shared, volume_preserving;  // shared: one field for all samples
  Tensor v_, b_, w_, G_;
  const T *v, *b, *w, *G;
  std::vector<T> root, half_w;  // b^-1/2, w / 2
  T dt, scale, tau;
  Scratch<T> scaled_N;

  // Without substeps (0) and a plan of the caller's they are planned for the fields in v.
  explicit FlowProblem(const FlowInputs& inputs, bool plans = true)
      : B(inputs.h.size(0)),
        n(inputs.h.size(1)),
        m(inputs.N.size(0)),
        d(inputs.G.size(1)),
        order(inputs.order),
        k(inputs.substeps),
        shared(inputs.v.size(0) == 1 && B != 1),
        volume_preserving(inputs.volume_preserving),
        v_(packed(inputs.v)),
        b_(packed(inputs.b)),
        w_(packed(inputs.w)),
        G_(packed(inputs.G)),
        scaled_N(m * n) {
    v = v_.template const_data_ptr<T>();
    b = b_.template const_data_ptr<T>();
    w = w_.template const_data_ptr<T>();
    G = G_.template const_data_ptr<T>();
    dt = *inputs.dt.template const_data_ptr<T>();
    scale = *inputs.divergence_scale.template const_data_ptr<T>();
    check_positive<T>("b", b_);
    check_positive<T>("w", w_);
    check_finite<T>("v", v_);
    root = inverse_roots(b, n);
    half_w.resize(m);
    for (int64_t c = 0; c < m; ++c) half_w[c] = w[c] / 2;
    const Tensor N_packed = packed(inputs.N);
    const T* N = N_packed.template const_data_ptr<T>();
    if (k == 0 && plans) k = plan_substeps<T>({N, G, w, root.data(), v, v_.size(0), m, d, n}, dt, order);
    tau = dt / T(k);
    T* out = scaled_N.get();
    for (int64_t c = 0; c < m; ++c) {
      for (int64_t j = 0; j < n; ++j) out[c * n + j] = N[c * n + j] * root[j];
    }
  }

  void set_series(int64_t degree, int64_t substeps) { order = degree, k = substeps, tau = dt / T(k); }
  // growth: of every sample, the largest (||S y|| / ||y||)^2 that the kernels met
  void check_growth(const std::vector<T>& growth) const {
    T largest = 0;
    for (T of_sample : growth) largest = std::max(largest, of_sample);
    check_substeps<T>(std::abs(double(tau)) * std::sqrt(double(largest)), order, k);
  }

  // fits: of every sample, whether the exponentials e were numbers
  void check_fits(const std::vector<char>& fits) const {
    for (char all : fits) {
      require(all, "dt * divergence_scale * div v / (4 * substeps) must not be so far below 0 that exp overflows");
    }
  }

  // Multiply-adds of the series of a sample
  double series_work() const { return 4.0 * double(m) * double(n) * double(order) * double(k); }

  // Samples first..last in parallel, each thread a few at once.
  template <class F>
  void for_samples(int64_t first, int64_t last, const F& f) const {
    parallel_for(first, last, 1 + 32768 / (8 * m * n * order * k + 1), f);
  }

  // From the gradient of delta in `row` and -2 b times that of b through S in grad_b: that of b, -2 B^-1/2 grad_div in
  // `row`, which is what all rows of X (kernels.h) get from the divergence, and, returned, that of divergence_scale.
  T divergence_gradients(const T* div, T* row, T* grad_b) const {
    if (volume_preserving) {
      const T mean = mean_of(row);
      for (int64_t j = 0; j < n; ++j) row[j] -= mean;
    }
    T grad_scale = 0;
    for (int64_t j = 0; j < n; ++j) {
      grad_scale += row[j] * div[j];
      row[j] *= scale;
      grad_b[j] = -(grad_b[j] / 2 + row[j] * div[j]) / b[j];
      row[j] *= -2 * root[j];
    }
    return grad_scale;
  }
  // From X: grad_w_c += <X_c, C_c> / 2, and with grad_C_c = (w_c / 2) X_c B^-1/2, which takes the place of X,
  // grad_v_ck = <grad_C_c, G_ck>, grad_G_ck += v_ck grad_C_c. Null: not asked for.
  void field_gradients(const T* C, const T* field, T* X, T* grad_w, T* grad_v, T* grad_G) const {
    for (int64_t c = 0; c < m; ++c) {
      T* x = X + c * n;
      if (grad_w) grad_w[c] += rows.dot(x, C + c * n, n) / 2;
      rows.scale(x, half_w[c], root.data(), n);
      if (grad_v) rows.contract_adjoint(G + c * d * n, x, T(1), d, n, grad_v + c * d);
      for (int64_t l = c * d; grad_G && l < (c + 1) * d; ++l) rows.add(grad_G + l * n, field[l], x, n);
    }
  }

  T mean_of(const T* x) const {
    T sum = 0;
    for (int64_t j = 0; j < n; ++j) sum += x[j];
    return sum / T(n);
  }
};

// A few fields of a problem, contracted with the gradient, and their div v, delta and e.
template <class T>
class FlowFields {
 public:
  // Fields whose C stay in the second cache together.
  static int64_t at_once(const FlowProblem<T>& problem) {
    constexpr int64_t elements = int64_t(1) << 16;
    return problem.shared ? 1 : std::clamp<int64_t>(elements / std::max<int64_t>(problem.m * problem.n, 1), 1, 8);
  }
  FlowFields(const FlowProblem<T>& problem, int64_t most)
      : problem_(problem),
        count_(most),
        mn_(problem.m * problem.n),
        C_(count_ * mn_),
        vectors_(3 * count_ * problem.n) {}

  // `count` fields (m, d) at v.
  void load(const T* v, int64_t count) {
    const auto& [p, d, n] = std::tie(problem_, problem_.d, problem_.n);
    for (int64_t c = 0; c < p.m; ++c) {
      p.rows.contract(p.G + c * d * n, v + c * d, p.m * d, p.root.data(), d, n, count, C_.get() + c * n, mn_);
    }
    for (int64_t f = 0; f < count; ++f) {
      T *to_div = vector(0, f), *to_delta = vector(1, f), *to_e = vector(2, f);
      p.kernel.divergence(C(f), p.half_w.data(), p.root.data(), p.m, n, to_div);
      const T mean = p.volume_preserving ? p.mean_of(to_div) : T(0);
      for (int64_t j = 0; j < n; ++j) {
        to_delta[j] = p.scale * (to_div[j] - mean);
        to_e[j] = std::exp(-p.tau / 4 * to_delta[j]);
      }
    }
  }
  const T* C(int64_t f) const { return C_.get() + f * mn_; }
  const T* div(int64_t f) const { return vector(0, f); }
  const T* delta(int64_t f) const { return vector(1, f); }
  const T* e(int64_t f) const { return vector(2, f); }
  // The mean of large divergences may be no number, with which e would be 0.
  bool fits(int64_t f) const { return all_finite(delta(f), problem_.n) && all_finite(e(f), problem_.n); }
  Flow<T> flow(int64_t f) const {
    return {problem_.m, problem_.n,  problem_.order, problem_.k, problem_.scaled_N.get(), C(f), problem_.half_w.data(),
            e(f),       problem_.tau};
  }

 private:
  T* vector(int64_t which, int64_t f) const { return vectors_.get() + (which * count_ + f) * problem_.n; }

  const FlowProblem<T>& problem_;
  int64_t count_, mn_;
  Scratch<T> C_, vectors_;
};

// What one sample, moved along its field, gives: rows (n,).
template <class T>
struct SampleGradients {
  T *h, *b;  // the gradients of its state and of b
  T* row;    // -2 B^-1/2 grad_div: what the mesh gets follows from the tape and, for C, from this
  T* e;      // scratch: the gradient of e
};

// From the gradient of the sample's result, along field number f; returned are the gradients of tau and of
// divergence_scale.
template <class T>
std::tuple<T, T> sample_gradients(const FlowProblem<T>& problem, const FlowFields<T>& fields, int64_t f, const T* h,
                                  const T* grad, const FlowTape<T>& tape, const SampleGradients<T>& to) {
  const int64_t n = problem.n;
  const Flow<T> flow = fields.flow(f);
  const T* delta = fields.delta(f);
  T* row = to.row;
  T grad_tau = problem.kernel.backward(flow, h, grad, tape, to.h, to.e, to.b);
  // e = exp(-tau delta / 4), delta = scale (div - mean)
  for (int64_t j = 0; j < n; ++j) {
    const T grad_exponent = to.e[j] * flow.e[j];
    grad_tau -= grad_exponent * delta[j] / 4;
    row[j] = -problem.tau / 4 * grad_exponent;
  }
  return {grad_tau, problem.divergence_gradients(fields.div(f), row, to.b)};
}

}  // namespace vfrnn
