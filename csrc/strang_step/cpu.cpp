// strang_step on the CPU: M = (diag(e) Q diag(e))^k with e = exp(-dt delta / (4 k)), Q = exp(dt S / k).
// Derivation: vfrnn_kernels/strang_step/README.md. The exponential is that of skew_expm.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

#include "common/gradients.h"
#include "common/square_matrices.h"
#include "common/tensors.h"
#include "skew_expm/exponential.h"
#include "strang_step/kernels.h"
#include "strang_step/steps.h"

namespace vfrnn {
namespace {

enum Gradient { grad_S_bit = 0, grad_delta_bit, grad_dt_bit };

// M1^k by the binary digits of k after the first: a squaring each, and a factor M1 where the digit is 1.
std::vector<bool> later_digits(int64_t k) {
  std::vector<bool> digits;
  for (; k > 1; k /= 2) digits.insert(digits.begin(), k % 2 == 1);
  return digits;
}

int64_t power_count(const std::vector<bool>& digits) {
  int64_t count = 1;
  for (const bool one : digits) count += one ? 2 : 1;
  return count;
}

// Powers M1, ..., M1^k, one after the other, for one matrix after the other, by one thread of a team; `scratch` is the
// team's.
template <class T>
class StrangStep {
 public:
  StrangStep(const Team& team, int64_t n, int64_t substeps, T* scratch)
      : n_(n),
        nn_(n * n),
        substeps_(substeps),
        digits_(later_digits(substeps)),
        e_(n),
        team_(team),
        mm_(team, n),
        scratch_(scratch) {}

  static int64_t forward_scratch(int64_t n, int64_t substeps) { return power_count(later_digits(substeps)) * n * n; }
  static int64_t gradient_scratch(int64_t n, int64_t substeps) {
    return (power_count(later_digits(substeps)) + 3) * n * n;
  }

  void forward(const T* Q, const T* delta, T dt, T* M) {
    const int64_t count = power_count(digits_);
    if (count == 1) {
      first_power(Q, delta, dt, M);
      return;
    }
    first_power(Q, delta, dt, buffer(0));
    raise(count, M);
  }

  // grad_Q from that of M = M1^k, and grad_log_e_i = e_i dL/de_i = sum_j grad_M1_ij M1_ij + grad_M1_ji M1_ji.
  void gradient(const T* G, const T* Q, const T* M, const T* delta, T dt, T* grad_Q, T* grad_log_e) {
    const int64_t count = power_count(digits_);
    exponentiate(delta, dt);
    const T* M1 = M;
    if (count > 1) {
      M1 = buffer(0);
      first_power(Q, delta, dt, buffer(0));
      raise(count - 1, nullptr);
      G = through_powers(G, count);
    }
    team_.alone([&] { kernels_.row_and_column_sums(G, M1, n_, grad_log_e); });
    scale(G, grad_Q);
  }

 private:
  T* buffer(int64_t k) const { return scratch_ + k * nn_; }

  void exponentiate(const T* delta, T dt) {
    const T quarter = dt / T(substeps_) / 4;
    for (int64_t i = 0; i < n_; ++i) e_[i] = std::exp(-quarter * delta[i]);
  }
  void scale(const T* X, T* out) {
    team_.split(n_, [&](int64_t begin, int64_t end) { kernels_.scale(X, e_.data(), n_, begin, end, out); });
  }
  void first_power(const T* Q, const T* delta, T dt, T* M1) {
    exponentiate(delta, dt);
    scale(Q, M1);
  }

  // The first `count` powers into the scratch, the last of all into M if that is given.
  void raise(int64_t count, T* M) {
    int64_t made = 1;
    const auto multiply = [&](typename Products<T>::Factor factor) {
      if (made >= count) return;
      mm_.set(M && made + 1 == count ? M : buffer(made), {buffer(made - 1)}, factor);
      ++made;
    };
    for (const bool one : digits_) {
      multiply({buffer(made - 1)});
      if (one) multiply({buffer(0)});
    }
  }

  // P = X X gives X the gradient G X^T + X^T G; P = X M1 gives X the gradient G M1^T and M1 the gradient X^T G.
  const T* through_powers(const T* G, int64_t count) {
    T *grad_M1 = buffer(count), *const spare[2] = {buffer(count + 1), buffer(count + 2)};
    team_.split(nn_, [&](int64_t begin, int64_t end) { std::fill(grad_M1 + begin, grad_M1 + end, T(0)); });
    int turn = 0;
    int64_t next = count - 2;
    for (auto one = digits_.rbegin(); one != digits_.rend(); ++one) {
      if (*one) {
        T* grad_X = spare[turn ^= 1];
        mm_.add(grad_M1, {buffer(next--), true}, {G});
        mm_.set(grad_X, {G}, {buffer(0), true});
        G = grad_X;
      }
      const T* X = buffer(next--);
      T* grad_X = spare[turn ^= 1];
      mm_.set(grad_X, {G}, {X, true});
      mm_.add(grad_X, {X, true}, {G});
      G = grad_X;
    }
    team_.split(nn_, [&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; ++j) grad_M1[j] += G[j];
    });
    return grad_M1;
  }

  int64_t n_, nn_, substeps_;
  std::vector<bool> digits_;
  std::vector<T> e_;
  const StrangStepKernels<T>& kernels_ = IsaTable<StrangStepKernels<T>>::active();
  const Team& team_;
  Products<T> mm_;
  T* scratch_;
};

template <class T>
std::vector<T> divided(const T* dt, int64_t K, int64_t substeps) {
  std::vector<T> step(dt, dt + K);
  for (T& x : step) x /= T(substeps);
  return step;
}

}  // namespace

template <class T>
void strang_steps(const T* S, const T* delta, const T* dt, int64_t substeps, int64_t K, int64_t n, T* M, T* Q,
                  T* saved) {
  const std::vector<T> step = divided(dt, K, substeps);
  skew_expm_forward(S, step.data(), 1, K, n, Q, saved);
  double largest = 0;
  for (int64_t j = 0; j < K * n; ++j) largest = std::max(largest, -double(step[j / n]) / 4 * double(delta[j]));
  check_scales<T>(largest);
  const int64_t count = StrangStep<T>::forward_scratch(n, substeps);
  for_batch<T>(K, n, count, [&](const Team& team, int64_t begin, int64_t end, T* scratch) {
    StrangStep<T> strang(team, n, substeps, scratch);
    for (int64_t k = begin; k < end && !team.may_leave(); ++k)
      strang.forward(Q + k * n * n, delta + k * n, dt[k], M + k * n * n);
  });
}

template <class T>
void strang_steps_gradient(const T* grad_M, const T* S, const T* delta, const T* dt, const T* M, const T* Q,
                           const T* saved, int64_t substeps, int64_t K, int64_t n, bool with_S, T* grad_S,
                           T* grad_delta, T* grad_dt) {
  const std::vector<T> step = divided(dt, K, substeps);
  const int64_t count = StrangStep<T>::gradient_scratch(n, substeps);
  for_batch<T>(K, n, count, [&](const Team& team, int64_t begin, int64_t end, T* scratch) {
    StrangStep<T> strang(team, n, substeps, scratch);
    for (int64_t k = begin; k < end && !team.may_leave(); ++k) {
      const int64_t at = k * n * n;
      strang.gradient(grad_M + at, Q + at, M + at, delta + k * n, dt[k], grad_S + at, grad_delta + k * n);
    }
  });
  if (with_S || grad_dt) skew_expm_gradient(grad_S, S, step.data(), 1, saved, K, n, grad_S, grad_dt);
  for (int64_t k = 0; k < K; ++k) {
    T* row = grad_delta + k * n;
    if (grad_dt) {
      T sum = 0;
      for (int64_t j = 0; j < n; ++j) sum += row[j] * delta[k * n + j];
      grad_dt[k] = (grad_dt[k] - sum / 4) / T(substeps);
    }
    for (int64_t j = 0; j < n; ++j) row[j] *= -step[k] / 4;
  }
}

template void strang_steps(const float*, const float*, const float*, int64_t, int64_t, int64_t, float*, float*, float*);
template void strang_steps(const double*, const double*, const double*, int64_t, int64_t, int64_t, double*, double*,
                           double*);
template void strang_steps_gradient(const float*, const float*, const float*, const float*, const float*, const float*,
                                    const float*, int64_t, int64_t, int64_t, bool, float*, float*, float*);
template void strang_steps_gradient(const double*, const double*, const double*, const double*, const double*,
                                    const double*, const double*, int64_t, int64_t, int64_t, bool, double*, double*,
                                    double*);

namespace {

std::tuple<Tensor, Tensor, Tensor> strang_step(const Tensor& S_, const Tensor& delta_, const Tensor& dt_,
                                               int64_t substeps) {
  require(substeps >= 1, "substeps must be at least 1, got ", substeps);
  const Tensor S = packed(S_), delta = packed(delta_), dt = packed(dt_);
  const int64_t K = S.size(0), n = S.size(1);
  return dispatch_real(S, [&](auto zero) {
    using T = decltype(zero);
    check_finite<T>("delta", delta);
    Tensor M = empty_tensor(S, {K, n, n}), Q = empty_tensor(S, {K, n, n});
    Tensor saved = empty_tensor(S, {K, saved_matrices<T>(n), n, n});
    strang_steps<T>(S.const_data_ptr<T>(), delta.const_data_ptr<T>(), dt.const_data_ptr<T>(), substeps, K, n,
                    M.mutable_data_ptr<T>(), Q.mutable_data_ptr<T>(), saved.mutable_data_ptr<T>());
    return std::tuple(M, Q, saved);
  });
}

std::tuple<Tensor, Tensor, Tensor> strang_step_backward(const Tensor& grad_M_, const Tensor& S_, const Tensor& delta_,
                                                        const Tensor& dt_, const Tensor& M_, const Tensor& Q_,
                                                        const Tensor& saved_, int64_t substeps, int64_t needs) {
  const Tensor grad_M = packed(grad_M_), S = packed(S_), delta = packed(delta_), dt = packed(dt_), Q = packed(Q_),
               M = packed(M_), saved = packed(saved_);
  const int64_t K = S.size(0), n = S.size(1);
  const NeededGradients needed(M, needs);
  Tensor grad_S = empty_tensor(M, {K, n, n}), grad_delta = empty_tensor(M, {K, n});
  Tensor grad_dt = needed.empty(grad_dt_bit, {K});
  dispatch_real(S, [&](auto zero) {
    using T = decltype(zero);
    strang_steps_gradient<T>(
        grad_M.const_data_ptr<T>(), S.const_data_ptr<T>(), delta.const_data_ptr<T>(), dt.const_data_ptr<T>(),
        M.const_data_ptr<T>(), Q.const_data_ptr<T>(), saved.const_data_ptr<T>(), substeps, K, n, needed(grad_S_bit),
        grad_S.mutable_data_ptr<T>(), grad_delta.mutable_data_ptr<T>(), needed.data<T>(grad_dt_bit, grad_dt));
    return 0;
  });
  return {needed.of(grad_S_bit, grad_S), needed.of(grad_delta_bit, grad_delta), grad_dt};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, CPU, m) {
  m.impl("strang_step", TORCH_BOX(&strang_step));
  m.impl("strang_step_backward", TORCH_BOX(&strang_step_backward));
}

}  // namespace vfrnn
