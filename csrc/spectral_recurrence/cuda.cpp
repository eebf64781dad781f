// Binding of the CUDA kernel of spectral_recurrence: its two chains. What comes before and after is in
// vfrnn_kernels/spectral_recurrence/.
#include "spectral_recurrence/cuda.h"

#include <optional>
#include <string>
#include <tuple>

#include "common/cuda_tensors.h"
#include "recurrence/activation_names.h"

namespace vfrnn {
namespace {

// What both chains read; the tensors live as long as it.
template <class T>
struct Chain {
  SpectralChain<T> chain{};
  const Tensor& like;
  SpectralOnChip on_chip;
  Tensor basis, omega, transposed;
  std::optional<Tensor> delta;

  Chain(Tensor& hs, const std::optional<Tensor>& delta_, const Tensor& dt, const Tensor& basis_, const Tensor& omega_,
        const std::string& activation, int64_t substeps, bool backward)
      : like(dt), basis(packed(basis_)), omega(packed(omega_)) {
    constexpr int64_t largest = 1 << 20;  // n^2 numbers of the basis are beyond any memory
    require(hs.size(2) <= largest, "n must be at most ", largest, ", got ", hs.size(2));
    chain.n = int(hs.size(2)), chain.p = int(omega.size(0));
    on_chip = spectral_on_chip<T>(chain.n, backward, gpu::device_properties().shared_limit);
    chain.basis = basis.const_data_ptr<T>(), chain.omega = omega.const_data_ptr<T>();
    if (on_chip != basis_on_chip) {
      const int64_t shape[] = {2 * omega.size(0), hs.size(2)};
      transposed = packed(ts::transpose(ts::reshape(basis, shape), 0, 1));
      chain.transposed = transposed.const_data_ptr<T>();
    }
    if (delta_.has_value()) delta = packed(*delta_), chain.delta = delta->const_data_ptr<T>();
    chain.dt = dt.const_data_ptr<T>(), chain.dt_step = dt.stride(0), chain.dt_sample = dt.stride(1);
    chain.steps = hs.size(0), chain.samples = hs.size(1), chain.substeps = substeps;
    chain.activation = activation_of<CudaActivation>(activation);
    chain.hs = hs.mutable_data_ptr<T>();
  }

  void launch(bool backward, void* stream) const {
    if (chain.samples == 0) return;
    Tensor scratch =
        empty_tensor(like, {spectral_scratch<T>(chain.samples, chain.n, backward, on_chip)}, ScalarType::Byte);
    check_launch(launch_spectral_chain(chain, backward, on_chip, scratch.mutable_data_ptr(), stream),
                 "spectral_recurrence");
  }
};

// f(T{}) by the dtype of t.
template <class F>
auto dispatch(const Tensor& t, F&& f) {
  if (t.scalar_type() == ScalarType::Double) return f(double{});
  require(t.scalar_type() == ScalarType::Float, "the CUDA kernel of spectral_recurrence is float32 or float64");
  return f(float{});
}

void spectral_recurrence_states(Tensor hs, std::optional<Tensor> delta, const Tensor& dt, const Tensor& h0_,
                                std::optional<Tensor> beta_, const Tensor& basis, const Tensor& omega,
                                std::string activation, int64_t substeps) {
  const OnDevice device(hs);
  dispatch(hs, [&](auto zero) {
    using T = decltype(zero);
    Chain<T> call(hs, delta, dt, basis, omega, activation, substeps, false);
    const Tensor h0 = packed(h0_);
    const std::optional<Tensor> beta = beta_.has_value() ? std::optional<Tensor>(packed(*beta_)) : beta_;
    call.chain.h0 = h0.const_data_ptr<T>(), call.chain.beta = beta.has_value() ? beta->const_data_ptr<T>() : nullptr;
    call.launch(false, device.stream);
  });
}

std::tuple<Tensor, Tensor> spectral_recurrence_grad_z(const Tensor& grad_hs_, std::optional<Tensor> delta,
                                                      const Tensor& dt, const Tensor& basis, const Tensor& omega,
                                                      const Tensor& hs_, std::string activation, int64_t substeps) {
  const OnDevice device(hs_);
  return dispatch(hs_, [&](auto zero) {
    using T = decltype(zero);
    Tensor hs = packed(hs_);
    const bool adjacent = grad_hs_.stride(2) == 1 || grad_hs_.size(2) <= 1;
    const Tensor grad_hs = adjacent ? grad_hs_ : packed(grad_hs_);
    Tensor deltas = empty_tensor(hs, {hs.size(0), hs.size(1), hs.size(2)});
    Tensor grad_h0 = empty_tensor(hs, {hs.size(1), hs.size(2)});
    Chain<T> call(hs, delta, dt, basis, omega, activation, substeps, true);
    call.chain.grad_hs = grad_hs.const_data_ptr<T>();
    call.chain.grad_step = grad_hs.stride(0), call.chain.grad_sample = grad_hs.stride(1);
    call.chain.deltas = deltas.mutable_data_ptr<T>(), call.chain.grad_h0 = grad_h0.mutable_data_ptr<T>();
    call.launch(true, device.stream);
    return std::make_tuple(deltas, grad_h0);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, VFRNN_CUDA_KEY, m) {
  m.impl("spectral_recurrence_states", TORCH_BOX(&spectral_recurrence_states));
  m.impl("spectral_recurrence_grad_z", TORCH_BOX(&spectral_recurrence_grad_z));
}

}  // namespace vfrnn
