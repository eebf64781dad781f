#include "strang_step/kernels.h"

#include "common/isa.h"
#include "common/rows.h"
#include "common/simd.h"

namespace vfrnn {
namespace VFRNN_ISA {
namespace {

template <class T>
void scale(const T* X, const T* e, int64_t n, int64_t begin, int64_t end, T* out) {
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t j = 0; j < n; ++j) out[i * n + j] = e[i] * X[i * n + j] * e[j];
  }
}

template <class T>
void row_and_column_sums(const T* G, const T* M, int64_t n, T* sums) {
  for (int64_t j = 0; j < n; ++j) sums[j] = 0;
  for (int64_t i = 0; i < n; ++i, G += n, M += n) {
    for (int64_t j = 0; j < n; ++j) sums[j] += G[j] * M[j];
    sums[i] += dot(G, M, n);
  }
}

template <class T>
constexpr StrangStepKernels<T> table{scale<T>, row_and_column_sums<T>};

}  // namespace

}  // namespace VFRNN_ISA

template <>
const StrangStepKernels<float> IsaTable<StrangStepKernels<float>>::VFRNN_ISA = VFRNN_ISA::table<float>;
template <>
const StrangStepKernels<double> IsaTable<StrangStepKernels<double>>::VFRNN_ISA = VFRNN_ISA::table<double>;

}  // namespace vfrnn
