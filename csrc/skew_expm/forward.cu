// The forward of skew_expm and strang_step up to n = 128: one block per matrix does all stages in one launch. Larger
// matrices: tiled_forward.cu.
#include "skew_expm/forward_stages.h"

namespace vfrnn {
namespace {

using gpu::sync_threads;

// M = M1^k
template <class T>
VFRNN_DEVICE void power(float* M, const float* M1, float* spare, int k, int n) {
  const int digits = highest_digit(k);
  int products = digits;
  for (int place = digits - 1; place >= 0; --place) products += k >> place & 1;
  const float* from = M1;
  // such that the last product goes to M
  const auto next = [&] { return products-- % 2 == 1 ? M : spare; };
  for (int operation = 2 * digits - 1; operation >= 0; --operation) {
    const bool by_first = operation % 2 == 0;
    if (by_first && (k >> operation / 2 & 1) == 0) continue;
    float* const to = next();
    multiply_into<T>(to, from, by_first ? M1 : from, nullptr, nullptr, n);
    from = to;
  }
}

template <class T>
__global__ void __launch_bounds__(T::threads, 1) exponential_block_fwd_kernel(const ExponentialForward problem) {
  const int n = problem.n;
  ForwardMatrix m = matrix_of(problem, blockIdx.x);
  const Place p = whole<T>(n);
  generator_entries(m, threadIdx.x, T::threads);
  sync_threads();
  // One place that runs a stage: its code is there once.
  Forward stage = Forward::square;
  for (int level = 0;;) {
    run_stage<T>(stage, m, p, level);
    sync_threads();
    if (stage == Forward::polish) break;
    if (stage == Forward::square) {
      stage = Forward::fourth;
    } else if (stage == Forward::fourth) {
      m.s = squarings<T::threads>(m.norms, n, 1);
      if (threadIdx.x == 0) *m.slot(slot_squarings) = float(m.s);
      stage = Forward::even;
    } else if (stage == Forward::even) {
      stage = Forward::odd;
    } else if (stage == Forward::drift) {
      stage = Forward::polish;
    } else {
      level += stage == Forward::squaring ? 1 : 0;
      if (level >= m.s && m.s < polished_from) break;
      stage = level < m.s ? Forward::squaring : Forward::drift;
    }
  }
  if (m.M != nullptr && problem.substeps > 1) {
    power<T>(problem.M + int64_t(blockIdx.x) * n * n, m.M, m.spare(0), problem.substeps, n);
  }
}

}  // namespace

int64_t exponential_forward_scratch(int64_t K, int n) {
  return K * forward_stride(n);
}
int exponential_forward(const ExponentialForward& problem, void* stream) {
  if (problem.n > largest_in_block) return exponential_forward_tiled(problem, stream);
  return with_block_per_matrix(problem.K, problem.n, stream, [&](auto tiling, const gpu::Launch& launch) {
    return gpu::launch(launch, exponential_block_fwd_kernel<decltype(tiling)>, problem);
  });
}

}  // namespace vfrnn
