// The instances of the kernels that keep M on the chip for all steps: their tiles and the layout of their shared
// memory. Plain C++, for the kernels, the plan and the tests alike.
#pragma once

#include <cstdint>

namespace vfrnn {

// Every warp owns `unit_tiles` tiles of 16 units and, for them, all of the sum; a block owns N / cluster units of
// 8 * batch_tiles samples.
struct RecurrenceShape {
  int N;                // the largest n it serves: units are padded to it with zeros
  int cluster;          // blocks that share M by units; 1: one block holds all of it
  int unit_tiles;       // tiles of 16 units per warp
  int batch_tiles;      // tiles of 8 samples per block
  int register_groups;  // of a unit tile's N * element_bytes / 64 groups of M (mma.h), those in registers

  constexpr int units() const { return N / cluster; }
  constexpr int warps() const { return units() / 16 / unit_tiles; }
  constexpr int threads() const { return 32 * warps(); }
  constexpr int samples() const { return 8 * batch_tiles; }
};

constexpr RecurrenceShape shapes_16_bits[] = {{64, 1, 1, 1, 2}};
constexpr RecurrenceShape shapes_32_bits[] = {{64, 1, 1, 1, 4}};

}  // namespace vfrnn
