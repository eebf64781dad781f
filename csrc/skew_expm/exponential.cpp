// The exponential and its gradient on the CPU. With A = dt (S - S^T)/2 and h = 2^-s, everything is a polynomial of the
// unscaled powers of A:
//   W = h^r sum_i shape_i h^(r-i) A^(r-i),   Y = A^r W,
//   Q0 = (Y + sum_j p_j h^j A^j) (al Y + sum_j q_j h^j A^j) + e Y + sum_j f_j h^j A^j,   then s squarings.
// The powers of h are exact, so that scaling costs no pass; the powers of A give the bound that s needs.
#include "skew_expm/exponential.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "common/isa.h"
#include "common/parallel.h"
#include "common/square_matrices.h"
#include "common/tensors.h"
#include "skew_expm/norm_bound.h"
#include "skew_expm/project.h"
#include "skew_expm/small.h"
#include "skew_expm/verdict.h"

namespace vfrnn {
namespace {

// <x, y> in a fixed order.
template <class T>
double inner(const T* x, const T* y, int64_t count) {
  double sums[8] = {};
  int64_t k = 0;
  for (; k + 8 <= count; k += 8) {
    for (int l = 0; l < 8; ++l) sums[l] += double(x[k + l]) * y[k + l];
  }
  for (; k < count; ++k) sums[0] += double(x[k]) * y[k];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// <grad_A, S>, the gradient of dt; grad_A becomes grad_S = dt grad_A. grad_A is grad_S / dt, which is no number where
// dt is 0: hence in this order.
template <class T>
T of_time(T* grad, const T* S, T dt, int64_t count) {
  const T found = T(inner(grad, S, count));
  for (int64_t j = 0; j < count; ++j) grad[j] *= dt;
  return found;
}

// exp of one matrix after the other, by one thread of a team. What the team shares is in `scratch`, and every thread
// decides from that alone, so that all decide the same.
template <class T>
class SkewExpm {
 public:
  SkewExpm(const Team& team, int64_t n, T* scratch)
      : n_(n),
        nn_(n * n),
        kernels_(IsaTable<SkewExpmKernels<T>>::active()),
        team_(team),
        mm_(team, n),
        scratch_(scratch),
        bound_(team, n, buffer(3)) {}

  static int64_t forward_scratch(int64_t n) { return 3 * n * n + std::max(6 * n, 3 * pair_tiles(n)); }
  // The squared matrices that are not saved are made again.
  static int64_t gradient_scratch(int64_t n, int64_t most_squarings) {
    return (9 + std::max<int64_t>(0, most_squarings - saved_levels)) * n * n;
  }

  Verdict<T> forward(const T* S, T dt, T* Q, T* saved) {
    T *A = buffer(0), *left = buffer(1), *right = buffer(2);
    const Verdict<T> verdict = scaled_skew_part(S, dt, A);
    if (verdict.what != Verdict<T>::fine) return verdict;
    const T* powers[4] = {A, power(saved, 2), power(saved, 3), power(saved, 4)};
    mm_.set(power(saved, 2), {A}, {A});
    mm_.set(power(saved, 3), {A}, {powers[1]});
    if (c.r == 4) mm_.set(power(saved, 4), {powers[1]}, {powers[1]});

    double bound = bound_.of_powers(powers);
    if (!(bound <= std::ldexp(c.theta, max_squarings))) return verdict_of(S, dt, n_);
    // A squaring costs three products in all, and A^4 lowers the bound by about a tenth.
    if (c.r == 3 && squarings<T>(bound) > polish_from && squarings<T>(bound / 1.12) < squarings<T>(bound)) {
      mm_.set(left, {powers[1]}, {powers[1]});
      bound = std::min(bound, bound_.with_fourth_power(left));
    }
    const int s = squarings<T>(bound);

    T *W = left, *Y = matrix_Y(saved);
    T coefficients[4 * 5];
    for (int j = 0; j < c.r; ++j) coefficients[j] = shape(j, s);
    combine(c.r, 1, powers, coefficients, &W);
    mm_.set(Y, {powers[c.r - 1]}, {W});

    T* Q0 = s == 0 ? Q : level(saved, 0);
    const T* in[5] = {Y, powers[0], powers[1], powers[2], powers[3]};
    T* out[3] = {left, right, Q0};
    factors(s, coefficients);
    combine(c.r + 1, 3, in, coefficients, out, [&](int64_t begin, int64_t end) {
      add_to_diagonal(Q0, T(c.f[0]), begin, end);
      std::fill(saved + begin * n_, saved + end * n_, T(0));
      if (begin == 0) saved[0] = T(s);
    });
    mm_.add(Q0, {left}, {right});
    square(Q0, s, Q, saved);
    return verdict;
  }

  // grad_A is left in grad_S, unscaled by dt, when grad_dt is asked for: the caller takes <grad_A, S> and scales.
  void gradient(const T* G, const T* S, T dt, const T* saved, T* grad_S, T scale) {
    T *A = buffer(0), *left = buffer(3), *right = buffer(4), *W = buffer(5), *grad_left = buffer(6),
      *grad_right = buffer(7);
    project(A, S, dt / 2, -1);
    const T* powers[4] = {A, power(saved, 2), power(saved, 3), power(saved, 4)};
    const int s = int(saved[0]);
    G = through_squarings(G, s, saved);

    const T* in[5] = {matrix_Y(saved), powers[0], powers[1], powers[2], powers[3]};
    T coefficients[4 * 5];
    factors(s, coefficients);
    coefficients[2 * (c.r + 1)] = 0;
    for (int j = 0; j < c.r; ++j) coefficients[2 * (c.r + 1) + 1 + j] = shape(j, s);
    T* out[4] = {left, right, W};
    combine(c.r + 1, 3, in, coefficients, out);
    mm_.set(grad_left, {G}, {right, true});
    mm_.set(grad_right, {left, true}, {G});

    T *grad_Y = left, *grad_W = right;
    const T* grads[4] = {grad_left, grad_right, G, grad_W};
    const T of_Y[3] = {1, T(c.al), T(c.e)};
    combine(3, 1, grads, of_Y, &grad_Y);
    mm_.set(grad_W, {powers[c.r - 1], true}, {grad_Y});

    // The gradients of A, A^2, ..., each as if the powers were independent, then down to A: A^4 = A^2 A^2, A^3 = A A^2,
    // A^2 = A A, with those of A^3 projected on the skew-symmetric and of A^2, A^4 on the symmetric matrices.
    T *grad_1 = grad_left, *grad_2 = grad_right, *grad_3 = grad_W, *grad_4 = buffer(8);
    T* grad_powers[4] = {grad_1, grad_2, grad_3, grad_4};
    for (int j = 0; j < c.r; ++j) {
      const double h = std::ldexp(1.0, -s * (j + 1));
      const T row[4] = {T(c.p[j] * h), T(c.q[j] * h), T(c.f[j + 1] * h), shape(j, s)};
      std::copy(row, row + 4, coefficients + 4 * j);
    }
    combine(4, c.r, grads, coefficients, grad_powers);
    mm_.add(grad_powers[c.r - 1], {grad_Y}, {W, true});
    if (c.r == 4) {
      project(grad_4, grad_4, 1, 1);
      mm_.add(grad_2, {powers[1]}, {grad_4});
    }
    project(grad_3, grad_3, T(0.5), -1);
    mm_.add(grad_2, {A, true}, {grad_3});
    mm_.add(grad_1, {grad_3}, {powers[1]});
    project(grad_2, grad_2, 1, 1);
    mm_.add(grad_1, {A, true}, {grad_2});
    project(grad_S, grad_1, scale / 2, -1);
  }

 private:
  static constexpr const SkewExpmScheme& c = skew_expm_scheme<T>;

  T* buffer(int64_t k) const { return scratch_ + k * nn_; }
  // The layout of `saved` (saved_matrices): plan, A^2 .. A^r, Y, the first levels.
  template <class P>
  P* power(P* saved, int j) const {
    return saved + (j - 1) * nn_;
  }
  template <class P>
  P* matrix_Y(P* saved) const {
    return saved + c.r * nn_;
  }
  template <class P>
  P* level(P* saved, int k) const {
    return saved + (c.r + 1 + k) * nn_;
  }

  // The coefficient of A^(j+1) in W.
  static T shape(int j, int s) { return T(std::ldexp(c.shape[c.r - 1 - j], -s * (j + 1 + c.r))); }
  // Rows of the coefficients of (Y, A, ..., A^r) in left, right and Q0.
  static void factors(int s, T* coefficients) {
    const double* rows[3] = {c.p, c.q, c.f + 1};
    const double of_Y[3] = {1, c.al, c.e};
    for (int o = 0; o < 3; ++o) {
      *coefficients++ = T(of_Y[o]);
      for (int j = 0; j < c.r; ++j) *coefficients++ = T(std::ldexp(rows[o][j], -s * (j + 1)));
    }
  }

  Verdict<T> scaled_skew_part(const T* S, T dt, T* A) {
    const int64_t tiles = pair_tiles(n_);
    T* const found = buffer(3);
    const SkewFindings<T> rows{found, found + tiles, found + 2 * tiles};
    team_.split(tiles,
                [&](int64_t begin, int64_t end) { kernels_.checked_skew_part(A, S, dt / 2, n_, begin, end, rows); });
    T large = 0, wrong = 0, nan = 0;
    for (int64_t t = 0; t < tiles; ++t) {
      large = std::max(large, rows.largest[t]), wrong = std::max(wrong, rows.defect[t]), nan += rows.finite[t];
    }
    return verdict_of(large, wrong, nan == 0, dt);
  }

  // Q = Q0^(2^s), with a Newton-Schulz step Q + Q (I - Q^T Q)/2 at the end of two or more squarings.
  void square(T* Q0, int s, T* Q, T* saved) {
    const bool polish = s >= polish_from;
    T* X = Q0;
    for (int k = 1; k <= s; ++k) {
      T* next = k < s ? (k < saved_levels ? level(saved, k) : buffer(k % 2)) : polish ? buffer(k % 2) : Q;
      mm_.set(next, {X}, {X});
      X = next;
    }
    if (!polish) return;
    T* drift = buffer(2);
    mm_.set(drift, {X, true}, {X});
    const T minus_half = T(-0.5);
    const T* in = drift;
    combine(1, 1, &in, &minus_half, &drift, [&](int64_t begin, int64_t end) {
      add_to_diagonal(drift, T(0.5), begin, end);
      std::copy(X + begin * n_, X + end * n_, Q + begin * n_);
    });
    mm_.add(Q, {X}, {drift});
  }

  // Gradient of Q0 from that of Q = Q0^(2^s): G <- G X^T + X^T G for the squared matrices X, last to first.
  const T* through_squarings(const T* G, int s, const T* saved) {
    const T* X[max_squarings];
    for (int k = 0; k < s; ++k) {
      if (k < saved_levels) {
        X[k] = level(saved, k);
        continue;
      }
      T* made = buffer(9 + k - saved_levels);
      mm_.set(made, {X[k - 1]}, {X[k - 1]});
      X[k] = made;
    }
    for (int k = s - 1; k >= 0; --k) {
      T* next = buffer(1 + k % 2);
      mm_.set(next, {G}, {X[k], true});
      mm_.add(next, {X[k], true}, {G});
      G = next;
    }
    return G;
  }

  // The kernel of that name, then more(begin, end) on the same rows.
  template <class F>
  void combine(int inputs, int outputs, const T* const* in, const T* coefficients, T* const* out, const F& more) {
    team_.split(n_, [&](int64_t begin, int64_t end) {
      kernels_.combine(inputs, outputs, in, coefficients, out, begin * n_, end * n_);
      more(begin, end);
    });
  }
  void combine(int inputs, int outputs, const T* const* in, const T* coefficients, T* const* out) {
    combine(inputs, outputs, in, coefficients, out, [](int64_t, int64_t) {});
  }
  void add_to_diagonal(T* X, T value, int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; ++i) X[i * n_ + i] += value;
  }
  void project(T* out, const T* x, T scale, T sign) { vfrnn::project<T>(team_, out, x, nullptr, scale, sign, n_); }

  int64_t n_, nn_;
  const SkewExpmKernels<T>& kernels_;
  const Team& team_;
  Products<T> mm_;
  T* scratch_;
  NormBound<T> bound_;
};

// Matrices of a thread's part that are worth handing it over.
int64_t small_grain(int64_t n) {
  return 16 * (1 + (int64_t(1) << 13) / (n * n * n));
}

template <class T>
void small_forward(const SmallGenerators<T>& of, int64_t K, T* Q) {
  const SmallExpmKernels<T>& kernels = IsaTable<SmallExpmKernels<T>>::active();
  std::atomic<int64_t> refused{K};
  parallel_for(0, K, small_grain(of.n), [&](int64_t begin, int64_t end) {
    const Scratch<T> scratch(kernels.scratch(of.n));
    const int64_t first = kernels.forward(of, begin, end, Q, scratch.get());
    int64_t seen = refused;
    while (first < end && first < seen && !refused.compare_exchange_weak(seen, first)) {
    }
  });
  const int64_t k = refused;
  if (k < K) raise(verdict_of(of.S + k * of.n * of.n, of.dt[k * of.dt_stride], of.n));
}

template <class T>
void small_gradient(const SmallGenerators<T>& of, const T* grad_Q, int64_t K, T* grad_S, T* grad_dt) {
  const SmallExpmKernels<T>& kernels = IsaTable<SmallExpmKernels<T>>::active();
  const int64_t nn = of.n * of.n;
  parallel_for(0, K, small_grain(of.n), [&](int64_t begin, int64_t end) {
    const Scratch<T> scratch(kernels.scratch(of.n));
    kernels.gradient(of, grad_Q, grad_dt == nullptr, begin, end, grad_S, scratch.get());
    if (!grad_dt) return;
    for (int64_t k = begin; k < end; ++k) {
      grad_dt[k] = of_time(grad_S + k * nn, of.S + k * nn, of.dt[k * of.dt_stride], nn);
    }
  });
}

}  // namespace

template <class T>
void skew_expm_forward(const T* S, const T* dt, int64_t dt_stride, int64_t K, int64_t n, T* Q, T* saved) {
  if (n <= small_size) return small_forward<T>({S, dt, dt_stride, n}, K, Q);
  const int64_t nn = n * n, stride = nn * saved_matrices<T>(n);
  std::vector<Verdict<T>> verdicts(K);
  for_batch<T>(K, n, SkewExpm<T>::forward_scratch(n), [&](const Team& team, int64_t begin, int64_t end, T* scratch) {
    SkewExpm<T> expm(team, n, scratch);
    for (int64_t k = begin; k < end && !team.may_leave(); ++k) {
      const Verdict<T> verdict = expm.forward(S + k * nn, dt[k * dt_stride], Q + k * nn, saved + k * stride);
      team.alone([&] { verdicts[k] = verdict; });
    }
  });
  for (const auto& verdict : verdicts) raise(verdict);
}

template <class T>
void skew_expm_gradient(const T* grad_Q, const T* S, const T* dt, int64_t dt_stride, const T* saved, int64_t K,
                        int64_t n, T* grad_S, T* grad_dt) {
  if (n <= small_size) return small_gradient<T>({S, dt, dt_stride, n}, grad_Q, K, grad_S, grad_dt);
  const int64_t nn = n * n, stride = nn * saved_matrices<T>(n);
  T most = 0;
  for (int64_t k = 0; k < K; ++k) {
    const T s = saved[k * stride];
    require(s >= 0 && s <= max_squarings, "saved must be what skew_expm returned, but it asks for ", s, " squarings");
    most = std::max(most, s);
  }
  const int64_t count = SkewExpm<T>::gradient_scratch(n, int64_t(most));
  for_batch<T>(K, n, count, [&](const Team& team, int64_t begin, int64_t end, T* scratch) {
    SkewExpm<T> expm(team, n, scratch);
    for (int64_t k = begin; k < end && !team.may_leave(); ++k) {
      T* gradient = grad_S + k * nn;
      const T* Sk = S + k * nn;
      const T time = dt[k * dt_stride];
      expm.gradient(grad_Q + k * nn, Sk, time, saved + k * stride, gradient, grad_dt ? T(1) : time);
      if (grad_dt) team.alone([&] { grad_dt[k] = of_time(gradient, Sk, time, nn); });
    }
  });
}

template void skew_expm_forward(const float*, const float*, int64_t, int64_t, int64_t, float*, float*);
template void skew_expm_forward(const double*, const double*, int64_t, int64_t, int64_t, double*, double*);
template void skew_expm_gradient(const float*, const float*, const float*, int64_t, const float*, int64_t, int64_t,
                                 float*, float*);
template void skew_expm_gradient(const double*, const double*, const double*, int64_t, const double*, int64_t, int64_t,
                                 double*, double*);

}  // namespace vfrnn
