// Products of dense matrices over the threads of the framework's pool. The arithmetic is that of matmul_kernels.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/isa.h"
#include "common/matmul_kernels.h"
#include "common/scratch.h"
#include "common/team.h"
#include "common/tensors.h"

namespace vfrnn {

// A matrix that has p[i row + j column] at (i, j).
template <class T>
struct Operand {
  const T* p;
  int64_t row, column;
};

// out (rows, columns), row-major, = a b or += a b for a (rows, depth) and b (depth, columns), which out must not
// overlap. The bits do not depend on the number of threads.
template <class T>
void matmul(const Team& team, T* out, const Operand<T>& a, const Operand<T>& b, int64_t rows, int64_t depth,
            int64_t columns, bool accumulate = false) {
  // Blocks of rows that a thread can take, a few for every thread so that all end together.
  constexpr int64_t blocks_per_thread = 4, least_rows = 24;
  const MatmulKernels<T>& kernel = IsaTable<MatmulKernels<T>>::active();
  const int64_t W = kernel.panel_width, panels = (columns + W - 1) / W, threads = team.members();
  const int64_t wanted = (blocks_per_thread * threads + panels - 1) / panels;
  const int64_t blocks = threads == 1 ? 1 : std::clamp<int64_t>(wanted, 1, 1 + (rows - 1) / least_rows);
  team.split(panels * blocks, [&](int64_t begin, int64_t end) {
    const Scratch<T> panel(depth * W);
    int64_t packed = -1;
    StopCheck stop(double(rows) * double(depth) * double(W) / double(blocks));
    for (int64_t task = begin; task < end && !stop.asked(); ++task) {
      const int64_t p = task / blocks, block = task % blocks, width = std::min(W, columns - p * W);
      if (p != packed) kernel.pack(b.p + p * W * b.column, b.row, b.column, depth, width, panel.get());
      packed = p;
      const int64_t first = rows * block / blocks, last = rows * (block + 1) / blocks;
      kernel.multiply(out + first * columns + p * W, columns, width, accumulate, a.p + first * a.row, a.row, a.column,
                      panel.get(), last - first, depth);
    }
  });
}
template <class T>
void matmul(T* out, const Operand<T>& a, const Operand<T>& b, int64_t rows, int64_t depth, int64_t columns,
            bool accumulate = false) {
  Team::run(Team::members_for(rows * depth * columns),
            [&](const Team& team) { matmul(team, out, a, b, rows, depth, columns, accumulate); });
}

}  // namespace vfrnn
