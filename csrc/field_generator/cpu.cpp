// field_generator on the CPU: (b, w, N, G, v) -> S = B^-1/2 (H - H^T)/2 B^-1/2 with H = N^T W [v] G, delta = -B^-1 G^T
// W v. Derivation: vfrnn_kernels/field_generator/README.md.
//
// General mesh: W [v] G is contracted once into an (m, n) scratch, H is one product, and the antisymmetrisation and the
// scaling are fused in one pass over pairs of tiles. Complete mesh: a scatter and a row sum. Every sum is taken in a
// fixed order, so the same input gives the same bits for any number of threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <tuple>
#include <vector>

#include "common/gradients.h"
#include "common/matmul.h"
#include "common/mesh.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "common/tensors.h"
#include "field_generator/inputs.h"
#include "skew_expm/project.h"

namespace vfrnn {
namespace {

enum Gradient { grad_b_bit = 0, grad_w_bit, grad_N_bit, grad_G_bit, grad_v_bit };

// A mesh as the kernels read it; the complete one has no N and G, m = n (n - 1) / 2 and d = 1.
template <class T>
struct Mesh {
  const T *b, *w, *N, *G;
  int64_t m, d, n;
  bool complete;
};

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
  const MeshKernels<T>& rows = IsaTable<MeshKernels<T>>::active();
  parallel_for(0, (n + columns - 1) / columns, 1 + 65536 / (columns * m + 1), [&](int64_t begin, int64_t end) {
    const int64_t first = begin * columns, width = std::min(n, end * columns) - first;
    std::fill(out + first, out + first + width, T(0));
    for (int64_t c = 0; c < m; ++c) rows.add(out + first, T(-1), X + c * n + first, width);
  });
}

// wvG (m, n) and H (n, n) are scratch
template <class T>
void general_forward(const Mesh<T>& mesh, const T* v, T* wvG, T* H, T* S, T* delta) {
  const int64_t m = mesh.m, d = mesh.d, n = mesh.n;
  parallel_for(0, m, cells_per_task(d, n), [&](int64_t begin, int64_t end) {
    std::vector<T> scaled(d);
    StopCheck stop(double(d) * double(n));
    for (int64_t c = begin; c < end && !stop.asked(); ++c) {
      contract_cell(mesh.G + c * d * n, v + c * d, mesh.w[c], d, n, scaled.data(), wvG + c * n);
    }
  });
  negative_column_sums(wvG, m, n, delta);
  for (int64_t j = 0; j < n; ++j) delta[j] /= mesh.b[j];
  const std::vector<T> r = inverse_roots(mesh.b, n);
  Team::run(Team::members_for(n * m * n), [&](const Team& team) {
    matmul<T>(team, H, {mesh.N, 1, n}, {wvG, n, 1}, n, m, n);
    project<T>(team, S, H, r.data(), T(0.5), T(-1), n);
  });
}

template <class T>
void complete_forward(const Mesh<T>& mesh, const T* v, T* S, T* delta) {
  const int64_t n = mesh.n;
  const T *b = mesh.b, *w = mesh.w;
  const auto dot = IsaTable<MeshKernels<T>>::active().dot;
  const std::vector<T> r = inverse_roots(b, n);
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
    delta[i] += dot(w, v, cells);
    w += cells, v += cells;
  }
  for (int64_t j = 0; j < n; ++j) delta[j] /= b[j];
  mirror(S, n);
}

// Backward. With R = (P - P^T)/2, P_ij = grad_S_ij / sqrt(b_i b_j) the gradient of H, q = -grad_delta / b and
// A = N R + 1 q^T the gradient of W [v] G:
//   grad_w_c = sum_j A_cj (v.G)_cj,  grad_N = W (v.G) R^T,  grad_v_ck = w_c sum_j A_cj G_ckj,  grad_G_ckj = w_c v_ck
//   A_cj, grad_b_i = -sum_j (grad_S S)_ij + (grad_S S)_ji over 2 b_i  -  grad_delta_i delta_i / b_i.
template <class T>
class Backward {
 public:
  // Sums over the fields, and grad_v of a field; one that is null is not computed.
  struct Gradients {
    T *b, *w, *N, *G, *v;
  };
  // One field: what comes in, and what the forward made of it.
  struct Field {
    const T *grad_S, *grad_delta, *v, *S, *delta;
  };

  Backward(const Mesh<T>& mesh, bool needs_N)
      : mesh_(mesh),
        root_(inverse_roots(mesh.b, mesh.n)),
        q_(mesh.n),
        R_(mesh.n * mesh.n),
        A_(mesh.complete ? 0 : mesh.m * mesh.n),
        wvG_(needs_N ? mesh.m * mesh.n : 0) {}

  // The first field writes grad_N and grad_G, the others add to them.
  void field(const Field& field, const Gradients& to, bool is_first) {
    const int64_t n = mesh_.n;
    Team::run(Team::members_for(n * n),
              [&](const Team& team) { project<T>(team, R_.get(), field.grad_S, root_.data(), T(0.5), T(-1), n); });
    for (int64_t j = 0; j < n; ++j) q_[j] = -field.grad_delta[j] / mesh_.b[j];
    if (to.b) add_grad_b(field, to.b);
    if (mesh_.complete) {
      complete(field.v, to);
    } else if (to.w || to.v || to.N || to.G) {
      general(field.v, to, is_first);
    }
  }

 private:
  // grad_S_ij - grad_S_ji = 2 R_ij / (r_i r_j), which is read by rows
  void add_grad_b(const Field& field, T* grad_b) const {
    const int64_t n = mesh_.n;
    const T *R = R_.get(), *S = field.S;
    std::vector<T> product(n), inverse(n);
    for (int64_t j = 0; j < n; ++j) inverse[j] = T(1) / root_[j];
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) product[j] = R[i * n + j] * S[i * n + j];
      const T sum = rows_.dot(product.data(), inverse.data(), n) * inverse[i];
      grad_b[i] -= (sum + field.grad_delta[i] * field.delta[i]) / mesh_.b[i];
    }
  }

  void complete(const T* v, const Gradients& to) const {
    const int64_t n = mesh_.n;
    const T* R = R_.get();
    int64_t c = 0;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = i + 1; j < n; ++j, ++c) {
        const T grad_flux = R[i * n + j] + q_[j] - q_[i];
        if (to.w) to.w[c] += grad_flux * v[c];
        if (to.v) to.v[c] = grad_flux * mesh_.w[c];
      }
    }
  }

  void general(const T* v, const Gradients& to, bool is_first) const {
    const int64_t m = mesh_.m, d = mesh_.d, n = mesh_.n;
    T *A = A_.get(), *flux = to.N ? wvG_.get() : nullptr;
    const auto into_G = is_first ? rows_.set : rows_.add;
    matmul<T>(A, {mesh_.N, n, 1}, {R_.get(), n, 1}, m, n, n);
    parallel_for(0, m, cells_per_task(d, n), [&](int64_t begin, int64_t end) {
      std::vector<T> scaled(d), on_v(d);
      StopCheck stop(3 * double(d) * double(n));
      for (int64_t c = begin; c < end && !stop.asked(); ++c) {
        T* a = A + c * n;
        const T *G = mesh_.G + c * d * n, *along = v + c * d, w = mesh_.w[c];
        for (int64_t j = 0; j < n; ++j) a[j] += q_[j];
        if (flux) contract_cell(G, along, w, d, n, scaled.data(), flux + c * n);
        if (to.w || to.v) rows_.contract_adjoint(G, a, T(1), d, n, on_v.data());
        for (int64_t k = 0; k < d; ++k) {
          if (to.w) to.w[c] += along[k] * on_v[k];
          if (to.v) to.v[c * d + k] = w * on_v[k];
          if (to.G) into_G(to.G + (c * d + k) * n, w * along[k], a, n);
        }
      }
    });
    if (flux) matmul<T>(to.N, {flux, n, 1}, {R_.get(), 1, n}, m, n, n, !is_first);
  }

  const Mesh<T>& mesh_;
  const MeshKernels<T>& rows_ = IsaTable<MeshKernels<T>>::active();
  std::vector<T> root_, q_;  // b^-1/2
  Scratch<T> R_, A_, wvG_;
};

template <class T>
Mesh<T> mesh_of(const GeneratorInputs& inputs) {
  const bool complete = inputs.complete();
  const T *N = complete ? nullptr : inputs.N->template const_data_ptr<T>(),
          *G = complete ? nullptr : inputs.G->template const_data_ptr<T>();
  return {inputs.b.template const_data_ptr<T>(),
          inputs.w.template const_data_ptr<T>(),
          N,
          G,
          inputs.w.size(0),
          inputs.v.size(2),
          inputs.b.size(0),
          complete};
}

std::tuple<Tensor, Tensor> field_generator(const Tensor& b, const Tensor& w, std::optional<Tensor> N,
                                           std::optional<Tensor> G, const Tensor& v) {
  const GeneratorInputs inputs(b, w, N, G, v);
  const int64_t K = v.size(0), n = b.size(0);
  Tensor S = empty_tensor(v, {K, n, n}), delta = empty_tensor(v, {K, n});
  dispatch_real(v, [&](auto zero) {
    using T = decltype(zero);
    check_positive<T>("b", inputs.b);
    check_positive<T>("w", inputs.w);
    check_finite<T>("v", inputs.v);
    const Mesh<T> mesh = mesh_of<T>(inputs);
    const Scratch<T> wvG(mesh.complete ? 0 : mesh.m * n), H(mesh.complete ? 0 : n * n);
    for (int64_t k = 0; k < K; ++k) {
      throw_if_stopped();
      const T* field = inputs.v.template const_data_ptr<T>() + k * mesh.m * mesh.d;
      T *to_S = S.mutable_data_ptr<T>() + k * n * n, *to_delta = delta.mutable_data_ptr<T>() + k * n;
      if (mesh.complete) {
        complete_forward(mesh, field, to_S, to_delta);
      } else {
        general_forward(mesh, field, wvG.get(), H.get(), to_S, to_delta);
      }
    }
    return 0;
  });
  return {S, delta};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> field_generator_backward(
    const Tensor& grad_S_, const Tensor& grad_delta_, const Tensor& b, const Tensor& w, std::optional<Tensor> N,
    std::optional<Tensor> G, const Tensor& v, const Tensor& S_, const Tensor& delta_, int64_t needs) {
  const GeneratorInputs inputs(b, w, N, G, v);
  const Tensor grad_S = packed(grad_S_), grad_delta = packed(grad_delta_), S = packed(S_), delta = packed(delta_);
  const int64_t K = v.size(0), n = b.size(0), m = w.size(0), d = v.size(2);
  const NeededGradients needed(v, !inputs.complete() ? needs : needs & ~(1 << grad_N_bit | 1 << grad_G_bit));
  // The first field writes grad_N and grad_G: there is none to do so where K is 0.
  const auto written = [&](int bit, std::initializer_list<int64_t> sizes) {
    return K == 0 ? needed.zeros(bit, sizes) : needed.empty(bit, sizes);
  };
  Tensor grad_b = needed.zeros(grad_b_bit, {n}), grad_w = needed.zeros(grad_w_bit, {m});
  Tensor grad_N = written(grad_N_bit, {m, n}), grad_G = written(grad_G_bit, {m, d, n});
  Tensor grad_v = needed.empty(grad_v_bit, {K, m, d});
  dispatch_real(v, [&](auto zero) {
    using T = decltype(zero);
    const Mesh<T> mesh = mesh_of<T>(inputs);
    Backward<T> backward(mesh, needed(grad_N_bit));
    typename Backward<T>::Gradients to{needed.data<T>(grad_b_bit, grad_b), needed.data<T>(grad_w_bit, grad_w),
                                       needed.data<T>(grad_N_bit, grad_N), needed.data<T>(grad_G_bit, grad_G), nullptr};
    for (int64_t k = 0; k < K; ++k) {
      throw_if_stopped();
      const int64_t matrix = k * n * n, nodes = k * n, cells = k * m * d;
      if (needed(grad_v_bit)) to.v = grad_v.mutable_data_ptr<T>() + cells;
      backward.field({grad_S.const_data_ptr<T>() + matrix, grad_delta.const_data_ptr<T>() + nodes,
                      inputs.v.template const_data_ptr<T>() + cells, S.const_data_ptr<T>() + matrix,
                      delta.const_data_ptr<T>() + nodes},
                     to, k == 0);
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
