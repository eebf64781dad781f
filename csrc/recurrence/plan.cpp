// Bounds of a step's time from below, and the plan with the least. Those of the kernels that keep M on the chip are
// from the counts of their machine code (counts.h); the other constants are from published measurements of sm_80 and
// sm_90. Nothing here was measured with these kernels. Cycles are those of an SM at 1.75 GHz.
#include "recurrence/plan.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <iterator>

#include "recurrence/counts.h"
#include "recurrence/shapes.h"

namespace vfrnn {
namespace {

constexpr double cycles_per_microsecond = 1750;
constexpr double mma_cycles = 6.5;        // of a partition of the SM: m16n8k16 in 16 bits, m16n8k8 in TF32
constexpr double exchange_latency = 600;  // states through the cluster and back
constexpr double launch_microseconds = 1.5;
constexpr double second_cache_bandwidth = 24;  // bytes per cycle and SM
constexpr double second_cache_latency = 700;
constexpr double double_rate = 32;  // float64 multiply-adds per cycle and SM, with their loads from shared memory
constexpr int partitions = 4, registers_of_sm = 65536;
constexpr int other_registers = 96;  // of a thread, beside those of M

// A group is 64 bytes: two products in 16 bits, two times three in float32.
int products_per_group(CudaType type) {
  return type == CudaType::f32 ? 6 : 2;
}
double ceil_div(double a, double b) {
  return std::ceil(a / b);
}

static_assert(std::size(step_counts_bf16) == std::size(shapes_16_bits) &&
              std::size(step_counts_f16) == std::size(shapes_16_bits) &&
              std::size(step_counts_f32) == std::size(shapes_32_bits));

const StepCounts& step_counts(CudaType type, int shape, bool backward) {
  if (type == CudaType::f32) return step_counts_f32[shape][backward];
  return type == CudaType::bf16 ? step_counts_bf16[shape][backward] : step_counts_f16[shape][backward];
}

RecurrencePlan plan_of_shape(const RecurrenceShape& s, int index, CudaType type, int64_t batch, bool backward,
                             const gpu::DeviceProperties& device) {
  const int bytes = bytes_of(type);
  RecurrencePlan p{};
  p.route = s.cluster > 1 ? RecurrenceRoute::cluster : RecurrenceRoute::cta;
  p.shape = index, p.N = s.N, p.cluster = s.cluster, p.samples = s.samples(), p.unit_tiles = s.unit_tiles;
  p.blocks = (batch + s.samples() - 1) / s.samples() * s.cluster;
  p.threads = s.threads();
  p.registers = (type == CudaType::f32 ? 16 : 8) * s.unit_tiles * s.register_groups;
  p.shared = s.shared_bytes(bytes);

  // One block: the longest of what a scheduler issues, what its tensor cores and what shared memory have to do, and of
  // the cycles in which a warp waits for itself, which no other work of the block shortens.
  const StepCounts& counts = step_counts(type, index, backward);
  const double warps = ceil_div(s.warps(), partitions);  // of a scheduler
  const double work =
      std::max({warps * counts.instructions, warps * counts.hmma * mma_cycles, double(s.warps()) * counts.wavefronts});
  const double alone = std::max(work, double(counts.stalls)) + (s.cluster > 1 ? exchange_latency : 0);
  // Blocks that share an SM hide each other's latency, and share its throughput. With more than other_registers for
  // each thread there are never as many threads as an SM may hold.
  const double registers = std::min(255, p.registers + other_registers);
  const double resident = std::max(1.0, std::floor(std::min(registers_of_sm / (registers * p.threads),
                                                            double(device.shared_limit) / double(p.shared + 1024))));
  const double places = std::max(1, device.multiprocessors / s.cluster);  // SMs, or clusters of them
  const double tiles = double(p.blocks) / s.cluster;
  const double together = std::min(resident, ceil_div(tiles, places));
  const double cycles = ceil_div(tiles, places * together) * std::max(alone, together * work);
  p.microseconds = cycles / cycles_per_microsecond;
  return p;
}

RecurrencePlan plan_of_steps(int n, CudaType type, int64_t batch, const gpu::DeviceProperties& device) {
  const StepTile tile = step_tile(n, type, batch);
  const int bytes = bytes_of(type);
  RecurrencePlan p{};
  p.route = RecurrenceRoute::steps;
  p.shape = -1, p.N = n, p.cluster = 1, p.samples = tile.samples, p.unit_tiles = tile.units / 16;
  p.blocks = (n + tile.units - 1) / tile.units * ((batch + tile.samples - 1) / tile.samples);
  p.threads = 256;
  p.shared = type == CudaType::f64 ? (tile.units + tile.samples) * 33 * 8 : 8 * tile.samples * 36 * 4;
  const double row = ceil_div(double(n) * bytes, 64) * 64, blocks = ceil_div(double(p.blocks), device.multiprocessors);
  const double terms = double(tile.units) * tile.samples * n;
  const double products = type == CudaType::f64 ? terms / double_rate
                                                : double(tile.units) / 16 * (double(tile.samples) / 8) * (row / 64) *
                                                      products_per_group(type) * mma_cycles / partitions;
  const double traffic = (tile.units + tile.samples) * row / second_cache_bandwidth;
  p.microseconds =
      launch_microseconds + (second_cache_latency + blocks * std::max(products, traffic)) / cycles_per_microsecond;
  return p;
}

}  // namespace

std::optional<RecurrencePlan> recurrence_plan(RecurrenceRoute route, int n, CudaType type, int64_t batch, bool backward,
                                              const gpu::DeviceProperties& device) {
  if (route == RecurrenceRoute::steps) return plan_of_steps(n, type, batch, device);
  std::optional<RecurrencePlan> best;
  if (type == CudaType::f64) return best;
  const bool wide = type == CudaType::f32;
  const RecurrenceShape* shapes = wide ? shapes_32_bits : shapes_16_bits;
  const int count = wide ? int(std::size(shapes_32_bits)) : int(std::size(shapes_16_bits));
  const int largest_cluster = device.arch >= 90 ? device.largest_cluster : 1;
  for (int k = 0; k < count; ++k) {
    const RecurrenceShape& s = shapes[k];
    if (!s.serves(backward) || s.N < n || (s.cluster > 1) != (route == RecurrenceRoute::cluster) ||
        s.cluster > largest_cluster)
      continue;
    const RecurrencePlan plan = plan_of_shape(s, k, type, batch, backward, device);
    if (plan.shared > device.shared_limit) continue;
    if (!best || plan.microseconds < best->microseconds) best = plan;
  }
  return best;
}

RecurrencePlan recurrence_plan(int n, CudaType type, int64_t batch, bool backward,
                               const gpu::DeviceProperties& device) {
  RecurrencePlan best = plan_of_steps(n, type, batch, device);
  for (const RecurrenceRoute route : {RecurrenceRoute::cta, RecurrenceRoute::cluster}) {
    const auto plan = recurrence_plan(route, n, type, batch, backward, device);
    if (plan && plan->microseconds < best.microseconds) best = *plan;
  }
  return best;
}

}  // namespace vfrnn
