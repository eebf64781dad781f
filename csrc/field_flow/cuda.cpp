// Binding of the CUDA kernels of field_flow.
#include "field_flow/cuda.h"

#include <algorithm>
#include <tuple>

#include "common/cuda_tensors.h"
#include "field_flow/plan.h"

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
struct Inputs {
  Tensor h, v, b, w, N, G, dt, scale;
  FieldFlowProblem problem;
  Inputs(const Tensor& h, const Tensor& v, const Tensor& b, const Tensor& w, const Tensor& N, const Tensor& G,
         const Tensor& dt, const Tensor& scale, bool volume_preserving, int64_t order)
      : h(packed(h)), v(packed(v)), b(packed(b)), w(packed(w)), N(packed(N)), G(packed(G)), dt(dt), scale(scale) {
    require(h.scalar_type() == ScalarType::Float, "the CUDA kernels of field_flow are float32");
    require(h.size(0) <= INT32_MAX, "field_flow: too many samples: ", h.size(0));
    require(h.size(1) <= field_flow_largest_n, "the CUDA kernels of field_flow serve n up to ", field_flow_largest_n,
            ", got n = ", h.size(1));
    problem = {data_of(this->v), data_of(this->b), data_of(this->w), data_of(this->N), data_of(this->G),
               data_of(dt),      data_of(scale),   int(h.size(0)),   int(N.size(0)),   int(h.size(1)),
               int(G.size(1)),   int(order),       v.size(0) == 1,   volume_preserving};
  }
};

FieldFlowLayout layout_of(const FieldFlowProblem& p, bool backward, bool to_X, bool to_Y) {
  const gpu::DeviceProperties device = gpu::device_properties();
  return field_flow_layout(p.B, p.m, p.n, p.order, backward, to_X, to_Y, device.multiprocessors, device.shared_limit);
}

// The flow of S, or for direction -1 of -S with the number of substeps in `read`.
void flow(const Inputs& inputs, const Tensor& h, Tensor& out, float direction, int64_t substeps, const float* read,
          float* taken, void* stream) {
  const FieldFlowProblem& p = inputs.problem;
  const FieldFlowLayout layout = layout_of(p, false, false, false);
  const bool plans = read == nullptr && substeps == 0;
  const int64_t mesh = int64_t(p.m) * p.n;
  Scratches scratch(h);
  float* plan = scratch.take(plans, plans ? field_flow_plan_size(p.n, layout.blocks) : 0);
  float* C = scratch.take(p.one_field || (!layout.resident && layout.C < 0), p.one_field ? mesh : layout.slots * mesh);
  const FieldFlowForward forward{data_of(h),
                                 out.mutable_data_ptr<float>(),
                                 direction,
                                 int(substeps),
                                 read,
                                 taken,
                                 float(series_limit<float>(p.order)),
                                 plan,
                                 C,
                                 scratch.counter(plans || p.one_field)};
  check_launch(launch_field_flow(p, forward, layout, stream), "field_flow");
}

std::tuple<Tensor, Tensor> field_flow(const Tensor& h, const Tensor& v, const Tensor& b, const Tensor& w,
                                      const Tensor& N, const Tensor& G, const Tensor& dt, const Tensor& scale,
                                      bool volume_preserving, int64_t order, int64_t substeps) {
  const OnDevice device(h);
  const Inputs inputs(h, v, b, w, N, G, dt, scale, volume_preserving, order);
  Tensor result = empty_tensor(h, {h.size(0), h.size(1)}), taken = empty_tensor(h, {});
  if (h.numel() == 0) {
    ts::fill_(taken, double(std::max<int64_t>(substeps, 1)));
  } else {
    flow(inputs, inputs.h, result, 1.f, substeps, nullptr, taken.mutable_data_ptr<float>(), device.stream);
  }
  return {result, taken};
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Gradients field_flow_backward(const Tensor& grad_, const Tensor& h, const Tensor& v, const Tensor& b, const Tensor& w,
                              const Tensor& N, const Tensor& G, const Tensor& dt, const Tensor& scale, const Tensor&,
                              const Tensor& taken, bool volume_preserving, int64_t order, int64_t substeps,
                              int64_t needs) {
  const OnDevice device(h);
  const Inputs inputs(h, v, b, w, N, G, dt, scale, volume_preserving, order);
  const FieldFlowProblem& p = inputs.problem;
  const Tensor grad = packed(grad_);
  const int64_t B = p.B, n = p.n, m = p.m, d = p.d;
  const bool runs = h.numel() > 0 && needs != 0;
  const auto needed = [&](int bit) { return wanted(needs, bit); };
  const auto gradient = [&](int bit, std::initializer_list<int64_t> sizes) {
    return !needed(bit) ? empty_tensor(h, {0}) : runs ? empty_tensor(h, sizes) : zeros_tensor(h, sizes);
  };
  Tensor grad_h = gradient(h_bit, {B, n}), grad_v = gradient(v_bit, {v.size(0), m, d}), grad_b = gradient(b_bit, {n});
  Tensor grad_w = gradient(w_bit, {m}), grad_N = gradient(N_bit, {m, n}), grad_G = gradient(G_bit, {m, d, n});
  Tensor grad_dt = gradient(dt_bit, {}), grad_scale = gradient(scale_bit, {});
  if (runs && needs == 1 << h_bit) {  // the adjoint of the flow of S is the flow of -S
    flow(inputs, grad, grad_h, -1.f, 0, data_of(taken), nullptr, device.stream);
  } else if (runs) {
    const bool to_X = needed(v_bit) || needed(w_bit) || needed(G_bit), to_Y = needed(N_bit);
    const bool one_X_each = !p.one_field && needed(G_bit);
    const FieldFlowLayout layout = layout_of(p, true, to_X, to_Y);
    const int64_t slots = layout.slots, mesh = m * n, terms = 2 * order;
    const int states = int(substeps == 0 ? field_flow_states : std::min<int64_t>(substeps, field_flow_states));
    const auto data = [&](Tensor& t, int bit) { return needed(bit) ? t.mutable_data_ptr<float>() : nullptr; };
    Scratches scratch(h);
    FieldFlowBackward backward{};
    backward.grad = data_of(grad), backward.h = data_of(inputs.h), backward.taken = data_of(taken);
    backward.grad_h = data(grad_h, h_bit), backward.grad_v = data(grad_v, v_bit);
    backward.grad_b = data(grad_b, b_bit), backward.grad_w = data(grad_w, w_bit);
    backward.grad_N = data(grad_N, N_bit), backward.grad_G = data(grad_G, G_bit);
    backward.grad_dt = data(grad_dt, dt_bit), backward.grad_scale = data(grad_scale, scale_bit);
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
