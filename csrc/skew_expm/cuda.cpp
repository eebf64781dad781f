// Binding of the CUDA kernels of skew_expm.
#include "skew_expm/cuda.h"

#include <tuple>

#include "common/cuda_tensors.h"
#include "common/gradients.h"

namespace vfrnn {
namespace {

enum Gradient { grad_S_bit = 0, grad_dt_bit };

std::tuple<Tensor, Tensor> skew_expm(const Tensor& S_, const Tensor& dt_) {
  const OnDevice device(S_);
  const Tensor S = packed(S_), dt = packed(dt_);
  const int64_t K = number_of_blocks(S.size(0), "skew_expm");
  const int n = int(S.size(1));
  Tensor Q = empty_tensor(S, {K, n, n}), saved = empty_tensor(S, {K, saved_slots, n, n});
  if (K == 0) return {Q, saved};
  Tensor scratch = empty_tensor(S, {exponential_forward_scratch(K, n)});
  ExponentialForward forward{};
  forward.S = S.const_data_ptr<float>(), forward.dt = dt.const_data_ptr<float>();
  forward.Q = Q.mutable_data_ptr<float>(), forward.saved = saved.mutable_data_ptr<float>();
  forward.scratch = scratch.mutable_data_ptr<float>();
  forward.K = K, forward.n = n, forward.substeps = 1;
  check_launch(exponential_forward(forward, device.stream), "skew_expm");
  return {Q, saved};
}

std::tuple<Tensor, Tensor> skew_expm_backward(const Tensor& grad_Q_, const Tensor& S_, const Tensor& dt_,
                                              const Tensor& Q, const Tensor& saved, int64_t needs) {
  const OnDevice device(S_);
  const Tensor grad_Q = packed(grad_Q_), S = packed(S_), dt = packed(dt_);
  const int64_t K = number_of_blocks(S.size(0), "skew_expm");
  const int n = int(S.size(1));
  Tensor grad_S = empty_tensor(S, {K, n, n}), grad_dt = empty_tensor(S, {K});
  if (K > 0) {
    Tensor scratch = empty_tensor(S, {exponential_backward_scratch(K, n)});
    ExponentialBackward backward{};
    backward.grad = grad_Q.const_data_ptr<float>();
    backward.S = S.const_data_ptr<float>(), backward.dt = dt.const_data_ptr<float>();
    backward.Q = Q.const_data_ptr<float>(), backward.saved = saved.const_data_ptr<float>();
    backward.scratch = scratch.mutable_data_ptr<float>();
    backward.grad_S = grad_S.mutable_data_ptr<float>(), backward.grad_dt = grad_dt.mutable_data_ptr<float>();
    backward.K = K, backward.n = n, backward.substeps = 1;
    check_launch(exponential_backward(backward, device.stream), "skew_expm_backward");
  }
  const NeededGradients needed(S, needs);
  return {needed.of(grad_S_bit, grad_S), needed.of(grad_dt_bit, grad_dt)};
}

}  // namespace
}  // namespace vfrnn

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, VFRNN_CUDA_KEY, m) {
  m.impl("skew_expm", TORCH_BOX(&vfrnn::skew_expm));
  m.impl("skew_expm_backward", TORCH_BOX(&vfrnn::skew_expm_backward));
}
