// The stages of the derivative of the exponential, one tile each (device.h).
#pragma once

#include "skew_expm/device.h"

namespace vfrnn {

// One matrix of a backward problem. Scratch: z; V, then dC, then dQ0; dX; dX2; dK; G, the gradient of Q.
struct BackwardMatrix {
  const float *S, *delta;
  float dt;
  const float *Q, *saved, *G;
  float *scratch, *grad_S, *pairings;
  int n, s;
  VFRNN_DEVICE const float* slot(int k) const { return saved + int64_t(k) * n * n; }
  VFRNN_DEVICE float* spare(int k) const { return scratch + int64_t(k) * n * n; }
};
enum BackwardSpare { spare_z, spare_V, spare_dX, spare_dX2, spare_dK, spare_G, backward_spares };

VFRNN_HOST_DEVICE int64_t backward_stride(int n) {
  return backward_spares * int64_t(n) * n + tiles_of(n) * (tiles_of(n) + 1) / 2 + n;
}
VFRNN_DEVICE BackwardMatrix matrix_of(const ExponentialBackward& problem, int64_t k) {
  const int n = problem.n;
  const int64_t area = int64_t(n) * n;
  float* const scratch = problem.scratch + k * backward_stride(n);
  const float* const saved = problem.saved + k * saved_slots * area;
  return {problem.S + k * area,
          problem.delta == nullptr ? nullptr : problem.delta + k * n,
          problem.dt[k] / float(problem.substeps),
          problem.Q + k * area,
          saved,
          problem.delta == nullptr ? problem.grad + k * area : scratch + spare_G * area,
          scratch,
          problem.grad_S + k * area,
          scratch + backward_spares * area,
          n,
          int(saved[slot_squarings * area])};
}

// The gradient of a power M1^k, with G that of M1^k, is the transpose of T_k = sum_(b < k) M1^(k-1-b) G^T M1^b; by the
// digits of k, first to last: T_2a = M1^a T_a + T_a M1^a and T_(a+1) = M1 T_a + G^T M1^a. Where its matrices are, and
// what it starts from: M1 and G^T.
constexpr int spare_first = spare_dK;
VFRNN_HOST_DEVICE int spare_power(int k) {
  return k == 0 ? spare_V : spare_z;
}
VFRNN_HOST_DEVICE int spare_total(int k) {
  return k == 0 ? spare_dX : spare_dX2;
}
VFRNN_DEVICE void power_entries(const BackwardMatrix& m, const float* grad, int64_t first, int64_t stride) {
  for (int64_t at = first; at < int64_t(m.n) * m.n; at += stride) {
    const int row = int(at / m.n), column = int(at % m.n);
    m.spare(spare_first)[at] = half_step(m.delta, m.dt, row) * m.Q[at] * half_step(m.delta, m.dt, column);
    m.grad_S[at] = grad[int64_t(column) * m.n + row];  // which is written last of all
  }
}
enum class Backward { cotangent, again, turn, turn_back, square, fourth, even, odd, gradient };

// All maps are functions of the commutator with A and commute: the squarings are taken first to last, so that those
// without a slot are made again on the way. x: the matrix that a stage of a squaring is about; `again`: root of x.
template <class T>
VFRNN_DEVICE void run_stage(Backward stage, const BackwardMatrix& m, const Place& p, float* x, const float* root) {
  const float *const A = m.slot(slot_A), *const X = m.slot(slot_X), *const X2 = m.slot(slot_X2),
                     *const K = m.slot(slot_K), *const Q0 = m.slot(slot_Q);
  float *const z = m.spare(spare_z), *const V = m.spare(spare_V), *const dX = m.spare(spare_dX),
               *const dX2 = m.spare(spare_dX2), *const dK = m.spare(spare_dK);
  const float scale = power_of_half(m.s), to_X = scale * scale, to_X2 = to_X * to_X;
  const auto at = [&](const float* a, int row, int column) { return a[int64_t(row) * m.n + column]; };
  Sums<T> sums;
  const auto add = [&](const Operand& a, const Operand& b) {
    add_product<T>(sums, a, b, p.first_row, p.first_column, m.n);
  };
  // Of M + M^T a tile on the diagonal needs M alone.
  const auto symmetric_sum = [&](float* to) {
    const Result<T> value = shared_result<T>(sums);
    const auto store = [&](int row, int column, int r, int c) {
      to[int64_t(row) * m.n + column] = p.mirrored ? value(r, c) : value(r, c) + value(c, r);
    };
    for_entries<T>(p, store);
    for_mirrored<T>(p, store);
  };
  switch (stage) {
    case Backward::cotangent: {  // z = (Q^T G - G^T Q) / 2, and <z, S>: a tile off the diagonal counts twice
      add(transpose_of(m.Q, p.mirrored ? 0.5f : 1.f), transpose_of(m.G));
      if (p.mirrored) add(transpose_of(m.G, -0.5f), transpose_of(m.Q));
      const Result<T> value = shared_result<T>(sums);
      store_skew<T>(z, p, value, 1.f, false);
      float pairs = 0.f;
      for_entries<T>(p, [&](int row, int column, int r, int c) {
        const float skew = p.mirrored ? value(r, c) : 0.5f * (value(r, c) - value(c, r));
        pairs += skew * (0.5f * (at(m.S, row, column) - at(m.S, column, row)));
      });
      pairs = over_block<T::threads, false>(pairs);
      const int i = p.first_row / T::block, j = p.first_column / T::block;
      if (threadIdx.x == 0) m.pairings[j * (j + 1) / 2 + i] = p.mirrored ? 2.f * pairs : pairs;
      break;
    }
    case Backward::again:
      add(plain(root), transpose_of(root));
      store_plain<T>(x, p, shared_result<T>(sums));
      break;
    case Backward::turn:  // X z = -X z^T
      add(plain(x, -1.f), plain(z));
      store_plain<T>(V, p, shared_result<T>(sums));
      break;
    case Backward::turn_back:  // z += (X z) X^T
      add(plain(V), plain(x));
      store_skew<T>(z, p, shared_result<T>(sums), 1.f, true);
      break;
    case Backward::square:  // P z + z P = M + M^T, M = P z = -P z^T
      add(plain(A, -scale), plain(z));
      if (p.mirrored) add(plain(z, -scale), plain(A));
      symmetric_sum(dX);
      break;
    case Backward::fourth:  // X dX + dX X
      add(plain(X, to_X), plain(dX));
      if (p.mirrored) add(plain(dX, to_X), plain(X));
      symmetric_sum(dX2);
      break;
    case Backward::even: {  // dY = dX2 (X2 + a X) + X2 (dX2 + a dX)
      add(plain(dX2), sum_of(X2, to_X2, X, e4::a * to_X));
      add(plain(X2, to_X2), sum_of(dX2, 1.f, dX, e4::a));
      const Result<T> dY = shared_result<T>(sums);
      const auto store = [&](int row, int column, int r, int c) {
        const float dx = at(dX, row, column), dx2 = at(dX2, row, column), dy = dY(r, c);
        dK[int64_t(row) * m.n + column] = dx * e4::k1 + dx2 * e4::k2 + dy * e4::k4;
        V[int64_t(row) * m.n + column] = dx * e4::c1 + dx2 * e4::c2 + dy * e4::c4;
      };
      for_entries<T>(p, store);
      for_mirrored<T>(p, store);
      break;
    }
    case Backward::odd: {  // dQ0 = dC + z K + P dK, whose last two are skew together
      add(plain(z), plain(K));
      add(plain(A, scale), plain(dK));
      const Result<T> value = shared_result<T>(sums);
      for_entries<T>(p, [&](int row, int column, int r, int c) {
        V[int64_t(row) * m.n + column] += p.mirrored ? value(r, c) : 0.5f * (value(r, c) - value(c, r));
      });
      for_mirrored<T>(p, [&](int row, int column, int r, int c) { V[int64_t(row) * m.n + column] -= value(r, c); });
      break;
    }
    case Backward::gradient:  // grad_A = 2^-s dQ0 Q0^T
      add(plain(V), plain(Q0));
      store_skew<T>(m.grad_S, p, shared_result<T>(sums), m.dt * scale, false);
      break;
  }
}

// grad_delta_i = -dt c_i / 4 with c_i = sum_j (g_ij Q_ij + g_ji Q_ji) e_i e_j for the gradient g of M1 = diag(e) Q
// diag(e), by one warp; returns -c_i delta_i / 4.
VFRNN_DEVICE float scaling_gradient(const float* grad_M1, const float* Q, const float* delta, float dt, int n, int i,
                                    float* grad_delta) {
  float sum = 0.f;
  for (int j = gpu::lane(); j < n; j += 32) {
    const int64_t row = int64_t(i) * n + j, column = int64_t(j) * n + i;
    sum += (grad_M1[row] * Q[row] + grad_M1[column] * Q[column]) * half_step(delta, dt, j);
  }
  const float c = half_step(delta, dt, i) * gpu::warp_sum(sum);
  if (gpu::lane() == 0) grad_delta[i] = -0.25f * dt * c;
  return -0.25f * c * delta[i];
}

}  // namespace vfrnn
