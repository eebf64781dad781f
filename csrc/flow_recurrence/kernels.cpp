// flow_recurrence, one row at a time: the activations of the recurrence.
#include "flow_recurrence/kernels.h"

#include "common/isa.h"
#include "common/simd.h"
#include "recurrence/activations.h"

namespace vfrnn {
namespace VFRNN_ISA {
namespace {

// f with the activation as a constant
template <class F>
inline void with_activation(Activation activation, const F& f) {
  switch (activation) {
    case Activation::modrelu:
      return f.template operator()<Activation::modrelu>();
    case Activation::tanh:
      return f.template operator()<Activation::tanh>();
    case Activation::relu:
      return f.template operator()<Activation::relu>();
    case Activation::identity:
      return f.template operator()<Activation::identity>();
  }
}

template <class T>
struct Activate {
  const T *moved, *c, *beta;
  int64_t n;
  T* h;
  template <Activation activation>
  void operator()() const {
    for (int64_t j = 0; j < n; j += lanes<T>) {
      Vec<T> z = load_part(h + j, n - j) + load_part(moved + j, n - j);
      if (c) z += load_part(c + j, n - j);
      const Vec<T> b = activation == Activation::modrelu ? load_part(beta + j, n - j) : Vec<T>{};
      store_part(h + j, VFRNN_ISA::activate<activation, T>(z, b), n - j);
    }
  }
};
template <class T>
void activate_row(Activation activation, const T* moved, const T* c, const T* beta, int64_t n, T* h) {
  with_activation(activation, Activate<T>{moved, c, beta, n, h});
}

template <class T>
struct Derivative {
  const T *h, *grad_h, *carried;
  int64_t n;
  T* grad_z;
  template <Activation activation>
  void operator()() const {
    for (int64_t j = 0; j < n; j += lanes<T>) {
      const Vec<T> grad = load_part(grad_h + j, n - j) + load_part(carried + j, n - j);
      store_part(grad_z + j, multiply_by_derivative<activation, T>(grad, load_part(h + j, n - j)), n - j);
    }
  }
};
template <class T>
void derivative_row(Activation activation, const T* h, const T* grad_h, const T* carried, int64_t n, T* grad_z) {
  with_activation(activation, Derivative<T>{h, grad_h, carried, n, grad_z});
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
