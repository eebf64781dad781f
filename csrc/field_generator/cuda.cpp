// Binding of the CUDA kernels of field_generator.
#include "field_generator/cuda.h"

#include <initializer_list>
#include <optional>
#include <tuple>

#include "common/cuda_tensors.h"
#include "common/gradients.h"
#include "field_generator/inputs.h"

namespace vfrnn {
namespace {

enum Gradient { b_bit = 0, w_bit, N_bit, G_bit, v_bit };

FieldGeneratorProblem problem_of(const GeneratorInputs& inputs) {
  const Tensor &b = inputs.b, &w = inputs.w, &v = inputs.v;
  require(v.scalar_type() == ScalarType::Float, "the CUDA kernels of field_generator are float32");
  FieldGeneratorProblem p{};
  p.b = b.const_data_ptr<float>(), p.w = w.const_data_ptr<float>(), p.v = v.const_data_ptr<float>();
  if (!inputs.complete()) p.N = inputs.N->const_data_ptr<float>(), p.G = inputs.G->const_data_ptr<float>();
  p.K = number_of_blocks(v.size(0), "field_generator"), p.m = int(w.size(0)), p.n = int(b.size(0)),
  p.d = int(v.size(2));
  return p;
}

std::tuple<Tensor, Tensor> field_generator(const Tensor& b, const Tensor& w, std::optional<Tensor> N,
                                           std::optional<Tensor> G, const Tensor& v) {
  const OnDevice device(v);
  const GeneratorInputs inputs(b, w, N, G, v);
  const FieldGeneratorProblem problem = problem_of(inputs);
  const int64_t K = v.size(0), n = b.size(0);
  Tensor S = empty_tensor(v, {K, n, n}), delta = empty_tensor(v, {K, n});
  if (K * n > 0) {
    check_launch(
        launch_field_generator(problem, S.mutable_data_ptr<float>(), delta.mutable_data_ptr<float>(), device.stream),
        "field_generator");
  }
  return {S, delta};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> field_generator_backward(
    const Tensor& grad_S_, const Tensor& grad_delta_, const Tensor& b, const Tensor& w, std::optional<Tensor> N,
    std::optional<Tensor> G, const Tensor& v, const Tensor& S_, const Tensor& delta_, int64_t needs) {
  const OnDevice device(v);
  const GeneratorInputs inputs(b, w, N, G, v);
  const FieldGeneratorProblem problem = problem_of(inputs);
  const Tensor grad_S = packed(grad_S_), grad_delta = packed(grad_delta_), S = packed(S_), delta = packed(delta_);
  const int64_t K = v.size(0), n = b.size(0), m = w.size(0), d = v.size(2);
  const bool general = !inputs.complete();
  const NeededGradients needed(v, general ? needs : needs & ~(1 << N_bit | 1 << G_bit));
  const bool runs = K * n > 0;
  const auto gradient = [&](int bit, std::initializer_list<int64_t> sizes) {
    return runs ? needed.empty(bit, sizes) : needed.zeros(bit, sizes);
  };
  Tensor grad_b = gradient(b_bit, {n}), grad_w = gradient(w_bit, {m}), grad_N = gradient(N_bit, {m, n});
  Tensor grad_G = gradient(G_bit, {m, d, n}), grad_v = gradient(v_bit, {K, m, d});
  if (runs && needs != 0) {
    // The shares of one field are the sums over the fields.
    const bool one = K == 1, to_A = general ? needed(w_bit) || needed(v_bit) || needed(G_bit) : needed(w_bit) && !one;
    Tensor parts_b = needed(b_bit) && !one ? empty_tensor(v, {K, n}) : grad_b;
    Tensor parts_N = needed(N_bit) && !one ? empty_tensor(v, {K, m, n}) : grad_N;
    Tensor A = to_A ? empty_tensor(v, {K, m, general ? n : 1}) : empty_tensor(v, {0});
    FieldGeneratorGradients g{};
    g.grad_S = grad_S.const_data_ptr<float>(), g.grad_delta = grad_delta.const_data_ptr<float>();
    g.S = S.const_data_ptr<float>(), g.delta = delta.const_data_ptr<float>();
    g.grad_b = needed.data<float>(b_bit, grad_b), g.grad_w = needed.data<float>(w_bit, grad_w);
    g.grad_N = needed.data<float>(N_bit, grad_N), g.grad_G = needed.data<float>(G_bit, grad_G);
    g.grad_v = needed.data<float>(v_bit, grad_v);
    g.parts_b = needed.data<float>(b_bit, parts_b), g.parts_N = needed.data<float>(N_bit, parts_N);
    g.A = to_A ? A.mutable_data_ptr<float>() : nullptr;
    check_launch(launch_field_generator_backward(problem, g, device.stream), "field_generator_backward");
  }
  return {grad_b, grad_w, grad_N, grad_G, grad_v};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, VFRNN_CUDA_KEY, m) {
  m.impl("field_generator", TORCH_BOX(&field_generator));
  m.impl("field_generator_backward", TORCH_BOX(&field_generator_backward));
}

}  // namespace vfrnn
