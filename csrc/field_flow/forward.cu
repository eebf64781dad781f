// The forward CUDA kernel of field_flow, and the layout of both. Equations: vfrnn_kernels/field_flow/README.md.
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

FieldFlowLayout field_flow_layout(int64_t B, int m, int n, int order, bool backward, bool to_X, bool to_Y,
                                  int multiprocessors, int shared_limit) {
  FieldFlowLayout l = {};
  l.columns = n <= 64 ? 2 : n <= 256 ? 8 : 32;
  l.rows = l.columns == 32 ? 1 : 4;
  const int most_warps = l.columns == 32 ? 8 : 16;
  const int for_cells = (m + l.rows - 1) / l.rows, for_nodes = (n + 63) / 64;
  l.warps = for_cells > for_nodes ? for_cells : for_nodes;
  l.warps = l.warps < most_warps ? l.warps : most_warps;
  l.resident = l.columns < 32 && m <= l.warps * l.rows;
  int64_t floats = int64_t(l.warps) * 32 * l.columns;
  l.nodes = int(floats);
  floats += (backward ? field_flow_backward_values : int64_t(sizeof(Node) / sizeof(float))) * n;
  l.z = int(floats);
  floats += n + (backward ? field_flow_backward_common : 0);
  // What else fits is shared memory too, first what is read most often.
  const auto place = [&](bool wanted, int64_t count) {
    if (!wanted || (floats + count) * int64_t(sizeof(float)) > shared_limit) return -1;
    floats += count;
    return int(floats - count);
  };
  const int64_t terms = 2 * int64_t(order), mesh = int64_t(m) * n;
  l.tape = place(backward, terms * n);
  l.coefficients = place(backward, 2 * terms * m);
  l.C = place(!l.resident, mesh);
  l.N = place(!l.resident, mesh);
  l.X = place(to_X, mesh);
  l.Y = place(to_Y, mesh);
  l.shared = floats * int64_t(sizeof(float));
  // Blocks that run at the same time: by registers (the kernels are compiled for one of the largest block), and by
  // shared memory, of which a multiprocessor takes 1 KB more for every block.
  int64_t together = most_warps / l.warps;
  const int64_t by_memory = (int64_t(shared_limit) + 1024) / (l.shared + 1024);
  together = together < by_memory ? together : by_memory;
  const int64_t most = multiprocessors * (together > 1 ? together : 1);
  l.blocks = int(B < multiprocessors ? multiprocessors : B < most ? B : most);
  l.slots = int(B < l.blocks ? B : l.blocks);
  return l;
}

int64_t field_flow_plan_size(int n, int blocks) {
  return int64_t(norms + 1) * blocks + int64_t(n) * n;
}

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
