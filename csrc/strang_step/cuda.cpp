// Binding of the CUDA kernels of strang_step: those of skew_expm with delta (csrc/skew_expm/cuda.h).
#include "skew_expm/cuda.h"

#include <tuple>

#include "common/cuda_tensors.h"
#include "common/gradients.h"

namespace vfrnn {
namespace {

enum Gradient { grad_S_bit = 0, grad_delta_bit, grad_dt_bit };

std::tuple<Tensor, Tensor, Tensor> strang_step(const Tensor& S_, const Tensor& delta_, const Tensor& dt_,
                                               int64_t substeps) {
  const OnDevice device(S_);
  const Tensor S = packed(S_), delta = packed(delta_), dt = packed(dt_);
  const int64_t K = number_of_blocks(S.size(0), "strang_step");
  const int n = int(S.size(1));
  Tensor M = empty_tensor(S, {K, n, n}), Q = empty_tensor(S, {K, n, n}),
         saved = empty_tensor(S, {K, saved_slots, n, n});
  if (K == 0) return {M, Q, saved};
  Tensor scratch = empty_tensor(S, {exponential_forward_scratch(K, n)});
  ExponentialForward forward{};
  forward.S = S.const_data_ptr<float>(), forward.delta = delta.const_data_ptr<float>();
  forward.dt = dt.const_data_ptr<float>();
  forward.Q = Q.mutable_data_ptr<float>(), forward.M = M.mutable_data_ptr<float>();
  forward.saved = saved.mutable_data_ptr<float>(), forward.scratch = scratch.mutable_data_ptr<float>();
  forward.K = K, forward.n = n, forward.substeps = int(substeps);
  check_launch(exponential_forward(forward, device.stream), "strang_step");
  return {M, Q, saved};
}

std::tuple<Tensor, Tensor, Tensor> strang_step_backward(const Tensor& grad_M_, const Tensor& S_, const Tensor& delta_,
                                                        const Tensor& dt_, const Tensor&, const Tensor& Q,
                                                        const Tensor& saved, int64_t substeps, int64_t needs) {
  const OnDevice device(S_);
  const Tensor grad_M = packed(grad_M_), S = packed(S_), delta = packed(delta_), dt = packed(dt_);
  const int64_t K = number_of_blocks(S.size(0), "strang_step");
  const int n = int(S.size(1));
  Tensor grad_S = empty_tensor(S, {K, n, n}), grad_delta = empty_tensor(S, {K, n}), grad_dt = empty_tensor(S, {K});
  if (K > 0) {
    Tensor scratch = empty_tensor(S, {exponential_backward_scratch(K, n)});
    ExponentialBackward backward{};
    backward.grad = grad_M.const_data_ptr<float>(), backward.delta = delta.const_data_ptr<float>();
    backward.S = S.const_data_ptr<float>(), backward.dt = dt.const_data_ptr<float>();
    backward.Q = Q.const_data_ptr<float>(), backward.saved = saved.const_data_ptr<float>();
    backward.scratch = scratch.mutable_data_ptr<float>();
    backward.grad_S = grad_S.mutable_data_ptr<float>(), backward.grad_delta = grad_delta.mutable_data_ptr<float>();
    backward.grad_dt = grad_dt.mutable_data_ptr<float>();
    backward.K = K, backward.n = n, backward.substeps = int(substeps);
    check_launch(exponential_backward(backward, device.stream), "strang_step_backward");
  }
  const NeededGradients needed(S, needs);
  return {needed.of(grad_S_bit, grad_S), needed.of(grad_delta_bit, grad_delta), needed.of(grad_dt_bit, grad_dt)};
}

}  // namespace
}  // namespace vfrnn

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, VFRNN_CUDA_KEY, m) {
  m.impl("strang_step", TORCH_BOX(&vfrnn::strang_step));
  m.impl("strang_step_backward", TORCH_BOX(&vfrnn::strang_step_backward));
}
