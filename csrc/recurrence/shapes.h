// The instances of the kernels that keep M on the chip for all steps: their tiles and the layout of their shared
// memory. Plain C++, for the kernels, the plan and the tests alike.
//
// Shared memory: two buffers of states, that of step s in buffer s & 1 (the initial state, s = -1, in buffer 1); the
// fragments of M that are not in registers; two mbarriers. A state is stored by samples, in chunks of 16 bytes.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace vfrnn {

constexpr int most_shared_bytes = 232448;  // of a block
// The most of any device that runs the code of an architecture (900: sm_90); that of 8.0 runs on 8.6 and 8.9 too, which
// have less.
constexpr int shared_bytes_of(int arch) {
  return arch >= 1200 ? 101376 : arch >= 900 ? most_shared_bytes : 166912;
}

// What a shape is compiled for: the direction in which no plan chooses it, on any device, is left out.
enum class Serves { both, forward, backward };

// Shapes of the same N have the same unit_tiles: a sample's bits must not depend on the batch, which chooses between
// them. Every warp owns `unit_tiles` tiles of 16 units and, for them, all of the sum; a block owns N /
// cluster units of 8 * batch_tiles samples.
struct RecurrenceShape {
  int N;                // the largest n it serves: units are padded to it with zeros
  int cluster;          // blocks that share M by units; 1: one block holds all of it
  int unit_tiles;       // tiles of 16 units per warp
  int batch_tiles;      // tiles of 8 samples per block
  int register_groups;  // of a unit tile's groups of M (mma.h), those in registers: 8 of each thread, for float32 16
  Serves direction = Serves::both;

  constexpr bool serves(bool backward) const {
    return direction == Serves::both || (direction == Serves::backward) == backward;
  }
  constexpr int units() const { return N / cluster; }
  constexpr int warps() const { return units() / 16 / unit_tiles; }
  constexpr int threads() const { return 32 * warps(); }
  constexpr int samples() const { return 8 * batch_tiles; }

  // Groups of 64 bytes of the sum; a fragment of M is a group of a unit tile: two times 16 bytes of every lane.
  constexpr int groups(int element_bytes) const { return N * element_bytes / 64; }
  constexpr int shared_groups(int element_bytes) const { return groups(element_bytes) - register_groups; }

  // Sums per tile, added at the end, so that few tiles do not leave the tensor cores waiting for each other: by N and
  // unit_tiles, and not by the batch. In float32 every product of a group is a sum of its own.
  constexpr int sums(int element_bytes) const { return element_bytes == 4 ? 1 : unit_tiles > 1 || N <= 64 ? 2 : 4; }
  // Groups of a product that are unrolled: of more, loads ahead would leave no registers.
  constexpr int unrolled_groups(int element_bytes) const {
    return groups(element_bytes) >= 32 && register_groups == 0 ? 16 : groups(element_bytes);
  }
  // Steps whose operands are read ahead, and that are a round of the loop over time: 2 where a step is short, and its
  // operands, in the backward twice as many, leave registers for it.
  constexpr int round(int element_bytes, bool backward) const {
    const bool short_step = unit_tiles * batch_tiles * (backward ? 2 : 1) <= 2;
    const int most = backward ? 16 : unrolled_groups(element_bytes);
    return short_step && groups(element_bytes) <= most ? 2 : 1;
  }

  // Whether a fragment in shared memory holds the two parts of its float32 numbers, so that no step takes them apart:
  // where there is room for both.
  constexpr bool split(int element_bytes) const {
    return element_bytes == 4 &&
           2 * buffer_bytes(4) + warps() * unit_tiles * shared_groups(4) * 2048 + 16 <= most_shared_bytes;
  }
  constexpr int fragment_bytes(int element_bytes) const { return split(element_bytes) ? 2048 : 1024; }

  // 64 bytes more than a multiple of 128: the rows of two samples that are read together lie in other banks.
  constexpr int row_bytes(int element_bytes) const { return N * element_bytes + 64; }
  constexpr int buffer_bytes(int element_bytes) const { return samples() * row_bytes(element_bytes); }
  constexpr int fragments_at(int element_bytes) const { return 2 * buffer_bytes(element_bytes); }
  constexpr int fragment_at(int element_bytes, int warp, int tile, int group) const {
    return fragments_at(element_bytes) +
           ((warp * unit_tiles + tile) * shared_groups(element_bytes) + group - register_groups) *
               fragment_bytes(element_bytes);
  }
  constexpr int barriers_at(int element_bytes) const {
    return fragments_at(element_bytes) +
           warps() * unit_tiles * shared_groups(element_bytes) * fragment_bytes(element_bytes);
  }
  constexpr int shared_bytes(int element_bytes) const { return barriers_at(element_bytes) + 16; }
  // Whether any device that runs the code of an architecture (900: sm_90) has room, and clusters, for it.
  constexpr bool fits(int element_bytes, int arch) const {
    return shared_bytes(element_bytes) <= shared_bytes_of(arch) && (cluster == 1 || arch >= 900);
  }

  // What a block receives of every state from its peers: counted by an mbarrier.
  constexpr int received_bytes(int element_bytes) const { return (cluster - 1) * samples() * units() * element_bytes; }
  // Chunks of a warp's units and samples, to be pushed to every peer.
  constexpr int chunks_per_row(int element_bytes) const { return unit_tiles * element_bytes; }
};

// Row g of a tile of 16 stands for unit 2 g and row g + 8 for unit 2 g + 1: what a lane holds of a result are then
// pairs of neighbours.
VFRNN_HOST_DEVICE constexpr int unit_of_row(int row) {
  return row < 8 ? 2 * row : 2 * (row - 8) + 1;
}
// Where a chunk of a sample's row lies. Four lanes write a pair each to the samples 0, 2, 4, 6 of a tile: the exchange
// of chunks puts these into different banks; samples 2 k and 2 k + 1, which are read together, exchange alike.
VFRNN_HOST_DEVICE constexpr int chunk_at(int row_bytes, int sample, int chunk) {
  return sample * row_bytes + (chunk ^ (2 * (sample >> 1 & 3))) * 16;
}
VFRNN_HOST_DEVICE constexpr int buffer_of(int step) {
  return step & 1;
}
// Of the phase of its buffer's mbarrier that ends when the state of this step is complete.
VFRNN_HOST_DEVICE constexpr uint32_t parity_of(int step) {
  return uint32_t(step >> 1) & 1u;
}

//                                             N  cluster, unit tiles, batch tiles, register groups
constexpr RecurrenceShape shapes_16_bits[] = {
    {64, 1, 1, 1, 2},
    {64, 1, 1, 2, 2},
    {128, 1, 1, 1, 4},
    {128, 1, 1, 2, 4, Serves::forward},
    {192, 1, 1, 1, 6},
    {256, 1, 2, 1, 8},
    {256, 1, 2, 2, 5, Serves::forward},
    {512, 4, 1, 1, 16},
    {512, 4, 1, 2, 16},
    {512, 8, 1, 1, 16},
    {768, 8, 1, 1, 18},
    {1024, 8, 1, 1, 18},
    {1024, 8, 1, 2, 12},
    {1024, 16, 1, 1, 18},
};
constexpr RecurrenceShape shapes_32_bits[] = {
    {64, 1, 1, 1, 4},  {64, 1, 1, 2, 4},  {128, 1, 1, 1, 8}, {128, 1, 1, 2, 3, Serves::backward},
    {192, 1, 1, 1, 1}, {256, 4, 1, 1, 4}, {512, 8, 1, 1, 0}, {768, 16, 1, 1, 0},
};

constexpr bool is_consistent(const RecurrenceShape& s, int element_bytes) {
  return s.N % (16 * s.cluster * s.unit_tiles) == 0 && s.N * element_bytes % 128 == 0 && s.threads() <= 1024 &&
         s.batch_tiles <= 2 && s.register_groups >= 0 && s.shared_groups(element_bytes) >= 0 &&
         s.shared_bytes(element_bytes) <= most_shared_bytes && s.received_bytes(element_bytes) < 1 << 20;
}
template <int count>
constexpr bool all_consistent(const RecurrenceShape (&shapes)[count], int element_bytes) {
  for (const RecurrenceShape& shape : shapes) {
    if (!is_consistent(shape, element_bytes)) return false;
  }
  return true;
}
static_assert(all_consistent(shapes_16_bits, 2) && all_consistent(shapes_32_bits, 4));

}  // namespace vfrnn
