// The backward of skew_expm and strang_step for large matrices (tiled.h), with squarings as in tiled_forward.cu.
#include "skew_expm/backward_stages.h"
#include "skew_expm/tiled.h"

namespace vfrnn {
namespace {

VFRNN_HOST_DEVICE constexpr bool is_half(Backward stage) {
  return stage != Backward::turn && stage != Backward::again;
}

__global__ void __launch_bounds__(T::threads)
    exponential_stage_bwd_kernel(const ExponentialBackward problem, Backward stage, int level) {
  const Share share = share_of(problem.K);
  const BackwardMatrix m = matrix_of(problem, share.matrix);
  const bool squaring = stage == Backward::turn || stage == Backward::turn_back;
  if (squaring && level >= m.s) return;
  const Place p = is_half(stage) ? upper_tile(share.block, m.n) : any_tile(share.block, m.n);
  run_stage<T>(stage, m, p, const_cast<float*>(m.slot(slot_Q + level)), nullptr);  // which is read
}

__global__ void __launch_bounds__(T::threads) exponential_far_bwd_kernel(const ExponentialBackward problem) {
  const BackwardMatrix m = matrix_of(problem, blockIdx.x);
  for (int level = saved_levels; level < m.s; ++level) {
    float* const x = m.spare(spare_dX + level % 2);
    const float* const root = level == saved_levels ? m.slot(slot_Q + level - 1) : m.spare(spare_dX2 - level % 2);
    for (int k = 0; k < 3; ++k) {
      const Backward stage = k == 0 ? Backward::again : k == 1 ? Backward::turn : Backward::turn_back;
      for_tiles(is_half(stage), m.n, [&](const Place& p) { run_stage<T>(stage, m, p, x, root); });
    }
  }
}

__global__ void power_entries_kernel(const ExponentialBackward problem) {
  const int64_t area = int64_t(problem.n) * problem.n;
  const Entries entries = entries_of(problem.K);
  power_entries(matrix_of(problem, entries.matrix), problem.grad + entries.matrix * area, entries.first,
                entries.stride);
}

// grad_delta, a warp per row; where the gradient of M1 is: in `total`, transposed, or, without it, in grad.
__global__ void scaling_bwd_kernel(const ExponentialBackward problem, BatchedMatrix total) {
  const Share share = share_of(problem.K);
  const int64_t k = share.matrix;
  const BackwardMatrix m = matrix_of(problem, k);
  const int n = m.n, i = share.block * int(blockDim.x / 32) + gpu::warp();
  if (i >= n) return;
  // c is the same for the transposes of both matrices; of Q alone the transpose is not at hand
  const float* const grad = problem.grad + k * n * n;
  float* const parts = m.pairings + tiles_of(n) * (tiles_of(n) + 1) / 2;
  float sum = 0.f;
  for (int j = gpu::lane(); j < n; j += 32) {
    const int64_t row = int64_t(i) * n + j, column = int64_t(j) * n + i;
    const float g_row = total.first != nullptr ? total[k][column] : grad[row];
    const float g_column = total.first != nullptr ? total[k][row] : grad[column];
    sum += (g_row * m.Q[row] + g_column * m.Q[column]) * half_step(m.delta, m.dt, j);
  }
  const float c = half_step(m.delta, m.dt, i) * gpu::warp_sum(sum);
  if (gpu::lane() == 0) {
    problem.grad_delta[k * n + i] = -0.25f * m.dt * c;
    parts[i] = -0.25f * c * m.delta[i];
  }
}

// The gradient of Q from that of M1.
__global__ void unscaled_gradient_kernel(const ExponentialBackward problem, BatchedMatrix total) {
  const Entries entries = entries_of(problem.K);
  const BackwardMatrix m = matrix_of(problem, entries.matrix);
  const int64_t k = entries.matrix, n = m.n;
  for (int64_t at = entries.first; at < n * n; at += entries.stride) {
    const int row = int(at / n), column = int(at % n);
    const float g = total.first != nullptr ? total[k][int64_t(column) * n + row] : problem.grad[k * n * n + at];
    m.spare(spare_G)[at] = half_step(m.delta, m.dt, row) * g * half_step(m.delta, m.dt, column);
  }
}

__global__ void __launch_bounds__(T::threads) time_gradient_kernel(const ExponentialBackward problem) {
  const BackwardMatrix m = matrix_of(problem, blockIdx.x);
  const int tiles = tiles_of(m.n), count = tiles * (tiles + 1) / 2 + (m.delta != nullptr ? m.n : 0);
  float sum = 0.f;
  for (int k = int(threadIdx.x); k < count; k += T::threads) sum += m.pairings[k];
  sum = over_block<T::threads, false>(sum);
  if (threadIdx.x == 0) problem.grad_dt[blockIdx.x] = sum / float(problem.substeps);
}

}  // namespace

int exponential_backward_tiled(const ExponentialBackward& problem, void* stream) {
  const int n = problem.n, k = problem.substeps;
  const int64_t area = int64_t(n) * n;
  Launcher l(problem.K, n, stream);
  if (problem.delta != nullptr) {
    const auto spare = [&](int number) { return BatchedMatrix{problem.scratch + number * area, backward_stride(n)}; };
    BatchedMatrix total{};
    if (k > 1) {
      l.per_entry(power_entries_kernel, problem);
      const BatchedMatrix M1 = spare(spare_first), transposed_G{problem.grad_S, area};
      BatchedMatrix a = M1;
      total = transposed_G;
      int of_power = 0, of_total = 0;
      const auto next_total = [&] { return spare(spare_total(of_total ^= 1)); };
      const auto next_power = [&] { return spare(spare_power(of_power ^= 1)); };
      for (int place = highest_digit(k) - 1; place >= 0; --place) {
        BatchedMatrix to = next_total();
        l.product(to, a, total, total, a);
        total = to;
        const bool one = (k >> place & 1) != 0;
        if (one || place > 0) {
          to = next_power();
          l.product(to, a, a);
          a = to;
        }
        if (one) {
          to = next_total();
          l.product(to, M1, total, transposed_G, a);
          total = to;
          if (place > 0) {
            to = next_power();
            l.product(to, a, M1);
            a = to;
          }
        }
      }
    }
    l.per_row(scaling_bwd_kernel, problem, total);
    l.per_entry(unscaled_gradient_kernel, problem, total);
  }
  l.per_tile(true, exponential_stage_bwd_kernel, problem, Backward::cotangent, 0);
  for (int level = 0; level < saved_levels; ++level) {
    l.per_tile(false, exponential_stage_bwd_kernel, problem, Backward::turn, level);
    l.per_tile(true, exponential_stage_bwd_kernel, problem, Backward::turn_back, level);
  }
  l.per_matrix(exponential_far_bwd_kernel, problem);
  for (const Backward stage : {Backward::square, Backward::fourth, Backward::even, Backward::odd, Backward::gradient}) {
    l.per_tile(true, exponential_stage_bwd_kernel, problem, stage, 0);
  }
  l.per_matrix(time_gradient_kernel, problem);
  return l.error;
}

}  // namespace vfrnn
