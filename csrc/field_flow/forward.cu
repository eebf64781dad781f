// The forward CUDA kernel of field_flow. Equations: vfrnn_kernels/field_flow/README.md.
//
// A block takes one sample after the other through all substeps and terms. Before, where all samples share a field or
// the substeps are planned, all blocks work on that together and wait for each other.
#include "field_flow/plan_device.h"

namespace vfrnn {
namespace {

template <class S>
__global__ void __launch_bounds__(S::most_threads, 1)
    forward_kernel(FieldFlowProblem p, FieldFlowForward f, FieldFlowLayout layout) {
  Mesh<S> mesh(p, layout, of_slot(f.C, p.one_field ? 0 : int64_t(p.m) * p.n));
  Node* nodes = reinterpret_cast<Node*>(mesh.shared() + layout.nodes);
  float* z = mesh.shared() + layout.z;
  for_nodes(p.n, [&](int j) { nodes[j].r = gpu::inverse_root(p.b[j]); });
  uint32_t round = 0;
  if (p.one_field) contract_for_all(mesh, f.C);
  float taken = f.read ? *f.read : float(f.substeps);
  if (!f.read && f.substeps == 0) taken = planned_substeps(mesh, nodes, f.series_limit, f.plan, f.counter, round);
  if (p.one_field && round == 0) gpu::grid_sync(f.counter, ++round);
  if (f.taken && blockIdx.x == 0 && threadIdx.x == 0) *f.taken = taken;
  const TimeStep step = time_step(taken, *p.dt);
  for (int sample = int(blockIdx.x); sample < p.B; sample += layout.slots) {
    if (!p.one_field || sample == int(blockIdx.x)) {
      mesh.start(p.one_field ? nullptr : p.v + int64_t(sample) * p.m * p.d, p.one_field ? f.C : nullptr);
      divergence(mesh, nodes, step.tau);
    }
    for_nodes(p.n, [&](int j) { nodes[j].h = f.h[int64_t(sample) * p.n + j]; });
    for (int s = 0; s < step.count; ++s) substep(mesh, nodes, step.tau * f.direction, z);
    for_nodes(p.n, [&](int j) { f.out[int64_t(sample) * p.n + j] = nodes[j].h; });
  }
}

}  // namespace

int launch_field_flow(const FieldFlowProblem& problem, const FieldFlowForward& forward, const FieldFlowLayout& layout,
                      void* stream) {
  const bool waits = forward.counter != nullptr;
  const gpu::Launch l = {uint32_t(waits ? layout.blocks : layout.slots),
                         1,
                         1,
                         uint32_t(32 * layout.warps),
                         layout.shared,
                         1,
                         waits,
                         static_cast<cudaStream_t>(stream)};
  return with_shape(
      layout, [&](auto shape) { return gpu::launch(l, forward_kernel<decltype(shape)>, problem, forward, layout); });
}

}  // namespace vfrnn
