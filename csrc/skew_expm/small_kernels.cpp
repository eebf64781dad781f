// The exponentials of small matrices, one copy per instruction set (common/simd.h).
#include "common/isa.h"
#include "skew_expm/lane_exponential.h"
#include "skew_expm/rotations.h"
#include "skew_expm/small.h"

namespace vfrnn {
namespace VFRNN_ISA {
namespace {

template <class T>
int64_t scratch(int64_t n) {
  return n <= 3 ? 0 : LaneExponential<T>::scratch_size(n);
}

template <class T>
int64_t forward(const SmallGenerators<T>& of, int64_t begin, int64_t end, T* Q, T* scratch) {
  switch (of.n) {
    case 1:
      return rotations<T, 1>(of, begin, end, Q);
    case 2:
      return rotations<T, 2>(of, begin, end, Q);
    case 3:
      return rotations<T, 3>(of, begin, end, Q);
    default:
      return lane_exponentials<T>(of, begin, end, Q, scratch);
  }
}

template <class T>
void gradient(const SmallGenerators<T>& of, const T* grad_Q, bool of_S, int64_t begin, int64_t end, T* grad,
              T* scratch) {
  switch (of.n) {
    case 1:
      return rotation_gradients<T, 1>(of, grad_Q, of_S, begin, end, grad);
    case 2:
      return rotation_gradients<T, 2>(of, grad_Q, of_S, begin, end, grad);
    case 3:
      return rotation_gradients<T, 3>(of, grad_Q, of_S, begin, end, grad);
    default:
      return lane_gradients<T>(of, grad_Q, of_S, begin, end, grad, scratch);
  }
}

template <class T>
constexpr SmallExpmKernels<T> table = {scratch<T>, forward<T>, gradient<T>};

}  // namespace

}  // namespace VFRNN_ISA

template <>
const SmallExpmKernels<float> IsaTable<SmallExpmKernels<float>>::VFRNN_ISA = VFRNN_ISA::table<float>;
template <>
const SmallExpmKernels<double> IsaTable<SmallExpmKernels<double>>::VFRNN_ISA = VFRNN_ISA::table<double>;

}  // namespace vfrnn
