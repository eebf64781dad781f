// exp(dt S) and its gradient on the CPU, for the ops that need them. Mathematics: vfrnn_kernels/skew_expm/README.md.
#pragma once

#include <cstdint>

#include "common/matmul.h"
#include "common/scratch.h"
#include "common/tensors.h"
#include "skew_expm/coefficients.h"
#include "skew_expm/skew_expm_kernels.h"

namespace vfrnn {

// n x n products, row-major.
template <class T>
class Products {
 public:
  // A matrix as an operand of a product, possibly transposed.
  struct Factor {
    const T* p;
    bool transposed = false;
  };
  explicit Products(int64_t n) : n_(n) {}
  // out = a b, which must not overlap out
  void set(T* out, Factor a, Factor b) const { matmul(out, view(a), view(b), n_, n_, n_); }
  // out += a b
  void add(T* out, Factor a, Factor b) const { matmul(out, view(a), view(b), n_, n_, n_, true); }

 private:
  Operand<T> view(Factor a) const { return a.transposed ? Operand<T>{a.p, 1, n_} : Operand<T>{a.p, n_, 1}; }

  int64_t n_;
};

// f(begin, end) over a batch of K matrices of size n: small matrices are split among threads, large ones follow each
// other, each of their products and passes being split. What f throws must not leave a parallel region.
template <class F>
void for_batch(int64_t K, int64_t n, const F& f) {
  if (n <= small_matrix) {
    ts::parallel_for(0, K, 1 + (int64_t(1) << 17) / (n * n * n), f);
  } else {
    f(int64_t(0), K);
  }
}

// Rows of a large matrix on all threads, of a small one on this.
template <class F>
void for_rows(int64_t rows, int64_t n, const F& f) {
  if (n <= small_matrix) {
    f(int64_t(0), rows);
  } else {
    ts::parallel_for(0, rows, 1 + 32768 / (n * (rows < n ? pair_tile : 1)), f);
  }
}

// out = c R (x + sign x^T) R with R = diag(r), the identity where r is null; out may be x.
template <class T>
void project(T* out, const T* x, const T* r, T c, T sign, int64_t n) {
  for_rows(pair_tiles(n), n,
           [&](int64_t begin, int64_t end) { skew_expm_kernels<T>().project(out, x, r, c, sign, n, begin, end); });
}

// How many matrices of size n the forward keeps per matrix of the batch: the plan (its first entry is s), the powers
// A^2 .. A^r of A = dt S, Y, and the first of the matrices that are squared. What a matrix does not need is not
// written.
inline constexpr int saved_levels = 5;
template <class T>
inline constexpr int64_t saved_matrices = skew_expm_scheme<T>.r + 1 + saved_levels;

// S (K, n, n), dt (K,) -> Q (K, n, n), saved (K, saved_matrices, n, n).
template <class T>
void skew_expm_forward(const T* S, const T* dt, int64_t K, int64_t n, T* Q, T* saved);

// grad_S (K, n, n) may be grad_Q itself; grad_dt (K,) may be null.
template <class T>
void skew_expm_gradient(const T* grad_Q, const T* S, const T* dt, const T* saved, int64_t K, int64_t n, T* grad_S,
                        T* grad_dt);

}  // namespace vfrnn
