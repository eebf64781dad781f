// skew_expm and strang_step of large matrices: a launch per stage with a block for every tile. The host does not know
// how many squarings a matrix needs: those that are not needed return at once, those beyond the kept ones are done by
// one block per matrix, right for every norm and fast for none.
#include "skew_expm/stages.h"

namespace vfrnn {
namespace {

using T = MiddleTiling;

// Tile (i, j), i <= j, of one triangle, column by column: index = j (j + 1) / 2 + i.
VFRNN_DEVICE Place upper_tile(int index, int n) {
  int j = int((sqrtf(8.f * float(index) + 1.f) - 1.f) * 0.5f);
  while (j * (j + 1) / 2 > index) --j;  // the root is rounded
  while ((j + 1) * (j + 2) / 2 <= index) ++j;
  const int i = index - j * (j + 1) / 2;
  return {i * T::block, j * T::block, n, i != j};
}
VFRNN_DEVICE Place any_tile(int index, int n) {
  const int tiles = tiles_of(n);
  return {index / tiles * T::block, index % tiles * T::block, n, false};
}
VFRNN_HOST_DEVICE constexpr bool is_half(Forward stage) {
  return stage != Forward::squaring && stage != Forward::polish;
}
VFRNN_HOST_DEVICE constexpr bool is_half(Backward stage) {
  return stage != Backward::turn && stage != Backward::again;
}

__global__ void exponential_generator_kernel(const ExponentialForward problem) {
  generator_entries(matrix_of(problem, blockIdx.y), int64_t(blockIdx.x) * blockDim.x + threadIdx.x,
                    int64_t(gridDim.x) * blockDim.x);
}

__global__ void __launch_bounds__(T::threads)
    exponential_stage_fwd_kernel(const ExponentialForward problem, Forward stage, int level) {
  ForwardMatrix m = matrix_of(problem, blockIdx.y);
  float* const s = m.slot(slot_squarings);
  if (stage == Forward::even) {  // every block finds the same s, the first tells the stages that follow
    m.s = squarings<T::threads>(m.norms, m.n, tiles_of(m.n));
    if (blockIdx.x == 0 && threadIdx.x == 0) *s = float(m.s);
  } else if (stage != Forward::square && stage != Forward::fourth) {
    m.s = int(*s);
  }
  if (stage == Forward::squaring && level >= m.s) return;
  if ((stage == Forward::drift || stage == Forward::polish) && m.s < polished_from) return;
  const Place p = is_half(stage) ? upper_tile(int(blockIdx.x), m.n) : any_tile(int(blockIdx.x), m.n);
  run_stage<T>(stage, m, p, level);
}

template <class Run>
VFRNN_DEVICE void for_tiles(bool half, int n, const Run& run) {
  const int tiles = tiles_of(n), count = half ? tiles * (tiles + 1) / 2 : tiles * tiles;
  for (int index = 0; index < count; ++index) run(half ? upper_tile(index, n) : any_tile(index, n));
  gpu::sync_threads();
}

__global__ void __launch_bounds__(T::threads) exponential_far_fwd_kernel(const ExponentialForward problem) {
  ForwardMatrix m = matrix_of(problem, blockIdx.x);
  m.s = int(*m.slot(slot_squarings));
  for (int level = kept_levels; level < m.s; ++level) {
    for_tiles(false, m.n, [&](const Place& p) { run_stage<T>(Forward::squaring, m, p, level); });
  }
}

__global__ void __launch_bounds__(T::threads)
    exponential_stage_bwd_kernel(const ExponentialBackward problem, Backward stage, int level) {
  const BackwardMatrix m = matrix_of(problem, blockIdx.y);
  const bool squaring = stage == Backward::turn || stage == Backward::turn_back;
  if (squaring && level >= m.s) return;
  const Place p = is_half(stage) ? upper_tile(int(blockIdx.x), m.n) : any_tile(int(blockIdx.x), m.n);
  run_stage<T>(stage, m, p, const_cast<float*>(m.slot(slot_Q + level)), nullptr);  // which is read
}

__global__ void __launch_bounds__(T::threads) exponential_far_bwd_kernel(const ExponentialBackward problem) {
  const BackwardMatrix m = matrix_of(problem, blockIdx.x);
  for (int level = kept_levels; level < m.s; ++level) {
    float* const x = m.spare(spare_dX + level % 2);
    const float* const root = level == kept_levels ? m.slot(slot_Q + level - 1) : m.spare(spare_dX2 - level % 2);
    for (int k = 0; k < 3; ++k) {
      const Backward stage = k == 0 ? Backward::again : k == 1 ? Backward::turn : Backward::turn_back;
      for_tiles(is_half(stage), m.n, [&](const Place& p) { run_stage<T>(stage, m, p, x, root); });
    }
  }
}

// result = a b, or a b + c d, of every matrix; strides between matrices.
struct BatchedMatrix {
  float* first;
  int64_t stride;
  VFRNN_DEVICE float* operator[](int64_t k) const { return first + k * stride; }
};
__global__ void __launch_bounds__(T::threads)
    matrix_product_kernel(BatchedMatrix result, BatchedMatrix a, BatchedMatrix b, BatchedMatrix c, BatchedMatrix d,
                          int n) {
  const int64_t k = blockIdx.y;
  const Place p = any_tile(int(blockIdx.x), n);
  Sums<T> sums;
  add_product<T>(sums, plain(a[k]), transpose_of(b[k]), p.first_row, p.first_column, n);
  if (c.first != nullptr) {
    add_product<T>(sums, plain(c[k]), transpose_of(d[k]), p.first_row, p.first_column, n);
  }
  store_plain<T>(result[k], p, shared_result<T>(sums));
}

__global__ void power_entries_kernel(const ExponentialBackward problem) {
  const int64_t area = int64_t(problem.n) * problem.n;
  power_entries(matrix_of(problem, blockIdx.y), problem.grad + int64_t(blockIdx.y) * area,
                int64_t(blockIdx.x) * blockDim.x + threadIdx.x, int64_t(gridDim.x) * blockDim.x);
}

// grad_delta, a warp per row; where the gradient of M1 is: in `total`, transposed, or, without it, in grad.
__global__ void scaling_bwd_kernel(const ExponentialBackward problem, BatchedMatrix total) {
  const BackwardMatrix m = matrix_of(problem, blockIdx.y);
  const int64_t k = blockIdx.y;
  const int n = m.n, i = int(blockIdx.x) * int(blockDim.x / 32) + gpu::warp();
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
  const BackwardMatrix m = matrix_of(problem, blockIdx.y);
  const int64_t k = blockIdx.y, n = m.n;
  for (int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; at < n * n; at += int64_t(gridDim.x) * blockDim.x) {
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

// Launches one kernel after the other until one fails.
class Launcher {
 public:
  Launcher(int64_t K, int n, void* stream) : K_(uint32_t(K)), n_(n), stream_(static_cast<cudaStream_t>(stream)) {}
  int error = 0;

  template <class... Parameters, class... Arguments>
  void per_tile(bool half, void (*kernel)(Parameters...), Arguments... arguments) {
    const uint32_t tiles = uint32_t(tiles_of(n_));
    run({half ? tiles * (tiles + 1) / 2 : tiles * tiles, K_, 1, T::threads, T::shared_bytes, 1, false, stream_}, kernel,
        arguments...);
  }
  template <class... Parameters, class... Arguments>
  void per_entry(void (*kernel)(Parameters...), Arguments... arguments) {
    run({uint32_t((int64_t(n_) * n_ + 1023) / 1024), K_, 1, 256, 0, 1, false, stream_}, kernel, arguments...);
  }
  template <class... Parameters, class... Arguments>
  void per_row(void (*kernel)(Parameters...), Arguments... arguments) {
    run({uint32_t(n_ + 7) / 8, K_, 1, 256, 0, 1, false, stream_}, kernel, arguments...);
  }
  template <class... Parameters, class... Arguments>
  void per_matrix(void (*kernel)(Parameters...), Arguments... arguments) {
    run({K_, 1, 1, T::threads, T::shared_bytes, 1, false, stream_}, kernel, arguments...);
  }
  void product(BatchedMatrix result, BatchedMatrix a, BatchedMatrix b, BatchedMatrix c = {}, BatchedMatrix d = {}) {
    per_tile(false, matrix_product_kernel, result, a, b, c, d, n_);
  }

 private:
  template <class... Parameters, class... Arguments>
  void run(const gpu::Launch& launch, void (*kernel)(Parameters...), Arguments... arguments) {
    if (error == 0) error = int(gpu::launch(launch, kernel, arguments...));
  }
  uint32_t K_;
  int n_;
  cudaStream_t stream_;
};

}  // namespace

int exponential_forward_tiled(const ExponentialForward& problem, void* stream) {
  const int n = problem.n, k = problem.substeps;
  const int64_t area = int64_t(n) * n;
  Launcher l(problem.K, n, stream);
  l.per_entry(exponential_generator_kernel, problem);
  for (const Forward stage : {Forward::square, Forward::fourth, Forward::even, Forward::odd}) {
    l.per_tile(is_half(stage), exponential_stage_fwd_kernel, problem, stage, 0);
  }
  for (int level = 0; level < kept_levels; ++level) {
    l.per_tile(false, exponential_stage_fwd_kernel, problem, Forward::squaring, level);
  }
  l.per_matrix(exponential_far_fwd_kernel, problem);
  l.per_tile(true, exponential_stage_fwd_kernel, problem, Forward::drift, 0);
  l.per_tile(false, exponential_stage_fwd_kernel, problem, Forward::polish, 0);
  if (problem.M != nullptr && k > 1) {
    const BatchedMatrix M1{problem.scratch + spare_M1 * area, forward_stride(n)}, M{problem.M, area},
        spare{problem.scratch, forward_stride(n)};
    int products = highest_digit(k);
    for (int place = products - 1; place >= 0; --place) products += k >> place & 1;
    BatchedMatrix from = M1;
    const auto multiply = [&](BatchedMatrix b) {  // such that the last product goes to M
      const BatchedMatrix to = products-- % 2 == 1 ? M : spare;
      l.product(to, from, b);
      from = to;
    };
    for (int place = highest_digit(k) - 1; place >= 0; --place) {
      multiply(from);
      if (k >> place & 1) multiply(M1);
    }
  }
  return l.error;
}

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
  for (int level = 0; level < kept_levels; ++level) {
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
