// exp(dt S) and its gradient on the CPU, for the ops that need them. Mathematics: vfrnn_kernels/skew_expm/README.md.
#pragma once

#include <cstdint>

#include "common/matmul.h"
#include "common/scratch.h"
#include "common/tensors.h"
#include "skew_expm/coefficients.h"
#include "skew_expm/kernels.h"

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
  Products(const Team& team, int64_t n) : team_(team), n_(n) {}
  // out = a b, which must not overlap out
  void set(T* out, Factor a, Factor b) const { matmul(team_, out, view(a), view(b), n_, n_, n_); }
  // out += a b
  void add(T* out, Factor a, Factor b) const { matmul(team_, out, view(a), view(b), n_, n_, n_, true); }

 private:
  Operand<T> view(Factor a) const { return a.transposed ? Operand<T>{a.p, 1, n_} : Operand<T>{a.p, n_, 1}; }

  const Team& team_;
  int64_t n_;
};

// f(team, begin, end, scratch) over a batch of K matrices of size n, with memory for `count` numbers that a team
// shares: each thread takes matrices of its own, or all go through one matrix after the other where those are few and
// large. What f throws must not leave a parallel region.
template <class T, class F>
void for_batch(int64_t K, int64_t n, int64_t count, const F& f) {
  if (n <= small_matrix || K >= 4 * ts::get_num_threads()) {
    ts::parallel_for(0, K, 1 + (int64_t(1) << 17) / (n * n * n), [&](int64_t begin, int64_t end) {
      const Scratch<T> scratch(count);
      f(Team(), begin, end, scratch.get());
    });
  } else {
    const Scratch<T> scratch(count);
    Team::run(Team::members_for(n * n * n), [&](const Team& team) { f(team, int64_t(0), K, scratch.get()); });
  }
}

// out = c R (x + sign x^T) R with R = diag(r), the identity where r is null; out may be x.
template <class T>
void project(const Team& team, T* out, const T* x, const T* r, T c, T sign, int64_t n) {
  team.split(pair_tiles(n), [&](int64_t begin, int64_t end) {
    IsaTable<SkewExpmKernels<T>>::active().project(out, x, r, c, sign, n, begin, end);
  });
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
