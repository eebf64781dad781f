// How a call of field_flow is laid out on a device: threads, blocks, and the places of their pieces of memory.
#pragma once

#include <cstdint>

#include "common/device.h"

namespace vfrnn {

constexpr int field_flow_largest_n = 1024;
// Numbers in shared memory: of a node, forward and backward, and in the backward of a block.
constexpr int field_flow_forward_values = 5, field_flow_backward_values = 13, field_flow_backward_common = 5;

// What the layout depends on; the last three are false in the forward.
struct FieldFlowWork {
  int64_t B;
  int m, n, order;
  bool backward, to_X, to_Y;  // X and Y: cuda.h
};

// A warp holds `rows` cells at a time, a lane of it every 32nd of at most 32 * `columns` nodes. Resident: all cells at
// once, so that a sample's mesh stays in registers; else its rows are read again for every term. A place in shared
// memory is in floats, and -1 where the piece lies in global memory.
struct FieldFlowLayout {
  int columns, rows, warps;
  bool resident;
  int blocks, slots;  // of the grid; of those, how many take samples
  int64_t shared;     // bytes
  int nodes, z, C, N, tape, coefficients, X, Y;
};
FieldFlowLayout field_flow_layout(const FieldFlowWork& work, const gpu::DeviceProperties& device);

// Entries of the scratch of the plan: of every block norms and a sum of squares, and a matrix.
constexpr int field_flow_norms = 5;
int64_t field_flow_plan_size(int n, int blocks);

}  // namespace vfrnn
