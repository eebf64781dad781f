// What thin_skew_expm is put together from on the CPU (vfrnn_kernels/thin_skew_expm/composed.py): B = Q R, and products
// of tall matrices. The bits of both depend neither on the number of threads nor on the batch.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>
#include <type_traits>
#include <vector>

#include "common/isa.h"
#include "common/matmul.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "common/tensors.h"
#include "thin_skew_expm/kernels.h"

namespace vfrnn {
namespace {

// Rows whose products are summed in one chain; the sums of these blocks are added in their order.
constexpr int64_t block_rows = 512;

// f(k) for the K matrices of a batch: a thread each where they are enough, else one after the other, with all threads
// for the loops inside, which are not split inside of another one.
template <class F>
void for_each_matrix(int64_t K, const F& f) {
  const auto some = [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end && !stop_asked(); ++k) f(k);
  };
  if (K >= int64_t(ts::get_num_threads())) return parallel_for(0, K, 1, some);
  some(0, K);
}

// f(begin, end) on parts of `count` rows of which each costs `work` multiply-adds.
template <class F>
void split_rows(int64_t count, int64_t work, const F& f) {
  constexpr int64_t least_rows = 8, least_work = 50000;
  parallel_for(0, count, std::max(least_rows, least_work / (work + 1)), f);
}

// out (rows, columns) = a b, or += a b, for a (rows, depth).
template <class T>
void product(T* out, const Operand<T>& a, const Operand<T>& b, int64_t rows, int64_t depth, int64_t columns,
             bool accumulate) {
  split_rows(rows, depth * columns, [&](int64_t begin, int64_t end) {
    for (int64_t k = 0; k < depth; k += block_rows) {
      matmul<T>(Team(), out + begin * columns, {a.p + begin * a.row + k * a.column, a.row, a.column},
                {b.p + k * b.row, b.row, b.column}, end - begin, std::min(block_rows, depth - k), columns,
                accumulate || k > 0);
    }
  });
}

// Shifted Cholesky QR (README.md of the op): R^T R = B^T B + shift and Q = B R^-1, in double, of one B (m, k).
template <class T>
class Factorization {
 public:
  Factorization(int64_t m, int64_t k)
      : m_(m), k_(k), stride_((k + kernels_.width - 1) / kernels_.width * kernels_.width) {}

  // B[i row + j] at (i, j). Q is contiguous. False where B is not finite.
  bool run(const T* B, int64_t row, T* Q, T* R) {
    const double largest = largest_entry(B, row);
    if (!(largest <= std::numeric_limits<double>::max())) return false;
    if (largest == 0) {
      std::fill(Q, Q + m_ * k_, T(0)), std::fill(R, R + k_ * k_, T(0));
      return true;
    }
    // By a power of two: squares neither overflow nor underflow.
    const int exponent = std::clamp(std::ilogb(largest), -1000, 1000);
    constexpr int passes = std::is_same_v<T, float> ? 1 : 3;
    std::vector<double> C(k_ * stride_), total;
    for (int pass = 0; pass < passes; ++pass) {
      const bool first = pass == 0;
      const T* X = first ? B : Q;
      const int64_t X_row = first ? row : k_;
      const double scale = first ? std::ldexp(1.0, -exponent) : 1.0;
      gram(X, X_row, scale, C.data());
      factor(C.data(), pass == 2);
      divide(X, X_row, scale, C.data(), Q);
      total = first ? packed_rows(C) : times(C, total);
    }
    std::transform(total.begin(), total.end(), R, [&](double x) { return T(std::ldexp(x, exponent)); });
    return true;
  }

 private:
  // NaN or infinity where B is not finite.
  double largest_entry(const T* B, int64_t row) const {
    std::vector<T> of_row(m_);
    split_rows(m_, k_, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        T largest = 0;
        for (int64_t j = 0; j < k_; ++j) largest = std::max(largest, std::abs(B[i * row + j]));
        // a maximum may lose NaN
        of_row[i] = all_finite(B + i * row, k_) ? largest : std::numeric_limits<T>::infinity();
      }
    });
    return double(*std::max_element(of_row.begin(), of_row.end()));
  }

  // `count` rows of X in double, to rows of `stride_`.
  void widen(const T* X, int64_t row, double scale, int64_t count, double* to) const {
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t j = 0; j < k_; ++j) to[i * stride_ + j] = scale * double(X[i * row + j]);
      std::fill(to + i * stride_ + k_, to + (i + 1) * stride_, 0.0);
    }
  }

  // C (k, stride) = X^T X. Every thread makes rows of it, and widens X for itself.
  void gram(const T* X, int64_t row, double scale, double* C) const {
    split_rows(k_, m_ * k_, [&](int64_t begin, int64_t end) {
      const Scratch<double> block(std::min(block_rows, m_) * stride_);
      for (int64_t first = 0; first < m_ && !stop_asked(); first += block_rows) {
        const int64_t count = std::min(block_rows, m_ - first);
        widen(X + first * row, row, scale, count, block.get());
        matmul<double>(Team(), C + begin * stride_, {block.get() + begin, 1, stride_}, {block.get(), stride_, 1},
                       end - begin, count, stride_, first > 0);
      }
    });
  }

  // C becomes its triangular factor. The last of several passes meets orthonormal columns, but for those that the
  // others left without any norm: it needs no shift, only a pivot in their place.
  void factor(double* C, bool last) const {
    double trace = 0;
    for (int64_t j = 0; j < k_; ++j) trace += C[j * stride_ + j];
    const double shift = 64 * std::numeric_limits<double>::epsilon() * trace;
    for (int64_t j = 0; j < k_ && !last; ++j) C[j * stride_ + j] += shift;
    kernels_.cholesky(C, k_, stride_, last ? 0.01 : shift, last ? 1.0 : shift);
  }

  // Q = X R^-1
  void divide(const T* X, int64_t row, double scale, const double* R, T* Q) const {
    constexpr int64_t at_once = 64;
    split_rows(m_, k_ * k_, [&](int64_t begin, int64_t end) {
      const Scratch<double> rows(at_once * stride_);
      for (int64_t i = begin; i < end && !stop_asked(); i += at_once) {
        const int64_t count = std::min(at_once, end - i);
        widen(X + i * row, row, scale, count, rows.get());
        kernels_.solve(R, k_, stride_, rows.get(), count);
        for (int64_t r = 0; r < count; ++r) {
          for (int64_t j = 0; j < k_; ++j) Q[(i + r) * k_ + j] = T(rows.get()[r * stride_ + j]);
        }
      }
    });
  }

  std::vector<double> packed_rows(const std::vector<double>& C) const {
    std::vector<double> found(k_ * k_);
    for (int64_t i = 0; i < k_; ++i) std::copy_n(C.data() + i * stride_, k_, found.data() + i * k_);
    return found;
  }

  std::vector<double> times(const std::vector<double>& C, const std::vector<double>& total) const {
    std::vector<double> found(k_ * k_);
    product<double>(found.data(), {C.data(), stride_, 1}, {total.data(), k_, 1}, k_, k_, k_, false);
    return found;
  }

  const FactorKernels& kernels_ = IsaTable<FactorKernels>::active();
  int64_t m_, k_, stride_;
};

std::tuple<Tensor, Tensor> thin_factor(const Tensor& B_) {
  const Tensor B = with_adjacent_entries(B_);
  const int64_t K = B.size(0), m = B.size(1), k = B.size(2);
  Tensor Q = empty_tensor(B, {K, m, k}), R = empty_tensor(B, {K, k, k});
  dispatch_real(B, [&](auto zero) {
    using T = decltype(zero);
    const T* from = B.const_data_ptr<T>();
    T *to_Q = Q.mutable_data_ptr<T>(), *to_R = R.mutable_data_ptr<T>();
    const int64_t batch = B.stride(0), row = B.stride(1);
    std::vector<char> finite(K);
    for_each_matrix(K, [&](int64_t j) {
      finite[j] = Factorization<T>(m, k).run(from + j * batch, row, to_Q + j * m * k, to_R + j * k * k);
    });
    require(std::count(finite.begin(), finite.end(), 0) == 0, "S must be finite, but it holds NaN or infinity");
    return 0;
  });
  return {Q, R};
}

void thin_product(Tensor out, const Tensor& a, const Tensor& b, bool accumulate) {
  const int64_t K = a.size(0), rows = a.size(1), depth = a.size(2), columns = b.size(2);
  require(out.stride(2) == 1 && out.stride(1) == columns, "the rows of out must be adjacent");
  dispatch_real(a, [&](auto zero) {
    using T = decltype(zero);
    T* to = out.mutable_data_ptr<T>();
    const T *from_a = a.const_data_ptr<T>(), *from_b = b.const_data_ptr<T>();
    const int64_t out_batch = out.stride(0), a_batch = a.stride(0), b_batch = b.stride(0);
    const int64_t a_row = a.stride(1), a_column = a.stride(2), b_row = b.stride(1), b_column = b.stride(2);
    for_each_matrix(K, [&](int64_t j) {
      product<T>(to + j * out_batch, {from_a + j * a_batch, a_row, a_column}, {from_b + j * b_batch, b_row, b_column},
                 rows, depth, columns, accumulate);
    });
    return 0;
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, CPU, m) {
  m.impl("thin_factor", TORCH_BOX(&thin_factor));
  m.impl("thin_product", TORCH_BOX(&thin_product));
}

}  // namespace vfrnn
