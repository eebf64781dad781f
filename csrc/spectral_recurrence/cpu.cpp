// The chains of spectral_recurrence on the CPU: the states, and the gradients of the pre-activations, for all steps.
// Packs the planes once per pass and splits the batch once for all T over the framework's threads. The loop over time
// is in kernels.cpp; what follows from all steps together, in vfrnn_kernels/spectral_recurrence/.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "common/isa.h"
#include "common/packing.h"
#include "common/scratch.h"
#include "common/team.h"
#include "common/tensors.h"
#include "skew_expm/coefficients.h"
#include "spectral_recurrence/kernels.h"

namespace vfrnn {
namespace {

// Samples that go through time together, and multiply-adds of a call below which another thread costs more than it
// takes over.
constexpr int64_t block_rows = 64, work_per_thread = 200000;
constexpr double two_over_pi = 0.63661977236758134308;

// What both chains read; the tensors live as long as it.
template <class T>
struct Chain {
  const SpectralKernels<T>& kernel = IsaTable<SpectralKernels<T>>::active();
  SpectralProblem<T> problem{};
  int64_t samples;
  Tensor dt, quarters, growth, beta, analysis, synthesis;

  Chain(Tensor& hs, const std::optional<Tensor>& delta, const Tensor& dt_, const Tensor& basis_, const Tensor& omega,
        Activation activation, int64_t substeps)
      : samples(hs.size(1)), dt(dt_) {
    const Tensor basis = packed(basis_);
    const int64_t W = kernel.panel_width, n = hs.size(2), P = omega.size(0);
    const int64_t plane_panels = panels_of(P, W);
    problem.steps = hs.size(0), problem.n = n, problem.planes = P, problem.substeps = substeps;
    problem.activation = activation;
    check_times();
    problem.dt = {dt.const_data_ptr<T>(), dt.stride(0), samples == 1 ? 0 : dt.stride(1)};
    quarters = padded<T>(omega, hs, P, W, two_over_pi / double(substeps));
    problem.quarters = quarters.const_data_ptr<T>();
    if (delta.has_value()) {
      check_finite<T>("delta", packed(*delta));
      growth = padded<T>(delta, hs, n, W, -0.25 / double(substeps));
      problem.growth = growth.const_data_ptr<T>();
    }
    check_range(delta, packed(omega), double(substeps));
    analysis = empty_tensor(hs, {2 * plane_panels * n * W}),
    synthesis = empty_tensor(hs, {panels_of(n, W) * 2 * P * W});
    const T* b = basis.const_data_ptr<T>();  // (2, P, n)
    for (int64_t half = 0; half < 2; ++half) {
      pack(b + half * P * n, 1, n, n, P, W, analysis.mutable_data_ptr<T>() + half * plane_panels * n * W, n, 0);
    }
    pack(b, n, 1, 2 * P, n, W, synthesis.mutable_data_ptr<T>(), 2 * P, 0);
    problem.analysis = analysis.const_data_ptr<T>(), problem.synthesis = synthesis.const_data_ptr<T>();
    problem.hs = hs.mutable_data_ptr<T>(), problem.hs_step = samples * n;
  }

  void check_times() const {
    const T* p = dt.const_data_ptr<T>();
    T sum = 0;
    for (int64_t t = 0; t < dt.size(0); ++t) {
      for (int64_t b = 0; b < dt.size(1); ++b) {
        const T time = p[t * dt.stride(0) + b * dt.stride(1)];
        sum += time - time;
      }
    }
    require(sum == 0, "dt must be finite, got NaN or infinity");
  }

  // The angles are served, by the bound of skew_expm, and the exponentials of delta are numbers.
  void check_range(const std::optional<Tensor>& delta, const Tensor& omega, double substeps) const {
    const auto extremes = [](const Tensor& t) {
      const Tensor values = packed(t);
      const T* p = values.const_data_ptr<T>();
      const auto [least, most] = std::minmax_element(p, p + values.numel());
      return std::pair<double, double>(*least, *most);
    };
    if (dt.numel() == 0) return;
    const auto [first, last] = extremes(dt);
    const double norm = std::max(-first, last) * extremes(omega).second / substeps;
    const double bound = std::ldexp(skew_expm_scheme<T>.theta, max_squarings);
    require(norm <= bound, "dt * S must have a spectral norm below ", bound, ", but its norm is ", norm);
    if (!delta.has_value()) return;
    const auto [least, most] = extremes(*delta);
    check_scales<T>(std::max({-first * least, -first * most, -last * least, -last * most}) / (4 * substeps));
  }

  // block(begin, end, workspace) of the kernels, for all samples
  template <class F>
  void run(const F& block) const {
    const double work =
        double(problem.steps) * double(samples) * double(problem.substeps) * 2 * double(problem.n) * double(problem.n);
    const int64_t worth = int64_t(std::min(work / double(work_per_thread), 1e6));
    const int64_t slices = std::max<int64_t>(1, std::min({usable_threads(), samples, worth}));
    const int64_t rows = std::min(block_rows, (samples + slices - 1) / slices);
    parallel_for(0, slices, 1, [&](int64_t first, int64_t last) {
      const Scratch<T> workspace(kernel.workspace(problem, rows));
      for (int64_t s = first; s < last; ++s) {
        const int64_t begin = samples * s / slices, end = samples * (s + 1) / slices;
        for (int64_t row = begin; row < end && !stop_asked(); row += rows) {
          block(problem, row, std::min(end, row + rows), workspace.get());
        }
      }
    });
  }
};

void spectral_recurrence_states(Tensor hs, std::optional<Tensor> delta, const Tensor& dt, const Tensor& h0_,
                                std::optional<Tensor> beta, const Tensor& basis, const Tensor& omega,
                                Activation activation, int64_t substeps) {
  dispatch_real(hs, [&](auto zero) {
    using T = decltype(zero);
    Chain<T> chain(hs, delta, dt, basis, omega, activation, substeps);
    const Tensor h0 = with_adjacent_entries(h0_);
    chain.problem.h0 = rows_of<T>(h0);
    chain.beta = padded<T>(beta, hs, hs.size(2), chain.kernel.panel_width);
    chain.problem.beta = chain.beta.template const_data_ptr<T>();
    chain.run(chain.kernel.forward);
  });
}

std::tuple<Tensor, Tensor> spectral_recurrence_grad_z(const Tensor& grad_hs_, std::optional<Tensor> delta,
                                                      const Tensor& dt, const Tensor& basis, const Tensor& omega,
                                                      const Tensor& hs_, Activation activation, int64_t substeps) {
  return dispatch_real(hs_, [&](auto zero) {
    using T = decltype(zero);
    Tensor hs = packed(hs_);
    Chain<T> chain(hs, delta, dt, basis, omega, activation, substeps);
    const Tensor grad_hs = with_adjacent_entries(grad_hs_);
    chain.problem.grad_hs = rows_of<T>(grad_hs);
    Tensor grad_z = empty_tensor(hs, {hs.size(0), hs.size(1), hs.size(2)});
    Tensor grad_h0 = empty_tensor(hs, {hs.size(1), hs.size(2)});
    chain.problem.grad_z = grad_z.mutable_data_ptr<T>(), chain.problem.grad_h0 = grad_h0.mutable_data_ptr<T>();
    chain.run(chain.kernel.backward);
    return std::make_tuple(grad_z, grad_h0);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, CPU, m) {
  m.impl("spectral_recurrence_states", TORCH_BOX(&spectral_recurrence_states));
  m.impl("spectral_recurrence_grad_z", TORCH_BOX(&spectral_recurrence_grad_z));
}

}  // namespace vfrnn
