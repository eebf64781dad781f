// The backward of skew_expm and strang_step up to n = 128: one block per matrix does all stages in one launch. Larger
// matrices: tiled_backward.cu.
#include "skew_expm/backward_stages.h"

namespace vfrnn {
namespace {

using gpu::sync_threads;

// Where T_k is (backward_stages.h).
template <class T>
VFRNN_DEVICE const float* power_gradient(const BackwardMatrix& m, int k) {
  const float *const M1 = m.spare(spare_first), *const transposed_G = m.grad_S;
  const float *a = M1, *total = transposed_G;
  int of_power = 0, of_total = 0;
  const auto next_total = [&] { return m.spare(spare_total(of_total ^= 1)); };
  const auto next_power = [&] { return m.spare(spare_power(of_power ^= 1)); };
  for (int operation = 4 * highest_digit(k) - 1; operation >= 0; --operation) {
    const int place = operation / 4, kind = 3 - operation % 4;  // T_2a, M1^2a, T_(2a+1), M1^(2a+1)
    const bool one = (k >> place & 1) != 0, last = place == 0;
    if ((kind >= 2 && !one) || (kind == 1 && last && !one) || (kind == 3 && last)) continue;
    const bool of_sum = kind % 2 == 0;
    float* const to = of_sum ? next_total() : next_power();
    const float* const left = kind == 2 ? M1 : a;
    const float* const right = of_sum ? total : kind == 1 ? a : M1;
    multiply_into<T>(to, left, right, of_sum ? (kind == 2 ? transposed_G : total) : nullptr, a, m.n);
    (of_sum ? total : a) = to;
  }
  return total;
}

template <class T>
__global__ void __launch_bounds__(T::threads, 1) exponential_block_bwd_kernel(const ExponentialBackward problem) {
  const int n = problem.n;
  const int64_t k = blockIdx.x, area = int64_t(n) * n;
  const BackwardMatrix m = matrix_of(problem, k);
  float scaling = 0.f;
  if (m.delta != nullptr) {
    // the gradient of M1 = diag(e) Q diag(e)
    float* const G = m.spare(spare_G);
    const float* const grad = problem.grad + k * area;
    if (problem.substeps > 1) {
      power_entries(m, grad, threadIdx.x, T::threads);
      sync_threads();
      const float* const total = power_gradient<T>(m, problem.substeps);
      for (int64_t at = threadIdx.x; at < area; at += T::threads) G[at] = total[at % n * n + at / n];
    } else {
      for (int64_t at = threadIdx.x; at < area; at += T::threads) G[at] = grad[at];
    }
    sync_threads();
    float mine = 0.f;
    for (int i = gpu::warp(); i < n; i += T::threads / 32) {
      mine += scaling_gradient(G, m.Q, m.delta, m.dt, n, i, problem.grad_delta + k * n);
    }
    scaling = over_block<T::threads, false>(gpu::lane() == 0 ? mine : 0.f);
    // and that of Q
    for (int64_t at = threadIdx.x; at < area; at += T::threads) {
      G[at] *= half_step(m.delta, m.dt, int(at / n)) * half_step(m.delta, m.dt, int(at % n));
    }
    sync_threads();
  }
  const Place p = whole<T>(n);
  Backward stage = Backward::cotangent;
  float* x = nullptr;
  const float* root = nullptr;
  for (int level = -1;;) {
    run_stage<T>(stage, m, p, x, root);
    sync_threads();
    if (stage == Backward::gradient) break;
    if (stage == Backward::cotangent || stage == Backward::turn_back) {
      ++level;
      if (level >= m.s) {
        stage = Backward::square;
      } else if (level < saved_levels) {
        x = const_cast<float*>(m.slot(slot_Q + level));  // read
        stage = Backward::turn;
      } else {
        x = m.spare(spare_dX + level % 2);
        root = level == saved_levels ? m.slot(slot_Q + level - 1) : m.spare(spare_dX2 - level % 2);
        stage = Backward::again;
      }
    } else {  // in the order of the enumeration
      stage = Backward(int(stage) + 1);
    }
  }
  if (threadIdx.x == 0) problem.grad_dt[k] = (*m.pairings + scaling) / float(problem.substeps);
}

}  // namespace

int64_t exponential_backward_scratch(int64_t K, int n) {
  return K * backward_stride(n);
}
int exponential_backward(const ExponentialBackward& problem, void* stream) {
  if (problem.n > largest_in_block) return exponential_backward_tiled(problem, stream);
  return with_block_per_matrix(problem.K, problem.n, stream, [&](auto tiling, const gpu::Launch& launch) {
    return gpu::launch(launch, exponential_block_bwd_kernel<decltype(tiling)>, problem);
  });
}

}  // namespace vfrnn
