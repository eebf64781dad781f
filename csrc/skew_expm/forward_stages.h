// The stages of the exponential, one tile each (device.h).
#pragma once

#include "skew_expm/device.h"

namespace vfrnn {

// One matrix of a forward problem. Scratch: two matrices, M1 where there are several substeps, and the norms of X2.
struct ForwardMatrix {
  const float *S, *delta;
  float dt;
  float *Q, *M, *saved, *scratch, *norms;
  int n, s;
  VFRNN_DEVICE float* slot(int k) const { return saved + int64_t(k) * n * n; }
  VFRNN_DEVICE float* spare(int k) const { return scratch + int64_t(k) * n * n; }
  // Q after `level` squarings: saved while there is a slot and it will be squared, else in a spare matrix, such that
  // the last is in number 0.
  VFRNN_DEVICE float* level(int k) const {
    return k == 0 || (k < s && k < saved_levels) ? slot(slot_Q + k) : spare((s - k) & 1);
  }
};
constexpr int forward_spares = 3, spare_M1 = 2;
VFRNN_HOST_DEVICE int64_t forward_stride(int n) {
  return forward_spares * int64_t(n) * n + 2 * int64_t(tiles_of(n)) * n;
}
// With several substeps M is the first one's, in a spare matrix.
VFRNN_DEVICE ForwardMatrix matrix_of(const ExponentialForward& problem, int64_t k) {
  const int n = problem.n;
  const int64_t area = int64_t(n) * n;
  float* const scratch = problem.scratch + k * forward_stride(n);
  float* const M = problem.M == nullptr ? nullptr : problem.M + k * area;
  return {problem.S + k * area,
          problem.delta == nullptr ? nullptr : problem.delta + k * n,
          problem.dt[k] / float(problem.substeps),
          problem.Q + k * area,
          M != nullptr && problem.substeps > 1 ? scratch + spare_M1 * area : M,
          problem.saved + k * saved_slots * area,
          scratch,
          scratch + forward_spares * area,
          n,
          0};
}

VFRNN_DEVICE void generator_entries(const ForwardMatrix& m, int64_t first, int64_t stride) {
  for (int64_t index = first; index < int64_t(m.n) * m.n; index += stride) {
    const int64_t row = index / m.n, column = index % m.n;
    m.slot(slot_A)[index] = m.dt * (0.5f * (m.S[index] - m.S[column * m.n + row]));
  }
}

// The result of the exponential: Q, and where one substep is all, M = diag(e) Q diag(e).
VFRNN_DEVICE void store_exponential(const ForwardMatrix& m, int row, int column, float value) {
  const int64_t at = int64_t(row) * m.n + column;
  m.Q[at] = value;
  if (m.M != nullptr) m.M[at] = half_step(m.delta, m.dt, row) * value * half_step(m.delta, m.dt, column);
}

enum class Forward { square, fourth, even, odd, squaring, drift, polish };

template <class T>
VFRNN_DEVICE void run_stage(Forward stage, const ForwardMatrix& m, const Place& p, int level) {
  const float* const A = m.slot(slot_A);
  float *const X = m.slot(slot_X), *const X2 = m.slot(slot_X2), *const K = m.slot(slot_K), *const Q0 = m.level(0);
  const float scale = power_of_half(m.s), to_X = scale * scale, to_X2 = to_X * to_X;
  const auto at = [&](const float* x, int row, int column) { return x[int64_t(row) * m.n + column]; };
  Sums<T> sums;
  const auto add = [&](const Operand& a, const Operand& b) {
    add_product<T>(sums, a, b, p.first_row, p.first_column, m.n);
  };
  switch (stage) {
    case Forward::square:  // A A = -A A^T
      add(plain(A, -1.f), plain(A));
      store_symmetric<T>(X, p, shared_result<T>(sums));
      break;
    case Forward::fourth: {
      add(plain(X), plain(X));
      const Result<T> value = shared_result<T>(sums);
      store_symmetric<T>(X2, p, value);
      store_row_sums<T>(m.norms, p, value);
      break;
    }
    case Forward::even: {  // Y = X2 (X2 + a X) with X, X2 of P = 2^-s A
      add(plain(X2, to_X2), sum_of(X2, to_X2, X, e4::a * to_X));
      const Result<T> Y = shared_result<T>(sums);
      const auto polynomial = [&](int row, int column, float y, float c1, float c2, float c4) {
        return (row == column ? 1.f : 0.f) +
               (to_X * at(X, row, column) * c1 + to_X2 * at(X2, row, column) * c2 + y * c4);
      };
      const auto store = [&](int row, int column, int r, int c) {
        K[int64_t(row) * m.n + column] = polynomial(row, column, Y(r, c), e4::k1, e4::k2, e4::k4);
        Q0[int64_t(row) * m.n + column] = polynomial(row, column, Y(r, c), e4::c1, e4::c2, e4::c4);
      };
      for_entries<T>(p, store);
      for_mirrored<T>(p, store);
      break;
    }
    case Forward::odd: {  // Q0 = C + P K, where C is; P K is skew
      add(plain(A, scale), plain(K));
      const Result<T> value = shared_result<T>(sums);
      const auto store = [&](int row, int column, float odd) {
        const float q = Q0[int64_t(row) * m.n + column] + odd;
        Q0[int64_t(row) * m.n + column] = q;
        if (m.s <= 0) store_exponential(m, row, column, q);
      };
      for_entries<T>(p, [&](int row, int column, int r, int c) {
        store(row, column, p.mirrored ? value(r, c) : 0.5f * (value(r, c) - value(c, r)));
      });
      for_mirrored<T>(p, [&](int row, int column, int r, int c) { store(row, column, -value(r, c)); });
      break;
    }
    case Forward::squaring: {
      add(plain(m.level(level)), transpose_of(m.level(level)));
      const Result<T> value = shared_result<T>(sums);
      if (level + 1 == m.s && m.s < polished_from) {
        for_entries<T>(p, [&](int row, int column, int r, int c) { store_exponential(m, row, column, value(r, c)); });
      } else {
        store_plain<T>(m.level(level + 1), p, value);
      }
      break;
    }
    case Forward::drift: {  // (I - Q^T Q) / 2
      add(transpose_of(m.spare(0)), transpose_of(m.spare(0)));
      const Result<T> value = shared_result<T>(sums);
      const auto store = [&](int row, int column, int r, int c) {
        m.spare(1)[int64_t(row) * m.n + column] = 0.5f * ((row == column ? 1.f : 0.f) - value(r, c));
      };
      for_entries<T>(p, store);
      for_mirrored<T>(p, store);
      break;
    }
    case Forward::polish: {
      add(plain(m.spare(0)), plain(m.spare(1)));
      const Result<T> value = shared_result<T>(sums);
      for_entries<T>(p, [&](int row, int column, int r, int c) {
        store_exponential(m, row, column, at(m.spare(0), row, column) + value(r, c));
      });
      break;
    }
  }
}

}  // namespace vfrnn
