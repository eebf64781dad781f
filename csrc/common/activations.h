// The activations: names, formulas, and derivatives from the output, for CPU and CUDA kernels. Another one is added
// here and nowhere else in C++.
//
// `Math` is what the numbers are: common/elementary.h has it for the vectors of an instruction set, common/gpu.h for a
// float or double of a GPU's thread.
#pragma once

#include "common/host_device.h"

namespace vfrnn {

enum class Activation { modrelu, tanh, relu, identity, leaky_relu };

// Their names in Python, in the order of the enumerators.
inline constexpr const char* activation_names[] = {"modrelu", "tanh", "relu", "identity", "leaky_relu"};
inline constexpr int activation_count = sizeof(activation_names) / sizeof(activation_names[0]);

// Whether the activation has a parameter, the vector beta (n,).
template <Activation activation>
inline constexpr bool has_beta = activation == Activation::modrelu;

// value(z, beta) = act(z), and times_derivative(grad, h) = act'(z) grad from h = act(z) alone. A NaN stays one. No
// definition: an activation without its formula does not compile.
template <Activation activation, class Math>
struct Formula;

// sign(z) relu(|z| + beta)
template <class Math>
struct Formula<Activation::modrelu, Math> {
  using Number = typename Math::Number;
  static VFRNN_DEVICE Number value(Number z, Number beta) {
    return Math::sign_times_relu(z, Math::magnitude(z) + beta);
  }
  static VFRNN_DEVICE Number times_derivative(Number grad, Number h) { return h != Number{} ? grad : Number{}; }
};

template <class Math>
struct Formula<Activation::tanh, Math> {
  using Number = typename Math::Number;
  static VFRNN_DEVICE Number value(Number z, Number) { return Math::tanh(z); }
  static VFRNN_DEVICE Number times_derivative(Number grad, Number h) {
    return grad * Math::minus_product(typename Math::Scalar(1), h, h);
  }
};

template <class Math>
struct Formula<Activation::relu, Math> {
  using Number = typename Math::Number;
  static VFRNN_DEVICE Number value(Number z, Number) { return z < Number{} ? Number{} : z; }
  static VFRNN_DEVICE Number times_derivative(Number grad, Number h) { return h > Number{} ? grad : Number{}; }
};

template <class Math>
struct Formula<Activation::identity, Math> {
  using Number = typename Math::Number;
  static VFRNN_DEVICE Number value(Number z, Number) { return z; }
  static VFRNN_DEVICE Number times_derivative(Number grad, Number) { return grad; }
};

template <class Math>
struct Formula<Activation::leaky_relu, Math> {
  using Number = typename Math::Number;
  static constexpr typename Math::Scalar slope = 0.01;
  static VFRNN_DEVICE Number value(Number z, Number) { return z < Number{} ? slope * z : z; }
  static VFRNN_DEVICE Number times_derivative(Number grad, Number h) { return h > Number{} ? grad : slope * grad; }
};

template <Activation activation>
struct ActivationConstant {
  static constexpr Activation value = activation;
  static_assert(int(activation) < activation_count, "an activation without a name");
};

// f(ActivationConstant<activation>{}): a value of run time becomes a template argument.
// `f` by value, and the cases in this order: nvcc then needs the registers of tools/cuda_resources.csv.
template <class F>
VFRNN_DEVICE auto with_activation(Activation activation, F f) {
  switch (activation) {  // over all enumerators, -Werror=switch
    case Activation::tanh:
      return f(ActivationConstant<Activation::tanh>{});
    case Activation::relu:
      return f(ActivationConstant<Activation::relu>{});
    case Activation::modrelu:
      return f(ActivationConstant<Activation::modrelu>{});
    case Activation::leaky_relu:
      return f(ActivationConstant<Activation::leaky_relu>{});
    case Activation::identity:
      break;  // behind the switch, so that the function ends in every case
  }
  return f(ActivationConstant<Activation::identity>{});
}

// The same formulas with an activation of run time, as CUDA kernels have it.
template <class Math>
VFRNN_DEVICE typename Math::Number activate(Activation activation, typename Math::Number z,
                                            typename Math::Number beta) {
  return with_activation(activation, [&](auto a) { return Formula<decltype(a)::value, Math>::value(z, beta); });
}
template <class Math>
VFRNN_DEVICE typename Math::Number multiply_by_derivative(Activation activation, typename Math::Number grad,
                                                          typename Math::Number h) {
  return with_activation(activation,
                         [&](auto a) { return Formula<decltype(a)::value, Math>::times_derivative(grad, h); });
}

}  // namespace vfrnn
