// exp(dt S) and its gradient on the CPU, for the ops that need them. Mathematics: vfrnn_kernels/skew_expm/README.md.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

#include "common/tensors.h"
#include "skew_expm/coefficients.h"
#include "skew_expm/skew_expm_kernels.h"

namespace vfrnn {

// Uninitialised numbers, aligned for vectors. Unlike a tensor it may be made inside a parallel region.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) : p_(static_cast<T*>(::operator new(sizeof(T) * count, alignment))) {}
  T* get() const { return p_.get(); }

 private:
  static constexpr std::align_val_t alignment{64};
  struct Free {
    void operator()(T* p) const { ::operator delete(p, alignment); }
  };
  std::unique_ptr<T, Free> p_;
};

// A matrix as an operand of a product, possibly transposed.
template <class T>
struct Operand {
  const T* p;
  bool transposed = false;
};

// n x n products: by the kernels of this library when small, else by the framework's GEMM, which brings its threads.
template <class T>
class Products {
 public:
  Products(int64_t n, const Tensor& like)
      : n_(n), like_(like), kernels_(skew_expm_kernels<T>()), pack_(is_small(n) ? kernels_.packed_size(n) : 0) {}
  static bool is_small(int64_t n) { return n <= small_matrix; }
  // out = a b, which must not overlap out
  void set(T* out, Operand<T> a, Operand<T> b) { run(out, a, b, false); }
  // out += a b
  void add(T* out, Operand<T> a, Operand<T> b) { run(out, a, b, true); }

 private:
  Tensor view(Operand<T> a) const {
    return a.transposed ? view2d(a.p, n_, n_, 1, n_, like_) : view2d(a.p, n_, n_, n_, 1, like_);
  }
  void run(T* out, Operand<T> a, Operand<T> b, bool accumulate) {
    if (is_small(n_)) {
      kernels_.product(out, a.p, a.transposed, b.p, b.transposed, accumulate, n_, pack_.get());
      return;
    }
    Tensor result = view({out});
    if (accumulate) {
      gemm_add(result, view(a), view(b));
    } else {
      gemm(result, view(a), view(b));
    }
  }
  static void gemm_add(Tensor& out, const Tensor& a, const Tensor& b);

  int64_t n_;
  const Tensor& like_;
  const SkewExpmKernels<T>& kernels_;
  Scratch<T> pack_;
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

// How many matrices of size n the forward keeps per matrix of the batch: the plan (its first entry is s), the powers
// A^2 .. A^r of A = dt S, Y, and the first of the matrices that are squared. What a matrix does not need is not
// written.
inline constexpr int saved_levels = 5;
template <class T>
inline constexpr int64_t saved_matrices = skew_expm_scheme<T>.r + 1 + saved_levels;

// S (K, n, n), dt (K,) -> Q (K, n, n), saved (K, saved_matrices, n, n); `like` lends dtype and device.
template <class T>
void skew_expm_forward(const T* S, const T* dt, int64_t K, int64_t n, T* Q, T* saved, const Tensor& like);

// grad_S (K, n, n) may be grad_Q itself; grad_dt (K,) may be null.
template <class T>
void skew_expm_gradient(const T* grad_Q, const T* S, const T* dt, const T* saved, int64_t K, int64_t n, T* grad_S,
                        T* grad_dt, const Tensor& like);

}  // namespace vfrnn
