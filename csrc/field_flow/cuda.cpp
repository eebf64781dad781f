// Binding of the CUDA kernels of field_flow.
#include "field_flow/cuda.h"

#include <algorithm>
#include <initializer_list>
#include <tuple>
#include <vector>

#include "common/cuda_tensors.h"
#include "common/gradients.h"
#include "field_flow/inputs.h"
#include "field_flow/series_limit.h"

namespace vfrnn {
namespace {

enum Gradient { h_bit = 0, v_bit, b_bit, w_bit, N_bit, G_bit, dt_bit, scale_bit };

const float* data_of(const Tensor& t) {
  return t.const_data_ptr<float>();
}
// Scratch of a kernel, or none; it lives as long as the binding's call, and its memory stays in the order of the
// stream.
class Scratches {
 public:
  explicit Scratches(const Tensor& like) : like_(like) {}
  float* take(bool wanted, int64_t count) {
    if (!wanted) return nullptr;
    kept_.push_back(empty_tensor(like_, {count}));
    return kept_.back().mutable_data_ptr<float>();
  }
  // A counter that starts at 0, which has the bits of 0.0f.
  uint32_t* counter(bool wanted) {
    if (!wanted) return nullptr;
    kept_.push_back(zeros_tensor(like_, {1}));
    return reinterpret_cast<uint32_t*>(kept_.back().mutable_data_ptr<float>());
  }

 private:
  const Tensor& like_;
  std::vector<Tensor> kept_;
};

// The tensors of a call, contiguous, for as long as the launchers use their pointers.
struct Packed {
  Tensor h, v, b, w, N, G, dt, scale;
  FieldFlowProblem problem;
  explicit Packed(const FlowInputs& inputs)
      : h(packed(inputs.h)),
        v(packed(inputs.v)),
        b(packed(inputs.b)),
        w(packed(inputs.w)),
        N(packed(inputs.N)),
        G(packed(inputs.G)),
        dt(inputs.dt),
        scale(inputs.divergence_scale) {
    require(h.scalar_type() == ScalarType::Float, "the CUDA kernels of field_flow are float32");
    require(h.size(1) <= field_flow_largest_n, "the CUDA kernels of field_flow serve n up to ", field_flow_largest_n,
            ", got n = ", h.size(1));
    problem.v = data_of(v), problem.b = data_of(b), problem.w = data_of(w), problem.N = data_of(N);
    problem.G = data_of(G), problem.dt = data_of(dt), problem.scale = data_of(scale);
    problem.B = int(number_of_blocks(h.size(0), "field_flow")), problem.m = int(N.size(0)), problem.n = int(h.size(1)),
    problem.d = int(G.size(1));
    problem.order = int(inputs.order);
    problem.one_field = v.size(0) == 1, problem.volume_preserving = inputs.volume_preserving;
  }
};

// Launches `forward`, whose h, out, direction and number of substeps are given.
void launch(const FieldFlowProblem& p, FieldFlowForward forward, const Tensor& like, void* stream) {
  const FieldFlowLayout layout = field_flow_layout({p.B, p.m, p.n, p.order, false, false, false}, device_properties());
  const bool plans = forward.read == nullptr && forward.substeps == 0;
  const int64_t mesh = int64_t(p.m) * p.n;
  Scratches scratch(like);
  forward.series_limit = float(series_limit<float>(p.order));
  forward.plan = scratch.take(plans, plans ? field_flow_plan_size(p.n, layout.blocks) : 0);
  forward.C = scratch.take(p.one_field || (!layout.resident && layout.C < 0), p.one_field ? mesh : layout.slots * mesh);
  forward.counter = scratch.counter(plans || p.one_field);
  check_launch(launch_field_flow(p, forward, layout, stream), "field_flow");
}

std::tuple<Tensor, Tensor> field_flow(const Tensor& h, const Tensor& v, const Tensor& b, const Tensor& w,
                                      const Tensor& N, const Tensor& G, const Tensor& dt, const Tensor& scale,
                                      bool volume_preserving, int64_t order, int64_t substeps) {
  const OnDevice device(h);
  const Packed inputs({h, v, b, w, N, G, dt, scale, volume_preserving, order, substeps});
  Tensor result = empty_tensor(h, {h.size(0), h.size(1)}), taken = empty_tensor(h, {});
  if (h.numel() == 0) {
    ts::fill_(taken, double(std::max<int64_t>(substeps, 1)));
    return {result, taken};
  }
  FieldFlowForward forward{};
  forward.h = data_of(inputs.h), forward.out = result.mutable_data_ptr<float>();
  forward.direction = 1.f;
  forward.substeps = int(substeps), forward.taken = taken.mutable_data_ptr<float>();
  launch(inputs.problem, forward, h, device.stream);
  return {result, taken};
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Gradients field_flow_backward(const Tensor& grad_, const Tensor& h, const Tensor& v, const Tensor& b, const Tensor& w,
                              const Tensor& N, const Tensor& G, const Tensor& dt, const Tensor& scale, const Tensor&,
                              const Tensor& taken, bool volume_preserving, int64_t order, int64_t substeps,
                              int64_t needs) {
  const OnDevice device(h);
  const Packed inputs({h, v, b, w, N, G, dt, scale, volume_preserving, order, substeps});
  const FieldFlowProblem& p = inputs.problem;
  const Tensor grad = packed(grad_);
  const int64_t B = p.B, n = p.n, m = p.m, d = p.d;
  const bool runs = h.numel() > 0 && needs != 0;
  const NeededGradients needed(h, needs);
  const auto gradient = [&](int bit, std::initializer_list<int64_t> sizes) {
    return runs ? needed.empty(bit, sizes) : needed.zeros(bit, sizes);
  };
  Tensor grad_h = gradient(h_bit, {B, n}), grad_v = gradient(v_bit, {v.size(0), m, d}), grad_b = gradient(b_bit, {n});
  Tensor grad_w = gradient(w_bit, {m}), grad_N = gradient(N_bit, {m, n}), grad_G = gradient(G_bit, {m, d, n});
  Tensor grad_dt = gradient(dt_bit, {}), grad_scale = gradient(scale_bit, {});
  if (runs && needed.only(h_bit)) {  // the adjoint of the flow of S is the flow of -S
    FieldFlowForward forward{};
    forward.h = data_of(grad), forward.out = grad_h.mutable_data_ptr<float>();
    forward.direction = -1.f;
    forward.read = data_of(taken);
    launch(p, forward, h, device.stream);
  } else if (runs) {
    const bool to_X = needed(v_bit) || needed(w_bit) || needed(G_bit), to_Y = needed(N_bit);
    const bool one_X_each = !p.one_field && needed(G_bit);
    const FieldFlowLayout layout = field_flow_layout({B, p.m, p.n, p.order, true, to_X, to_Y}, device_properties());
    const int64_t slots = layout.slots, mesh = m * n, terms = 2 * order;
    const int states = int(substeps == 0 ? field_flow_states : std::min<int64_t>(substeps, field_flow_states));
    Scratches scratch(h);
    FieldFlowBackward backward{};
    backward.grad = data_of(grad), backward.h = data_of(inputs.h), backward.taken = data_of(taken);
    backward.grad_h = needed.data<float>(h_bit, grad_h), backward.grad_v = needed.data<float>(v_bit, grad_v);
    backward.grad_b = needed.data<float>(b_bit, grad_b), backward.grad_w = needed.data<float>(w_bit, grad_w);
    backward.grad_N = needed.data<float>(N_bit, grad_N), backward.grad_G = needed.data<float>(G_bit, grad_G);
    backward.grad_dt = needed.data<float>(dt_bit, grad_dt),
    backward.grad_scale = needed.data<float>(scale_bit, grad_scale);
    backward.C = scratch.take(p.one_field || layout.C < 0, p.one_field ? mesh : slots * mesh);
    backward.states = scratch.take(true, slots * states * n);
    backward.state_count = states;
    backward.tape = scratch.take(layout.tape < 0, slots * terms * n);
    backward.coefficients = scratch.take(layout.coefficients < 0, slots * 2 * terms * m);
    backward.X = scratch.take(to_X && (p.one_field || one_X_each || layout.X < 0), (one_X_each ? B : slots) * mesh);
    backward.Y = scratch.take(to_Y, slots * mesh);
    backward.rows_b = scratch.take(true, B * n);
    backward.parts_w = scratch.take(!p.one_field && needed(w_bit), B * m);
    backward.parts = scratch.take(true, 2 * B);
    backward.counter = scratch.counter(true);
    check_launch(launch_field_flow_backward(p, backward, layout, device.stream), "field_flow_backward");
  }
  return {grad_h, grad_v, grad_b, grad_w, grad_N, grad_G, grad_dt, grad_scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, VFRNN_CUDA_KEY, m) {
  m.impl("field_flow", TORCH_BOX(&field_flow));
  m.impl("field_flow_backward", TORCH_BOX(&field_flow_backward));
}

}  // namespace vfrnn
