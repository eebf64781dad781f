// The backward CUDA kernel of field_flow: equations (6) to (9) of vfrnn_kernels/field_flow/README.md.
//
// A block takes one sample after the other: the flow, of which it keeps some states, then the adjoint, substep by
// substep from the last. The vectors z = B^-1/2 y_{j+1} and B^-1/2 r_j of one substep and the dots of the cells with
// them are kept; their products are added to X and Y, here the gradients over w_c / 2 of the unscaled C_c and N_c. Then
// all blocks wait for each other and sum over the samples, each sum by one block in a fixed order.
#include "field_flow/adjoint.h"
#include "field_flow/sample_sums.h"

namespace vfrnn {
namespace {

template <class S>
__global__ void __launch_bounds__(S::most_threads, 1)
    backward_kernel(FieldFlowProblem p, FieldFlowBackward g, FieldFlowLayout layout) {
  float* C = of_slot(g.C, p.one_field ? 0 : int64_t(p.m) * p.n);
  Mesh<S> mesh(p, layout, C);
  const int slot = gpu::opaque(int(blockIdx.x));
  const bool to_X = g.grad_v || g.grad_w || g.grad_G, one_X_each = !p.one_field && g.grad_G;
  AdjointNode* nodes = reinterpret_cast<AdjointNode*>(mesh.shared() + layout.nodes);
  float* z = mesh.shared() + layout.z;
  Times* times = reinterpret_cast<Times*>(z + p.n);
  Adjoint<S> adjoint = {p, g, layout, mesh, nodes, times};
  for_nodes(p.n, [&](int j) { nodes[j].r = gpu::inverse_root(p.b[j]); });
  if (threadIdx.x == 0) {
    const TimeStep step = time_step(*g.taken, *p.dt);
    *times = {step.tau, 0.f, slot, step.count, (step.count + g.state_count - 1) / g.state_count};
  }
  gpu::sync_threads();
  uint32_t round = 0;
  if (p.one_field) {
    contract_for_all(mesh, g.C);
    gpu::grid_sync(g.counter, ++round);
  }
  const auto state = [&](int s) { return g.states + (int64_t(slot) * g.state_count + s / times->segment) * p.n; };
  for (int sample = slot; sample < p.B; sample += layout.slots) {
    if (S::resident || !p.one_field || sample == slot) {
      mesh.start(p.one_field ? nullptr : p.v + int64_t(sample) * p.m * p.d, p.one_field ? g.C : nullptr);
    }
    if (!p.one_field || sample == slot) {
      const float mean = divergence(mesh, nodes, times->tau);
      if (threadIdx.x == 0) times->mean = mean;
    }
    if (S::resident && !p.one_field && times->count > 1) mesh.keep(C);
    if (one_X_each && threadIdx.x == 0) times->X_index = sample;
    const bool sets_X = !p.one_field || sample == slot;
    for_nodes(p.n, [&](int j) { nodes[j].h = g.h[int64_t(sample) * p.n + j]; });
    for (int s = 0; s < times->count; ++s) {
      if (s % times->segment == 0) for_nodes(p.n, [&](int j) { state(s)[j] = nodes[j].h; });
      if (s + 1 < times->count) substep(mesh, nodes, times->tau, z);
    }
    for_nodes(p.n, [&](int j) {
      nodes[j].grad = g.grad[int64_t(sample) * p.n + j];
      nodes[j].to_e = nodes[j].to_b = nodes[j].to_tau = 0.f;
    });
    for (int s = times->count - 1;; --s) {
      for_nodes(p.n, [&](int j) { nodes[j].h = state(s)[j]; });
      for (int again = s % times->segment; again > 0; --again) substep(mesh, nodes, times->tau, z);
      adjoint.terms();
      adjoint.series();
      if (s == 0) adjoint.finish(sample);
      const bool is_last = s == times->count - 1;
      if (to_X) adjoint.add_products(false, s == 0, is_last && sets_X);
      if (g.grad_N) adjoint.add_products(true, false, is_last && sample == slot);
      gpu::sync_threads();
      if (s == 0) break;
      if (S::resident) mesh.start(nullptr, C);  // which leaves the registers to the products
    }
    if (!p.one_field && (g.grad_v || g.grad_w)) adjoint.field_gradients(sample);
    if (one_X_each && layout.X >= 0) adjoint.copy(adjoint.X(), g.X + sample * adjoint.size());
    gpu::sync_threads();
  }
  if (slot < layout.slots) {
    if (p.one_field && to_X && layout.X >= 0) adjoint.copy(adjoint.X(), g.X + slot * adjoint.size());
    if (g.grad_N && layout.Y >= 0) adjoint.copy(adjoint.Y(), g.Y + slot * adjoint.size());
  }
  gpu::grid_sync(g.counter, ++round);

  const bool of_cells = to_X || g.grad_N;
  const int cells = of_cells ? p.m : 0, chunks = g.grad_b ? (p.n + 31) / 32 : 0;
  for (int task = int(blockIdx.x); task <= cells + chunks; task += int(gridDim.x)) {
    if (task < cells) {
      sum_cell(mesh, g, layout.slots, z, task);
    } else if (task < cells + chunks) {
      sum_b(mesh, g, 32 * (task - cells));
    } else if (mesh.warp == 0) {
      float on_dt = 0.f, on_scale = 0.f;
      for (int64_t i = mesh.lane; i < p.B; i += 32) on_dt += g.parts[2 * i], on_scale += g.parts[2 * i + 1];
      on_dt = gpu::warp_sum(on_dt), on_scale = gpu::warp_sum(on_scale);
      if (mesh.lane == 0 && g.grad_dt) *g.grad_dt = on_dt;
      if (mesh.lane == 0 && g.grad_scale) *g.grad_scale = on_scale;
    }
  }
}

}  // namespace

int launch_field_flow_backward(const FieldFlowProblem& problem, const FieldFlowBackward& backward,
                               const FieldFlowLayout& layout, void* stream) {
  const gpu::Launch l = {uint32_t(layout.blocks), 1, 1,    uint32_t(32 * layout.warps),
                         layout.shared,           1, true, static_cast<cudaStream_t>(stream)};
  return with_shape(
      layout, [&](auto shape) { return gpu::launch(l, backward_kernel<decltype(shape)>, problem, backward, layout); });
}

}  // namespace vfrnn
