// Binding of the CPU kernels of skew_expm.
#include <cstdint>
#include <tuple>

#include "common/gradients.h"
#include "common/tensors.h"
#include "skew_expm/exponential.h"

namespace vfrnn {
namespace {

enum Gradient { grad_S_bit = 0, grad_dt_bit };

std::tuple<Tensor, Tensor> skew_expm(const Tensor& S_, const Tensor& dt) {
  const Tensor S = packed(S_);
  const int64_t K = S.size(0), n = S.size(1);
  return dispatch_real(S, [&](auto zero) {
    using T = decltype(zero);
    Tensor Q = empty_tensor(S, {K, n, n}), saved = empty_tensor(S, {K, saved_matrices<T>(n), n, n});
    skew_expm_forward(S.const_data_ptr<T>(), dt.const_data_ptr<T>(), dt.stride(0), K, n, Q.mutable_data_ptr<T>(),
                      saved.mutable_data_ptr<T>());
    return std::tuple(Q, saved);
  });
}

std::tuple<Tensor, Tensor> skew_expm_backward(const Tensor& grad_Q_, const Tensor& S_, const Tensor& dt,
                                              const Tensor& Q, const Tensor& saved_, int64_t needs) {
  const Tensor grad_Q = packed(grad_Q_), S = packed(S_), saved = packed(saved_);
  const int64_t K = S.size(0), n = S.size(1);
  const NeededGradients needed(Q, needs);
  Tensor grad_S = empty_tensor(Q, {K, n, n}), grad_dt = needed.empty(grad_dt_bit, {K});
  dispatch_real(S, [&](auto zero) {
    using T = decltype(zero);
    if (needed(grad_S_bit) || needed(grad_dt_bit)) {
      skew_expm_gradient(grad_Q.const_data_ptr<T>(), S.const_data_ptr<T>(), dt.const_data_ptr<T>(), dt.stride(0),
                         saved.const_data_ptr<T>(), K, n, grad_S.mutable_data_ptr<T>(),
                         needed.data<T>(grad_dt_bit, grad_dt));
    }
    return 0;
  });
  return {needed.of(grad_S_bit, grad_S), grad_dt};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, CPU, m) {
  m.impl("skew_expm", TORCH_BOX(&skew_expm));
  m.impl("skew_expm_backward", TORCH_BOX(&skew_expm_backward));
}

}  // namespace vfrnn
