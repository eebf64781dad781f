// skew_expm and strang_step up to n = 128: one block per matrix does all stages, one launch forward and one backward.
#include "skew_expm/stages.h"

namespace vfrnn {
namespace {

using gpu::sync_threads;

template <class T>
VFRNN_DEVICE Place whole(int n) {
  return {0, 0, n, false};
}

// ---- powers M1^k of strang_step's substeps, by the binary digits of k, first to last ----
// result = a b, or a b + c d.
template <class T>
VFRNN_DEVICE void multiply_into(float* result, const float* a, const float* b, const float* c, const float* d, int n) {
  Sums<T> sums;
  add_product<T>(sums, plain(a), transpose_of(b), 0, 0, n);
  if (c != nullptr) add_product<T>(sums, plain(c), transpose_of(d), 0, 0, n);
  store_plain<T>(result, whole<T>(n), shared_result<T>(sums));
  sync_threads();
}
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

// Where T_k is (skew_expm_stages.h).
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
      } else if (level < kept_levels) {
        x = const_cast<float*>(m.slot(slot_Q + level));  // read
        stage = Backward::turn;
      } else {
        x = m.spare(spare_dX + level % 2);
        root = level == kept_levels ? m.slot(slot_Q + level - 1) : m.spare(spare_dX2 - level % 2);
        stage = Backward::again;
      }
    } else {  // in the order of the enumeration
      stage = Backward(int(stage) + 1);
    }
  }
  if (threadIdx.x == 0) problem.grad_dt[k] = (*m.pairings + scaling) / float(problem.substeps);
}

template <class T, class Problem>
int launch_block(void (*kernel)(const Problem), const Problem& problem, void* stream) {
  const gpu::Launch launch{uint32_t(problem.K), 1, 1,     T::threads,
                           T::shared_bytes,     1, false, static_cast<cudaStream_t>(stream)};
  return gpu::launch(launch, kernel, problem);
}

}  // namespace

int64_t exponential_forward_scratch(int64_t K, int n) {
  return K * forward_stride(n);
}
int exponential_forward(const ExponentialForward& problem, void* stream) {
  if (problem.n > largest_in_block) return exponential_forward_tiled(problem, stream);
  if (problem.n <= 32) return launch_block<SmallTiling>(exponential_block_fwd_kernel<SmallTiling>, problem, stream);
  if (problem.n <= 64) return launch_block<MiddleTiling>(exponential_block_fwd_kernel<MiddleTiling>, problem, stream);
  return launch_block<LargeTiling>(exponential_block_fwd_kernel<LargeTiling>, problem, stream);
}

int64_t exponential_backward_scratch(int64_t K, int n) {
  return K * backward_stride(n);
}
int exponential_backward(const ExponentialBackward& problem, void* stream) {
  if (problem.n > largest_in_block) return exponential_backward_tiled(problem, stream);
  if (problem.n <= 32) return launch_block<SmallTiling>(exponential_block_bwd_kernel<SmallTiling>, problem, stream);
  if (problem.n <= 64) return launch_block<MiddleTiling>(exponential_block_bwd_kernel<MiddleTiling>, problem, stream);
  return launch_block<LargeTiling>(exponential_block_bwd_kernel<LargeTiling>, problem, stream);
}

}  // namespace vfrnn
