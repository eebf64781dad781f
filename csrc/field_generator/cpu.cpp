// field_generator on the CPU: (b, w, N, G, v) -> S = B^-1/2 (H - H^T)/2 B^-1/2 with H = N^T W [v] G, delta = -B^-1 G^T
// W v. Derivation: vfrnn_kernels/field_generator/README.md.
//
// General mesh: W [v] G is contracted once into an (m, n) scratch, H is one product, and the antisymmetrisation and the
// scaling are fused in one pass over pairs of tiles. Complete mesh: a scatter and a
// row sum. Every sum is taken in a fixed order, so the same input gives the same bits for any number of threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

#include "common/matmul.h"
#include "common/mesh.h"
#include "common/scratch.h"
#include "common/tensors.h"
#include "skew_expm/products.h"

namespace vfrnn {
namespace {

enum Gradient { grad_b_bit = 0, grad_w_bit, grad_N_bit, grad_G_bit, grad_v_bit };

template <class T>
std::vector<T> inverse_square_roots(const T* b, int64_t n) {
  std::vector<T> r(n);
  for (int64_t j = 0; j < n; ++j) r[j] = T(1) / std::sqrt(b[j]);
  return r;
}

inline int64_t cells_per_task(int64_t d, int64_t n) {
  return 1 + 16384 / (d * n + 1);
}

// out_c = w_c (v.G)_c; scaled (d,) is scratch
template <class T>
void contract_cell(const T* G, const T* v, T w, int64_t d, int64_t n, T* scaled, T* out) {
  for (int64_t k = 0; k < d; ++k) scaled[k] = w * v[k];
  IsaTable<MeshKernels<T>>::active().contract(G, scaled, 0, nullptr, d, n, 1, out, 0);
}

// The lower triangle and the diagonal of a skew-symmetric matrix from its upper triangle, tile by tile: a column of
// a matrix would evict itself from the cache.
template <class T>
void mirror(T* S, int64_t n) {
  constexpr int64_t tile = 16;
  for (int64_t first_i = 0; first_i < n; first_i += tile) {
    const int64_t last_i = std::min(n, first_i + tile);
    for (int64_t first_j = first_i; first_j < n; first_j += tile) {
      const int64_t last_j = std::min(n, first_j + tile);
      for (int64_t i = first_i; i < last_i; ++i) {
        for (int64_t j = std::max(first_j, i + 1); j < last_j; ++j) S[j * n + i] = -S[i * n + j];
      }
    }
  }
  for (int64_t i = 0; i < n; ++i) S[i * n + i] = 0;
}

// out_j = -sum_c X_cj, split over columns so that every sum is taken in one order
template <class T>
void negative_column_sums(const T* X, int64_t m, int64_t n, T* out) {
  constexpr int64_t columns = 64;
  ts::parallel_for(0, (n + columns - 1) / columns, 1 + 65536 / (columns * m + 1), [&](int64_t begin, int64_t end) {
    const int64_t first = begin * columns, width = std::min(n, end * columns) - first;
    std::fill(out + first, out + first + width, T(0));
    for (int64_t c = 0; c < m; ++c)
      IsaTable<MeshKernels<T>>::active().add(out + first, T(-1), X + c * n + first, width);
  });
}

// wvG (m, n) and H (n, n) are scratch
template <class T>
void general_forward(const T* N, const T* b, const T* w, const T* G, const T* v, int64_t m, int64_t d, int64_t n,
                     T* wvG, T* H, T* S, T* delta) {
  ts::parallel_for(0, m, cells_per_task(d, n), [&](int64_t begin, int64_t end) {
    std::vector<T> scaled(d);
    for (int64_t c = begin; c < end; ++c) {
      contract_cell(G + c * d * n, v + c * d, w[c], d, n, scaled.data(), wvG + c * n);
    }
  });
  negative_column_sums(wvG, m, n, delta);
  for (int64_t j = 0; j < n; ++j) delta[j] /= b[j];
  const std::vector<T> r = inverse_square_roots(b, n);
  Team::run(Team::members_for(n * m * n), [&](const Team& team) {
    matmul<T>(team, H, {N, 1, n}, {wvG, n, 1}, n, m, n);
    project<T>(team, S, H, r.data(), T(0.5), T(-1), n);
  });
}

template <class T>
void complete_forward(const T* b, const T* w, const T* v, int64_t n, T* S, T* delta) {
  const std::vector<T> r = inverse_square_roots(b, n);
  std::fill(delta, delta + n, T(0));
  for (int64_t i = 0; i < n; ++i) {
    const int64_t cells = n - 1 - i;
    T *row = S + i * n + i + 1, *others = delta + i + 1;
    const T *rj = r.data() + i + 1, half = r[i] / 2;
    for (int64_t c = 0; c < cells; ++c) {
      const T flux = w[c] * v[c];
      row[c] = flux * (half * rj[c]);
      others[c] -= flux;
    }
    delta[i] += IsaTable<MeshKernels<T>>::active().dot(w, v, cells);
    w += cells, v += cells;
  }
  for (int64_t j = 0; j < n; ++j) delta[j] /= b[j];
  mirror(S, n);
}

std::tuple<Tensor, Tensor> field_generator(const Tensor& b_, const Tensor& w_, std::optional<Tensor> N_,
                                           std::optional<Tensor> G_, const Tensor& v_) {
  const Tensor b = packed(b_), w = packed(w_), v = packed(v_);
  const int64_t K = v.size(0), n = b.size(0), m = w.size(0), d = v.size(2);
  Tensor S = empty_tensor(v, {K, n, n}), delta = empty_tensor(v, {K, n});
  dispatch_real(v, [&](auto zero) {
    using T = decltype(zero);
    check_positive<T>("b", b);
    check_positive<T>("w", w);
    check_finite<T>("v", v);
    T *s = S.mutable_data_ptr<T>(), *div = delta.mutable_data_ptr<T>();
    const T *bp = b.const_data_ptr<T>(), *wp = w.const_data_ptr<T>(), *vp = v.const_data_ptr<T>();
    if (!N_.has_value()) {
      for (int64_t k = 0; k < K; ++k) complete_forward(bp, wp, vp + k * m, n, s + k * n * n, div + k * n);
      return 0;
    }
    const Tensor N = packed(*N_), G = packed(*G_);
    const Scratch<T> wvG(m * n), H(n * n);
    for (int64_t k = 0; k < K; ++k) {
      general_forward(N.const_data_ptr<T>(), bp, wp, G.const_data_ptr<T>(), vp + k * m * d, m, d, n, wvG.get(), H.get(),
                      s + k * n * n, div + k * n);
    }
    return 0;
  });
  return {S, delta};
}

// Backward. With R = (P - P^T)/2, P_ij = grad_S_ij / sqrt(b_i b_j) the gradient of H, q = -grad_delta / b and
// A = N R + 1 q^T the gradient of W [v] G:
//   grad_w_c = sum_j A_cj (v.G)_cj,  grad_N = W (v.G) R^T,  grad_v_ck = w_c sum_j A_cj G_ckj,  grad_G_ckj = w_c v_ck
//   A_cj, grad_b_i = -sum_j (grad_S S)_ij + (grad_S S)_ji over 2 b_i  -  grad_delta_i delta_i / b_i.
// grad_S_ij - grad_S_ji = 2 R_ij / (r_i r_j), which is read by rows
template <class T>
void add_grad_b(const T* R, const T* r, const T* grad_delta, const T* S, const T* delta, const T* b, int64_t n,
                T* grad_b) {
  std::vector<T> product(n), root(n);
  for (int64_t j = 0; j < n; ++j) root[j] = T(1) / r[j];
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) product[j] = R[i * n + j] * S[i * n + j];
    const T sum = IsaTable<MeshKernels<T>>::active().dot(product.data(), root.data(), n) * root[i];
    grad_b[i] -= (sum + grad_delta[i] * delta[i]) / b[i];
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> field_generator_backward(
    const Tensor& grad_S_, const Tensor& grad_delta_, const Tensor& b_, const Tensor& w_, std::optional<Tensor> N_,
    std::optional<Tensor> G_, const Tensor& v_, const Tensor& S, const Tensor& delta, int64_t needs) {
  const Tensor grad_S = packed(grad_S_), grad_delta = packed(grad_delta_), b = packed(b_), w = packed(w_),
               v = packed(v_), Sc = packed(S), deltac = packed(delta);
  const int64_t K = v.size(0), n = b.size(0), m = w.size(0), d = v.size(2);
  const auto needed = [&](int bit) { return wanted(needs, bit); };
  const bool general = N_.has_value();
  Tensor grad_b = zeros_tensor(v, {needed(grad_b_bit) ? n : 0}), grad_w = zeros_tensor(v, {needed(grad_w_bit) ? m : 0});
  // The first field writes grad_N and grad_G, the others add to them.
  const auto summed = [&](bool wanted, std::initializer_list<int64_t> sizes) {
    return !wanted ? empty_tensor(v, {0}) : K == 0 ? zeros_tensor(v, sizes) : empty_tensor(v, sizes);
  };
  Tensor grad_N = summed(general && needed(grad_N_bit), {m, n});
  Tensor grad_G = summed(general && needed(grad_G_bit), {m, d, n});
  Tensor grad_v = needed(grad_v_bit) ? empty_tensor(v, {K, m, d}) : empty_tensor(v, {0});
  dispatch_real(v, [&](auto zero) {
    using T = decltype(zero);
    const T *bp = b.const_data_ptr<T>(), *wp = w.const_data_ptr<T>();
    const std::vector<T> r = inverse_square_roots(bp, n);
    std::vector<T> q(n);
    const Scratch<T> R(n * n), A(general ? m * n : 0), wvG(general && needed(grad_N_bit) ? m * n : 0);
    T* Rp = R.get();
    Tensor N, G;
    if (general) N = packed(*N_), G = packed(*G_);
    const MeshKernels<T>& rows = IsaTable<MeshKernels<T>>::active();
    for (int64_t k = 0; k < K; ++k) {
      const T *gS = grad_S.const_data_ptr<T>() + k * n * n, *gd = grad_delta.const_data_ptr<T>() + k * n;
      const T* vp = v.const_data_ptr<T>() + k * m * d;
      T* gv = needed(grad_v_bit) ? grad_v.mutable_data_ptr<T>() + k * m * d : nullptr;
      T* gw = needed(grad_w_bit) ? grad_w.mutable_data_ptr<T>() : nullptr;
      Team::run(Team::members_for(n * n),
                [&](const Team& team) { project<T>(team, Rp, gS, r.data(), T(0.5), T(-1), n); });
      for (int64_t j = 0; j < n; ++j) q[j] = -gd[j] / bp[j];
      if (needed(grad_b_bit)) {
        add_grad_b(Rp, r.data(), gd, Sc.const_data_ptr<T>() + k * n * n, deltac.const_data_ptr<T>() + k * n, bp, n,
                   grad_b.mutable_data_ptr<T>());
      }
      if (!general) {
        int64_t c = 0;
        for (int64_t i = 0; i < n; ++i) {
          for (int64_t j = i + 1; j < n; ++j, ++c) {
            const T grad_flux = Rp[i * n + j] + q[j] - q[i];
            if (gw) gw[c] += grad_flux * vp[c];
            if (gv) gv[c] = grad_flux * wp[c];
          }
        }
        continue;
      }
      if (!gw && !gv && !needed(grad_N_bit) && !needed(grad_G_bit)) continue;
      T *a = A.get(), *flux = needed(grad_N_bit) ? wvG.get() : nullptr;
      matmul<T>(a, {N.const_data_ptr<T>(), n, 1}, {Rp, n, 1}, m, n, n);
      const T* Gp = G.const_data_ptr<T>();
      T* gG = needed(grad_G_bit) ? grad_G.mutable_data_ptr<T>() : nullptr;
      ts::parallel_for(0, m, cells_per_task(d, n), [&](int64_t begin, int64_t end) {
        std::vector<T> scaled(d), on_v(d);
        for (int64_t c = begin; c < end; ++c) {
          T* ac = a + c * n;
          const T *Gc = Gp + c * d * n, *vc = vp + c * d;
          for (int64_t j = 0; j < n; ++j) ac[j] += q[j];
          if (flux) contract_cell(Gc, vc, wp[c], d, n, scaled.data(), flux + c * n);
          if (gw || gv) rows.contract_adjoint(Gc, ac, T(1), d, n, on_v.data());
          for (int64_t l = 0; l < d; ++l) {
            if (gw) gw[c] += vc[l] * on_v[l];
            if (gv) gv[c * d + l] = wp[c] * on_v[l];
            if (gG) (k == 0 ? rows.set : rows.add)(gG + (c * d + l) * n, wp[c] * vc[l], ac, n);
          }
        }
      });
      if (flux) matmul<T>(grad_N.mutable_data_ptr<T>(), {flux, n, 1}, {Rp, 1, n}, m, n, n, k > 0);
    }
    return 0;
  });
  return {grad_b, grad_w, grad_N, grad_G, grad_v};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, CPU, m) {
  m.impl("field_generator", TORCH_BOX(&field_generator));
  m.impl("field_generator_backward", TORCH_BOX(&field_generator_backward));
}

}  // namespace vfrnn
