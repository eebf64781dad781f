// Binding of the CUDA kernels of skew_expm.
#include "skew_expm/cuda.h"

#include <tuple>

#include "common/cuda_tensors.h"

namespace vfrnn {
namespace {

enum Gradient { grad_S_bit = 0, grad_dt_bit };

std::tuple<Tensor, Tensor> skew_expm(const Tensor& S_, const Tensor& dt_) {
  const OnDevice device(S_);
  const Tensor S = packed(S_), dt = packed(dt_);
  const int64_t K = S.size(0);
  const int n = int(S.size(1));
  Tensor Q = empty_tensor(S, {K, n, n}), kept = empty_tensor(S, {K, kept_slots, n, n});
  if (K == 0) return {Q, kept};
  Tensor scratch = empty_tensor(S, {exponential_forward_scratch(K, n)});
  check_launch(
      exponential_forward({S.const_data_ptr<float>(), nullptr, dt.const_data_ptr<float>(), Q.mutable_data_ptr<float>(),
                           nullptr, kept.mutable_data_ptr<float>(), scratch.mutable_data_ptr<float>(), K, n, 1},
                          device.stream),
      "skew_expm");
  return {Q, kept};
}

std::tuple<Tensor, Tensor> skew_expm_backward(const Tensor& grad_Q_, const Tensor& S_, const Tensor& dt_,
                                              const Tensor& Q, const Tensor& kept, int64_t needs) {
  const OnDevice device(S_);
  const Tensor grad_Q = packed(grad_Q_), S = packed(S_), dt = packed(dt_);
  const int64_t K = S.size(0);
  const int n = int(S.size(1));
  Tensor grad_S = empty_tensor(S, {K, n, n}), grad_dt = empty_tensor(S, {K});
  if (K > 0) {
    Tensor scratch = empty_tensor(S, {exponential_backward_scratch(K, n)});
    check_launch(exponential_backward(
                     {grad_Q.const_data_ptr<float>(), nullptr, S.const_data_ptr<float>(), dt.const_data_ptr<float>(),
                      Q.const_data_ptr<float>(), kept.const_data_ptr<float>(), scratch.mutable_data_ptr<float>(),
                      grad_S.mutable_data_ptr<float>(), nullptr, grad_dt.mutable_data_ptr<float>(), K, n, 1},
                     device.stream),
                 "skew_expm_backward");
  }
  const auto asked = [&](int bit, const Tensor& t) { return wanted(needs, bit) ? t : empty_tensor(S, {0}); };
  return {asked(grad_S_bit, grad_S), asked(grad_dt_bit, grad_dt)};
}

}  // namespace
}  // namespace vfrnn

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, VFRNN_CUDA_KEY, m) {
  m.impl("skew_expm", TORCH_BOX(&vfrnn::skew_expm));
  m.impl("skew_expm_backward", TORCH_BOX(&vfrnn::skew_expm_backward));
}
