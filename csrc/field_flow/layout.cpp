#include "field_flow/layout.h"

#include <algorithm>

namespace vfrnn {

FieldFlowLayout field_flow_layout(const FieldFlowWork& work, const gpu::DeviceProperties& device) {
  const int m = work.m, n = work.n;
  FieldFlowLayout l = {};
  l.columns = n <= 64 ? 2 : n <= 256 ? 8 : 32;
  l.rows = l.columns == 32 ? 1 : 4;
  const int most_warps = l.columns == 32 ? 8 : 16;
  const int for_cells = (m + l.rows - 1) / l.rows, for_nodes = (n + 63) / 64;
  l.warps = std::min(std::max(for_cells, for_nodes), most_warps);
  l.resident = l.columns < 32 && m <= l.warps * l.rows;
  int64_t floats = int64_t(l.warps) * 32 * l.columns;
  l.nodes = int(floats);
  floats += int64_t(work.backward ? field_flow_backward_values : field_flow_forward_values) * n;
  l.z = int(floats);
  floats += n + (work.backward ? field_flow_backward_common : 0);
  // What else fits is shared memory too, first what is read most often.
  const auto place = [&](bool wanted, int64_t count) {
    if (!wanted || (floats + count) * int64_t(sizeof(float)) > device.shared_limit) return -1;
    floats += count;
    return int(floats - count);
  };
  const int64_t terms = 2 * int64_t(work.order), mesh = int64_t(m) * n;
  l.tape = place(work.backward, terms * n);
  l.coefficients = place(work.backward, 2 * terms * m);
  l.C = place(!l.resident, mesh);
  l.N = place(!l.resident, mesh);
  l.X = place(work.to_X, mesh);
  l.Y = place(work.to_Y, mesh);
  l.shared = floats * int64_t(sizeof(float));
  // Blocks that run at the same time: by registers (the kernels are compiled for one of the largest block), and by
  // shared memory.
  const int64_t by_registers = most_warps / l.warps;
  const int64_t by_memory = gpu::shared_taken(device.shared_limit) / gpu::shared_taken(l.shared);
  const int64_t together = std::min(by_registers, by_memory);
  const int64_t least = device.multiprocessors, most = least * std::max<int64_t>(together, 1);
  l.blocks = int(std::clamp(work.B, least, most));
  l.slots = int(std::min<int64_t>(work.B, l.blocks));
  return l;
}

int64_t field_flow_plan_size(int n, int blocks) {
  return int64_t(field_flow_norms + 1) * blocks + int64_t(n) * n;
}

}  // namespace vfrnn
