#include "thin_skew_expm/kernels.h"

#include "common/isa.h"
#include "common/simd.h"

namespace vfrnn {
namespace VFRNN_ISA {
namespace {

constexpr int64_t L = lanes<double>;

// y -= a x from the vector that holds entry `first` on. Entries of that vector before it change by a x too: 0 where
// x is a row of R.
inline void subtract(double* y, double a, const double* x, int64_t first, int64_t stride) {
  for (int64_t j = first / L * L; j < stride; j += L) store(y + j, load(y + j) - a * load(x + j));
}

void cholesky(double* C, int64_t k, int64_t stride, double least, double instead) {
  for (int64_t j = 0; j < k; ++j) {
    double* row = C + j * stride;
    for (int64_t i = 0; i < j; ++i) row[i] = 0;
    const double pivot = row[j] > least ? row[j] : instead;
    const double inverse = 1 / __builtin_sqrt(pivot);
    for (int64_t i = j; i < k; ++i) row[i] *= inverse;
    row[j] = pivot * inverse;
    for (int64_t i = j + 1; i < k; ++i) subtract(C + i * stride, row[i], row, i, stride);
  }
}

template <int rows>
void solve_rows(const double* R, int64_t k, int64_t stride, double* x) {
  for (int64_t i = 0; i < k; ++i) {
    const double inverse = 1 / R[i * stride + i];
    double solved[rows];
    for (int r = 0; r < rows; ++r) solved[r] = x[r * stride + i] * inverse;
    for (int64_t j = i / L * L; j < stride; j += L) {
      const Vec<double> of_R = load(R + i * stride + j);
      for (int r = 0; r < rows; ++r) store(x + r * stride + j, load(x + r * stride + j) - solved[r] * of_R);
    }
    for (int r = 0; r < rows; ++r) x[r * stride + i] = solved[r];
  }
}

void solve(const double* R, int64_t k, int64_t stride, double* x, int64_t rows) {
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4) solve_rows<4>(R, k, stride, x + row * stride);
  for (; row < rows; ++row) solve_rows<1>(R, k, stride, x + row * stride);
}

constexpr FactorKernels table{L, cholesky, solve};

}  // namespace
}  // namespace VFRNN_ISA

template <>
const FactorKernels IsaTable<FactorKernels>::VFRNN_ISA = VFRNN_ISA::table;

}  // namespace vfrnn
