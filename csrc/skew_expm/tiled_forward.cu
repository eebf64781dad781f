// The forward of skew_expm and strang_step for large matrices (tiled.h). The host does not know how many squarings a
// matrix needs: those that are not needed return at once, those beyond the saved ones are done by one block per matrix,
// right for every norm and fast for none.
#include "skew_expm/forward_stages.h"
#include "skew_expm/tiled.h"

namespace vfrnn {
namespace {

VFRNN_HOST_DEVICE constexpr bool is_half(Forward stage) {
  return stage != Forward::squaring && stage != Forward::polish;
}

__global__ void exponential_generator_kernel(const ExponentialForward problem) {
  const Entries entries = entries_of(problem.K);
  generator_entries(matrix_of(problem, entries.matrix), entries.first, entries.stride);
}

__global__ void __launch_bounds__(T::threads)
    exponential_stage_fwd_kernel(const ExponentialForward problem, Forward stage, int level) {
  const Share share = share_of(problem.K);
  ForwardMatrix m = matrix_of(problem, share.matrix);
  float* const s = m.slot(slot_squarings);
  if (stage == Forward::even) {  // every block finds the same s, the first tells the stages that follow
    m.s = squarings<T::threads>(m.norms, m.n, tiles_of(m.n));
    if (share.block == 0 && threadIdx.x == 0) *s = float(m.s);
  } else if (stage != Forward::square && stage != Forward::fourth) {
    m.s = int(*s);
  }
  if (stage == Forward::squaring && level >= m.s) return;
  if ((stage == Forward::drift || stage == Forward::polish) && m.s < polished_from) return;
  const Place p = is_half(stage) ? upper_tile(share.block, m.n) : any_tile(share.block, m.n);
  run_stage<T>(stage, m, p, level);
}

__global__ void __launch_bounds__(T::threads) exponential_far_fwd_kernel(const ExponentialForward problem) {
  ForwardMatrix m = matrix_of(problem, blockIdx.x);
  m.s = int(*m.slot(slot_squarings));
  for (int level = saved_levels; level < m.s; ++level) {
    for_tiles(false, m.n, [&](const Place& p) { run_stage<T>(Forward::squaring, m, p, level); });
  }
}

}  // namespace

int exponential_forward_tiled(const ExponentialForward& problem, void* stream) {
  const int n = problem.n, k = problem.substeps;
  const int64_t area = int64_t(n) * n;
  Launcher l(problem.K, n, stream);
  l.per_entry(exponential_generator_kernel, problem);
  for (const Forward stage : {Forward::square, Forward::fourth, Forward::even, Forward::odd}) {
    l.per_tile(is_half(stage), exponential_stage_fwd_kernel, problem, stage, 0);
  }
  for (int level = 0; level < saved_levels; ++level) {
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

}  // namespace vfrnn
