// field_generator on the CPU: (b, w, N, G, v) -> S = B^-1/2 (H - H^T)/2 B^-1/2 with H = N^T W [v] G, delta = -B^-1 G^T
// W v. Derivation: vfrnn_kernels/field_generator/README.md.
//
// General mesh: W [v] G is contracted once into an (m, n) scratch, H is one product through the framework's GEMM, and
// the antisymmetrisation and the scaling are fused in one pass over pairs of entries. Complete mesh: a scatter and a
// row sum. Every sum is taken in a fixed order, so the same input gives the same bits for any number of threads.
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

#include "common/tensors.h"
#include "common/values.h"

namespace vfrnn {
namespace {

enum Gradient { grad_b_bit = 0, grad_w_bit, grad_N_bit, grad_G_bit, grad_v_bit };

template <class T>
std::vector<T> inverse_square_roots(const T* b, int64_t n) {
  std::vector<T> r(n);
  for (int64_t j = 0; j < n; ++j) r[j] = T(1) / std::sqrt(b[j]);
  return r;
}

// flux_cj = w_c sum_k v_ck G_ckj   (m, n), and optionally without w
template <class T>
void contract_field(const T* G, const T* v, const T* w, int64_t m, int64_t d, int64_t n, T* out) {
  ts::parallel_for(0, m, 1 + 16384 / (d * n + 1), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      T* row = out + c * n;
      for (int64_t j = 0; j < n; ++j) row[j] = 0;
      for (int64_t k = 0; k < d; ++k) {
        const T a = (w ? w[c] : T(1)) * v[c * d + k];
        const T* g = G + (c * d + k) * n;
        for (int64_t j = 0; j < n; ++j) row[j] += a * g[j];
      }
    }
  });
}

template <class T>
void general_forward(const Tensor& N, const T* b, const T* w, const T* G, const T* v, int64_t m, int64_t d, int64_t n,
                     Tensor& wvG, Tensor& H, T* S, T* delta) {
  T* a = wvG.mutable_data_ptr<T>();
  contract_field(G, v, w, m, d, n, a);
  for (int64_t j = 0; j < n; ++j) delta[j] = 0;
  for (int64_t c = 0; c < m; ++c) {
    for (int64_t j = 0; j < n; ++j) delta[j] -= a[c * n + j];
  }
  for (int64_t j = 0; j < n; ++j) delta[j] /= b[j];
  gemm(H, ts::transpose(N, 0, 1), wvG);
  const T* h = H.const_data_ptr<T>();
  const std::vector<T> r = inverse_square_roots(b, n);
  for (int64_t i = 0; i < n; ++i) {
    S[i * n + i] = 0;
    for (int64_t j = i + 1; j < n; ++j) {
      const T s = (h[i * n + j] - h[j * n + i]) / 2 * (r[i] * r[j]);
      S[i * n + j] = s;
      S[j * n + i] = -s;
    }
  }
}

template <class T>
void complete_forward(const T* b, const T* w, const T* v, int64_t n, T* S, T* delta) {
  for (int64_t j = 0; j < n; ++j) delta[j] = 0;
  const T *wc = w, *vc = v;
  for (int64_t i = 0; i < n; ++i) {
    S[i * n + i] = 0;
    for (int64_t j = i + 1; j < n; ++j, ++wc, ++vc) {
      const T flux = *wc * *vc;
      const T s = flux / (2 * std::sqrt(b[i] * b[j]));
      S[i * n + j] = s;
      S[j * n + i] = -s;
      delta[i] += flux;
      delta[j] -= flux;
    }
  }
  for (int64_t j = 0; j < n; ++j) delta[j] /= b[j];
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
    Tensor wvG = empty_tensor(v, {m, n}), H = empty_tensor(v, {n, n});
    for (int64_t k = 0; k < K; ++k) {
      general_forward(N, bp, wp, G.const_data_ptr<T>(), vp + k * m * d, m, d, n, wvG, H, s + k * n * n, div + k * n);
    }
    return 0;
  });
  return {S, delta};
}

// Backward. With R = (P - P^T)/2, P_ij = grad_S_ij / sqrt(b_i b_j) the gradient of H, q = -grad_delta / b and
// A = N R + 1 q^T the gradient of W [v] G:
//   grad_w_c = sum_j A_cj (v.G)_cj,  grad_N = W (v.G) R^T,  grad_v_ck = w_c sum_j A_cj G_ckj,  grad_G_ckj = w_c v_ck
//   A_cj, grad_b_i = -sum_j (grad_S S)_ij + (grad_S S)_ji over 2 b_i  -  grad_delta_i delta_i / b_i.
template <class T>
void gradient_of_H(const T* grad_S, const T* r, int64_t n, T* R) {
  for (int64_t i = 0; i < n; ++i) {
    R[i * n + i] = 0;
    for (int64_t j = i + 1; j < n; ++j) {
      const T x = (grad_S[i * n + j] - grad_S[j * n + i]) / 2 * (r[i] * r[j]);
      R[i * n + j] = x;
      R[j * n + i] = -x;
    }
  }
}

template <class T>
void add_grad_b(const T* grad_S, const T* grad_delta, const T* S, const T* delta, const T* b, int64_t n, T* grad_b) {
  for (int64_t i = 0; i < n; ++i) {
    T sum = 0;
    for (int64_t j = 0; j < n; ++j) sum += (grad_S[i * n + j] - grad_S[j * n + i]) * S[i * n + j];
    grad_b[i] -= (sum / 2 + grad_delta[i] * delta[i]) / b[i];
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> field_generator_backward(
    const Tensor& grad_S_, const Tensor& grad_delta_, const Tensor& b_, const Tensor& w_, std::optional<Tensor> N_,
    std::optional<Tensor> G_, const Tensor& v_, const Tensor& S, const Tensor& delta, int64_t needs) {
  const Tensor grad_S = packed(grad_S_), grad_delta = packed(grad_delta_), b = packed(b_), w = packed(w_),
               v = packed(v_), Sc = packed(S), deltac = packed(delta);
  const int64_t K = v.size(0), n = b.size(0), m = w.size(0), d = v.size(2);
  const auto needed = [&](int bit) { return (needs >> bit & 1) != 0; };
  const bool general = N_.has_value();
  Tensor grad_b = zeros_tensor(v, {needed(grad_b_bit) ? n : 0}), grad_w = zeros_tensor(v, {needed(grad_w_bit) ? m : 0});
  Tensor grad_N = general && needed(grad_N_bit) ? zeros_tensor(v, {m, n}) : empty_tensor(v, {0});
  Tensor grad_G = general && needed(grad_G_bit) ? zeros_tensor(v, {m, d, n}) : empty_tensor(v, {0});
  Tensor grad_v = needed(grad_v_bit) ? empty_tensor(v, {K, m, d}) : empty_tensor(v, {0});
  dispatch_real(v, [&](auto zero) {
    using T = decltype(zero);
    const T *bp = b.const_data_ptr<T>(), *wp = w.const_data_ptr<T>();
    const std::vector<T> r = inverse_square_roots(bp, n);
    std::vector<T> q(n);
    Tensor R = empty_tensor(v, {n, n});
    T* Rp = R.mutable_data_ptr<T>();
    Tensor N, G, A, vG, product;
    if (general) {
      N = packed(*N_), G = packed(*G_);
      A = empty_tensor(v, {m, n}), vG = empty_tensor(v, {m, n}), product = empty_tensor(v, {m, n});
    }
    for (int64_t k = 0; k < K; ++k) {
      const T *gS = grad_S.const_data_ptr<T>() + k * n * n, *gd = grad_delta.const_data_ptr<T>() + k * n;
      const T* vp = v.const_data_ptr<T>() + k * m * d;
      T* gv = needed(grad_v_bit) ? grad_v.mutable_data_ptr<T>() + k * m * d : nullptr;
      T* gw = needed(grad_w_bit) ? grad_w.mutable_data_ptr<T>() : nullptr;
      gradient_of_H(gS, r.data(), n, Rp);
      for (int64_t j = 0; j < n; ++j) q[j] = -gd[j] / bp[j];
      if (needed(grad_b_bit)) {
        add_grad_b(gS, gd, Sc.const_data_ptr<T>() + k * n * n, deltac.const_data_ptr<T>() + k * n, bp, n,
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
      gemm(A, N, R);
      const T* Gp = G.const_data_ptr<T>();
      T *a = A.mutable_data_ptr<T>(), *vg = vG.mutable_data_ptr<T>();
      T* gG = needed(grad_G_bit) ? grad_G.mutable_data_ptr<T>() : nullptr;
      if (needed(grad_w_bit) || needed(grad_N_bit)) contract_field<T>(Gp, vp, nullptr, m, d, n, vg);
      ts::parallel_for(0, m, 1 + 16384 / (d * n + 1), [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; ++c) {
          T* ac = a + c * n;
          for (int64_t j = 0; j < n; ++j) ac[j] += q[j];
          if (gw) {
            T sum = 0;
            for (int64_t j = 0; j < n; ++j) sum += ac[j] * vg[c * n + j];
            gw[c] += sum;
          }
          for (int64_t l = 0; l < d; ++l) {
            const int64_t row = (c * d + l) * n;
            if (gv) {
              T sum = 0;
              for (int64_t j = 0; j < n; ++j) sum += ac[j] * Gp[row + j];
              gv[c * d + l] = wp[c] * sum;
            }
            if (gG) {
              const T x = wp[c] * vp[c * d + l];
              for (int64_t j = 0; j < n; ++j) gG[row + j] += x * ac[j];
            }
          }
        }
      });
      if (needed(grad_N_bit)) {
        gemm(product, vG, ts::transpose(R, 0, 1));
        const T* p = product.const_data_ptr<T>();
        T* gN = grad_N.mutable_data_ptr<T>();
        for (int64_t c = 0; c < m; ++c) {
          for (int64_t j = 0; j < n; ++j) gN[c * n + j] += wp[c] * p[c * n + j];
        }
      }
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
