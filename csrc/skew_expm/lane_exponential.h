// The exponential for 4 <= n <= small_size and its gradient by scaling and squaring, a matrix in each lane. The
// polynomial is that of exponential.cpp; every matrix has a number of squarings of its own.
#pragma once

#include "common/elementary.h"
#include "common/interruption.h"
#include "skew_expm/lane_matrices.h"
#include "skew_expm/small.h"

namespace vfrnn {
namespace VFRNN_ISA {

template <class T>
class LaneExponential {
 public:
  using V = Vec<T>;
  using Mask = IntVec<T>;

  // Numbers of scratch. Blocks of n = 16 would begin at the same place of a page, and evict each other from the cache:
  // a few vectors are between them.
  static int64_t scratch_size(int64_t n) { return blocks * (n * n + gap) * lanes<T>; }
  LaneExponential(const SmallGenerators<T>& of, T* scratch)
      : of_(of), n_(of.n), area_(of.n * of.n), products_(of.n), scratch_(reinterpret_cast<V*>(scratch)) {}

  // One block of up to lanes<T> matrices from number k on. Returns the first lane that cannot be served, or `count`.
  int64_t forward(int64_t k, int64_t count, T* Q) {
    const int64_t first = first_zero<T>(scaled_powers(k, count), count);
    if (first < count) return first;
    polynomial();
    V *X = block(8), *next = block(9);
    for (int level = 0; level < most_; ++level, swap(X, next)) square(X, next, level);
    if (most_ >= polish_from) {
      // A Newton-Schulz step X + X (I - X^T X) / 2 where there were two or more squarings
      V *drift = block(0), *step = block(1);
      products_.template set<Form::symmetric>(drift, {X, true}, {X});
      for (int64_t e = 0; e < area_; ++e) drift[e] *= T(-0.5);
      for (int64_t i = 0; i < n_; ++i) drift[i * (n_ + 1)] += T(0.5);
      products_.set(step, {X}, {drift});
      const Mask polished = squarings_ >= polish_from;
      for (int64_t e = 0; e < area_; ++e) X[e] = polished ? X[e] + step[e] : X[e];
    }
    write_block<T>(X, area_, count, Q + k * area_);
    return count;
  }

  // The gradient of A, or that of S, of the same block.
  void gradient(const T* grad_Q, bool of_S, int64_t k, int64_t count, T* grad) {
    scaled_powers(k, count);
    polynomial();
    const V *P = block(0), *P2 = block(1), *highest = block(c.r - 1), *W = block(4);
    const V* G = through_squarings(grad_Q, k, count);
    V *left = block(6), *right = block(7), *grad_left = block(8), *grad_right = block(9), *grad_Y = block(5),
      *grad_W = G == block(10) ? block(11) : block(10), *grad_4 = block(6);
    products_.set(grad_left, {G}, {right, true});
    products_.set(grad_right, {left, true}, {G});
    for (int64_t e = 0; e < area_; ++e) grad_Y[e] = grad_left[e] + T(c.al) * grad_right[e] + T(c.e) * G[e];
    products_.set(grad_W, {highest, true}, {grad_Y});

    // The gradients of P, P^2, ..., each as if the powers were independent, then down to P: README.md.
    V* const grads[4] = {grad_left, grad_right, grad_W, grad_4};
    for (int64_t e = 0; e < area_; ++e) {
      const V of_left = grad_left[e], of_right = grad_right[e], of_Q = G[e], of_W = grad_W[e];
#pragma GCC unroll 4
      for (int j = 0; j < c.r; ++j) {
        grads[j][e] =
            T(c.p[j]) * of_left + T(c.q[j]) * of_right + T(c.f[j + 1]) * of_Q + T(c.shape[c.r - 1 - j]) * of_W;
      }
    }
    products_.add(grads[c.r - 1], {grad_Y}, {W, true});
    if (c.r == 4) {
      project(grad_4, broadcast(T(1)), 1);
      products_.add(grads[1], {P2}, {grad_4});
    }
    project(grads[2], broadcast(T(0.5)), -1);
    products_.add(grads[1], {P, true}, {grads[2]});
    products_.add(grads[0], {grads[2]}, {P2});
    project(grads[1], broadcast(T(1)), 1);
    products_.add(grads[0], {P, true}, {grads[1]});
    project(grads[0], (of_S ? scale_ * dt_ : scale_) / 2, -1);
    write_block<T>(grads[0], area_, count, grad + k * area_);
  }

 private:
  static constexpr const SkewExpmScheme& c = skew_expm_scheme<T>;
  static constexpr int64_t blocks = 12, gap = 5;

  V* block(int64_t number) const { return scratch_ + number * (area_ + gap); }
  static void swap(V*& a, V*& b) {
    V* const kept = a;
    a = b, b = kept;
  }

  // x <- factor (x + sign x^T)
  void project(V* x, V factor, T sign) const {
    for (int64_t i = 0; i < n_; ++i) {
      x[i * (n_ + 1)] = factor * (x[i * (n_ + 1)] + sign * x[i * (n_ + 1)]);
      for (int64_t j = i + 1; j < n_; ++j) {
        const V value = factor * (x[i * n_ + j] + sign * x[j * n_ + i]);
        x[i * n_ + j] = value, x[j * n_ + i] = sign * value;
      }
    }
  }

  // Blocks 0 to r - 1: the powers of P = A / 2^s. Returns which lanes can be served.
  Mask scaled_powers(int64_t k, int64_t count) {
    V *S = block(4), *A = block(0), *square = block(1);
    read_block<T>(of_.S + k * area_, area_, count, S);
    read_lanes<T, T, 1>(of_.dt + k * of_.dt_stride, of_.dt_stride, count, &dt_);
    V large{}, wrong{}, sum{};
    for (int64_t i = 0; i < n_; ++i) {
      const V entry = S[i * (n_ + 1)];
      wrong = larger(wrong, magnitude(entry + entry)), large = larger(large, magnitude(entry));
      sum += entry * 0;  // not a number where the entry is none
      A[i * (n_ + 1)] = V{};
      for (int64_t j = i + 1; j < n_; ++j) {
        const V a = S[i * n_ + j], b = S[j * n_ + i], value = dt_ / 2 * (a - b);
        large = larger(large, larger(magnitude(a), magnitude(b))), wrong = larger(wrong, magnitude(a + b));
        A[i * n_ + j] = value, A[j * n_ + i] = -value;
      }
    }
    products_.template set<Form::symmetric>(square, {A}, {A});
    for (int64_t i = 0; i < n_; ++i) sum -= square[i * (n_ + 1)] / 2;
    V squares{};
    for (int64_t e = 0; e < area_; ++e) squares += square[e] * square[e];
    const V bound = norm_bound(sum, squares / 2);
    count_squarings(bound);
    if (most_ > 0) {
      const V second = scale_ * scale_;
      for (int64_t e = 0; e < area_; ++e) A[e] *= scale_, square[e] *= second;
    }
    products_.template set<Form::skew>(block(2), {A}, {square});
    if (c.r == 4) products_.template set<Form::symmetric>(block(3), {square}, {square});
    return (wrong <= skew_tolerance<T> * large) & (bound <= largest_norm<T>);
  }

  // The eigenvalues of A are p = floor(n / 2) pairs +-i omega and perhaps a zero; of p numbers x = omega^2 with this
  // sum and sum of squares the largest is at most this (Samuelson 1968, doi 10.1080/01621459.1968.10480943).
  V norm_bound(V sum, V squares) const {
    const T pairs = T(n_ / 2);
    const V mean = sum / pairs;
    const V slack = squares * (8 * rounding);  // of the rounding in both
    V spread = squares - sum * mean + slack;
    spread = spread > 0 ? spread : squares * 0;
    return square_root<T>(mean + square_root<T>(spread * ((pairs - 1) / pairs)));
  }

  // The least s with bound <= theta 2^s, in every lane (squarings() of norm_bound.h).
  static Mask least(V bound, double theta) {
    using Table = ExpTable<T>;
    const V ratio = bound * T(1 / theta);
    const Mask bits = (Mask)ratio, mantissa = bits & (((Mask{} + 1) << Table::mantissa_bits) - 1), none{};
    const Mask exponent = (bits >> Table::mantissa_bits) - Table::bias - (mantissa != none);
    return exponent > none ? exponent : none;
  }
  void count_squarings(V bound) {
    using Table = ExpTable<T>;
    const V most = broadcast(largest_norm<T>);
    bound = bound <= most ? bound : V{};  // refused
    const Mask few = least(bound, c.theta), many = least(bound, c.theta_polished), polished = Mask{} + polish_from;
    squarings_ = few < polished ? few : many > polished ? many : polished;
    scale_ = (V)((Table::bias - squarings_) << Table::mantissa_bits);
    most_ = 0;
    for (int l = 0; l < lanes<T>; ++l) most_ = squarings_[l] > most_ ? int(squarings_[l]) : most_;
  }

  // Block 4: W, 5: Y, 6 and 7: the factors, 8: Q0.
  void polynomial() {
    const V *P = block(0), *P2 = block(1), *P3 = block(2), *P4 = block(3);
    V *W = block(4), *Y = block(5), *left = block(6), *right = block(7), *Q0 = block(8);
    const auto combined = [&](const double* of, int64_t e) {
      const V low = T(of[0]) * P[e] + T(of[1]) * P2[e] + T(of[2]) * P3[e];
      return c.r == 4 ? low + T(of[3]) * P4[e] : low;
    };
    double shape[4] = {};
    for (int j = 0; j < c.r; ++j) shape[j] = c.shape[c.r - 1 - j];
    for (int64_t e = 0; e < area_; ++e) W[e] = combined(shape, e);
    products_.set(Y, {block(c.r - 1)}, {W});
    for (int64_t e = 0; e < area_; ++e) {
      left[e] = Y[e] + combined(c.p, e), right[e] = T(c.al) * Y[e] + combined(c.q, e);
      Q0[e] = T(c.e) * Y[e] + combined(c.f + 1, e);
    }
    for (int64_t i = 0; i < n_; ++i) Q0[i * (n_ + 1)] += T(c.f[0]);
    products_.add(Q0, {left}, {right});
  }

  // next = X X in the lanes that are squared at this level, X in the others
  void square(const V* X, V* next, int level) const {
    products_.set(next, {X}, {X});
    const Mask squared = squarings_ > Mask{} + level;
    for (int64_t e = 0; e < area_; ++e) next[e] = squared ? next[e] : X[e];
  }

  // The gradient of Q0 from that of Q0^(2^s): G <- G X^T + X^T G for the squared matrices X, which commute, so that
  // they may be taken first to last and made again on the way.
  const V* through_squarings(const T* grad_Q, int64_t k, int64_t count) {
    V *G = block(10), *next_G = block(11), *X = block(8), *next = block(9);
    read_block<T>(grad_Q + k * area_, area_, count, G);
    for (int level = 0; level < most_; ++level) {
      products_.set(next_G, {G}, {X, true});
      products_.add(next_G, {X, true}, {G});
      const Mask squared = squarings_ > Mask{} + level;
      for (int64_t e = 0; e < area_; ++e) next_G[e] = squared ? next_G[e] : G[e];
      swap(G, next_G);
      if (level + 1 < most_) square(X, next, level), swap(X, next);
    }
    return G;
  }

  static constexpr T rounding = sizeof(T) == 4 ? T(0x1p-23) : T(0x1p-52);

  const SmallGenerators<T>& of_;
  int64_t n_, area_;
  LaneProducts<T> products_;
  V* scratch_;
  V dt_, scale_;
  Mask squarings_;
  int most_;
};

template <class T>
int64_t lane_exponentials(const SmallGenerators<T>& of, int64_t begin, int64_t end, T* Q, T* scratch) {
  LaneExponential<T> exponential(of, scratch);
  StopCheck stop(20.0 * lanes<T> * double(of.n * of.n * of.n));
  for (int64_t k = begin; k < end && !stop.asked(); k += lanes<T>) {
    const int64_t count = end - k < lanes<T> ? end - k : lanes<T>;
    const int64_t first = exponential.forward(k, count, Q);
    if (first < count) return k + first;
  }
  return end;
}

template <class T>
void lane_gradients(const SmallGenerators<T>& of, const T* grad_Q, bool of_S, int64_t begin, int64_t end, T* grad,
                    T* scratch) {
  LaneExponential<T> exponential(of, scratch);
  StopCheck stop(20.0 * lanes<T> * double(of.n * of.n * of.n));
  for (int64_t k = begin; k < end && !stop.asked(); k += lanes<T>) {
    exponential.gradient(grad_Q, of_S, k, end - k < lanes<T> ? end - k : lanes<T>, grad);
  }
}

}  // namespace VFRNN_ISA
}  // namespace vfrnn
