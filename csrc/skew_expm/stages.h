// The stages of the exponential and of its derivative, one tile each (device.h).
#pragma once

#include "skew_expm/device.h"

namespace vfrnn {

// One matrix of a forward problem. Scratch: two matrices, M1 where there are several substeps, and the norms of X2.
struct ForwardMatrix {
  const float *S, *delta;
  float dt;
  float *Q, *M, *kept, *scratch, *norms;
  int n, s;
  VFRNN_DEVICE float* slot(int k) const { return kept + int64_t(k) * n * n; }
  VFRNN_DEVICE float* spare(int k) const { return scratch + int64_t(k) * n * n; }
  // Q after `level` squarings: kept while there is a slot and it will be squared, else in a spare matrix, such that the
  // last is in number 0.
  VFRNN_DEVICE float* level(int k) const {
    return k == 0 || (k < s && k < kept_levels) ? slot(slot_Q + k) : spare((s - k) & 1);
  }
};
constexpr int forward_spares = 3, spare_M1 = 2;
// Of the smallest tiles that a size is served with.
VFRNN_HOST_DEVICE int tiles_of(int n) {
  return (n + MiddleTiling::block - 1) / MiddleTiling::block;
}
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
          problem.kept + k * kept_slots * area,
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

// One matrix of a backward problem. Scratch: z; V, then dC, then dQ0; dX; dX2; dK; G, the gradient of Q.
struct BackwardMatrix {
  const float *S, *delta;
  float dt;
  const float *Q, *kept, *G;
  float *scratch, *grad_S, *pairings;
  int n, s;
  VFRNN_DEVICE const float* slot(int k) const { return kept + int64_t(k) * n * n; }
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
  const float* const kept = problem.kept + k * kept_slots * area;
  return {problem.S + k * area,
          problem.delta == nullptr ? nullptr : problem.delta + k * n,
          problem.dt[k] / float(problem.substeps),
          problem.Q + k * area,
          kept,
          problem.delta == nullptr ? problem.grad + k * area : scratch + spare_G * area,
          scratch,
          problem.grad_S + k * area,
          scratch + backward_spares * area,
          n,
          int(kept[slot_squarings * area])};
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
VFRNN_HOST_DEVICE int highest_digit(int k) {
  int place = 0;
  while (k >> (place + 1) != 0) ++place;
  return place;
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
