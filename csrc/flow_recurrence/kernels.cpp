// flow_recurrence, one row at a time.
#include "flow_recurrence/kernels.h"

#include "common/elementary.h"
#include "common/isa.h"
#include "common/simd.h"

namespace vfrnn {
namespace VFRNN_ISA {
namespace {

template <class T>
void activate_row(Activation activation, const T* moved, const T* c, const T* beta, int64_t n, T* h) {
  with_activation(activation, [&](auto a) {
    for (int64_t j = 0; j < n; j += lanes<T>) {
      Vec<T> z = load_part(h + j, n - j) + load_part(moved + j, n - j);
      if (c) z += load_part(c + j, n - j);
      const Vec<T> b = has_beta<a.value> ? load_part(beta + j, n - j) : Vec<T>{};
      store_part(h + j, Formula<a.value, Math<T>>::value(z, b), n - j);
    }
  });
}

template <class T>
void derivative_row(Activation activation, const T* h, const T* grad_h, const T* carried, int64_t n, T* grad_z) {
  with_activation(activation, [&](auto a) {
    for (int64_t j = 0; j < n; j += lanes<T>) {
      const Vec<T> grad = load_part(grad_h + j, n - j) + load_part(carried + j, n - j);
      store_part(grad_z + j, Formula<a.value, Math<T>>::times_derivative(grad, load_part(h + j, n - j)), n - j);
    }
  });
}

template <class T>
constexpr FlowRecurrenceKernels<T> table{activate_row<T>, derivative_row<T>};

}  // namespace

}  // namespace VFRNN_ISA

template <>
const FlowRecurrenceKernels<float> IsaTable<FlowRecurrenceKernels<float>>::VFRNN_ISA = VFRNN_ISA::table<float>;
template <>
const FlowRecurrenceKernels<double> IsaTable<FlowRecurrenceKernels<double>>::VFRNN_ISA = VFRNN_ISA::table<double>;

}  // namespace vfrnn
