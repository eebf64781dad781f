// Binding of the CUDA kernel of spectral_recurrence: its two chains. What comes before and after is in
// vfrnn_kernels/spectral_recurrence/.
#include "spectral_recurrence/cuda.h"

#include <optional>
#include <string>
#include <tuple>

#include "common/cuda_tensors.h"

namespace vfrnn {
namespace {

// What both chains read; the tensors live as long as it.
template <class T, bool backward>
struct Chain {
  SpectralChain<T> chain{};
  const Tensor& like;
  SpectralOnChip on_chip;
  Tensor basis, omega, transposed;
  std::optional<Tensor> delta;

  Chain(Tensor& hs, const std::optional<Tensor>& delta_, const Tensor& dt, const Tensor& basis_, const Tensor& omega_,
        Activation activation, int64_t substeps)
      : like(dt), basis(packed(basis_)), omega(packed(omega_)) {
    constexpr int64_t largest = 1 << 20;  // n^2 numbers of the basis are beyond any memory
    require(hs.size(2) <= largest, "n must be at most ", largest, ", got ", hs.size(2));
    chain.n = int(hs.size(2)), chain.p = int(omega.size(0));
    on_chip = spectral_on_chip<T, backward>(chain.n, device_properties().shared_limit);
    chain.basis = basis.const_data_ptr<T>(), chain.omega = omega.const_data_ptr<T>();
    if (on_chip != basis_on_chip) {
      const int64_t shape[] = {2 * omega.size(0), hs.size(2)};
      transposed = packed(ts::transpose(ts::reshape(basis, shape), 0, 1));
      chain.transposed = transposed.const_data_ptr<T>();
    }
    delta = packed(delta_);
    if (delta.has_value()) chain.delta = delta->template const_data_ptr<T>();
    chain.dt = dt.const_data_ptr<T>(), chain.dt_step = dt.stride(0), chain.dt_sample = dt.stride(1);
    chain.steps = hs.size(0), chain.samples = number_of_blocks(hs.size(1), "spectral_recurrence");
    chain.substeps = substeps;
    chain.activation = activation;
    chain.hs = hs.mutable_data_ptr<T>();
  }

  void launch(void* stream) const {
    if (chain.samples == 0) return;
    Tensor scratch =
        empty_tensor(like, {spectral_scratch<T, backward>(chain.samples, chain.n, on_chip)}, ScalarType::Byte);
    check_launch(launch_spectral_chain<T, backward>(chain, on_chip, scratch.mutable_data_ptr(), stream),
                 "spectral_recurrence");
  }
};

void spectral_recurrence_states(Tensor hs, std::optional<Tensor> delta, const Tensor& dt, const Tensor& h0_,
                                std::optional<Tensor> beta_, const Tensor& basis, const Tensor& omega,
                                Activation activation, int64_t substeps) {
  const OnDevice device(hs);
  dispatch_real(hs, [&](auto zero) {
    using T = decltype(zero);
    Chain<T, false> call(hs, delta, dt, basis, omega, activation, substeps);
    const Tensor h0 = packed(h0_);
    const std::optional<Tensor> beta = packed(beta_);
    call.chain.h0 = h0.const_data_ptr<T>(), call.chain.beta = beta.has_value() ? beta->const_data_ptr<T>() : nullptr;
    call.launch(device.stream);
  });
}

std::tuple<Tensor, Tensor> spectral_recurrence_grad_z(const Tensor& grad_hs_, std::optional<Tensor> delta,
                                                      const Tensor& dt, const Tensor& basis, const Tensor& omega,
                                                      const Tensor& hs_, Activation activation, int64_t substeps) {
  const OnDevice device(hs_);
  return dispatch_real(hs_, [&](auto zero) {
    using T = decltype(zero);
    Tensor hs = packed(hs_);
    const Tensor grad_hs = with_adjacent_entries(grad_hs_);
    Tensor grad_z = empty_tensor(hs, {hs.size(0), hs.size(1), hs.size(2)});
    Tensor grad_h0 = empty_tensor(hs, {hs.size(1), hs.size(2)});
    Chain<T, true> call(hs, delta, dt, basis, omega, activation, substeps);
    call.chain.grad_hs = grad_hs.const_data_ptr<T>();
    call.chain.grad_step = grad_hs.stride(0), call.chain.grad_sample = grad_hs.stride(1);
    call.chain.grad_z = grad_z.mutable_data_ptr<T>(), call.chain.grad_h0 = grad_h0.mutable_data_ptr<T>();
    call.launch(device.stream);
    return std::make_tuple(grad_z, grad_h0);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, VFRNN_CUDA_KEY, m) {
  m.impl("spectral_recurrence_states", TORCH_BOX(&spectral_recurrence_states));
  m.impl("spectral_recurrence_grad_z", TORCH_BOX(&spectral_recurrence_grad_z));
}

}  // namespace vfrnn
