// libFuzzer: the plans of the CUDA kernels for any sizes and devices fit the device and cover the work once.
#include <fuzzer/FuzzedDataProvider.h>

#include <cmath>

#include "field_flow/layout.h"
#include "holds.h"
#include "recurrence/plan.h"
#include "recurrence/shapes.h"

using namespace vfrnn;

static void recurrence(FuzzedDataProvider& data, const gpu::DeviceProperties& device) {
  // vfrnn_kernels/recurrence/plan.py refuses larger ones
  const int n = data.ConsumeIntegralInRange<int>(1, 1 << 30);
  const int small = data.ConsumeIntegralInRange<int>(1, 1100);
  const int64_t batch = data.ConsumeIntegralInRange<int64_t>(1, INT32_MAX);
  const auto type = CudaType(data.ConsumeIntegralInRange<int>(0, 3));
  const bool backward = data.ConsumeBool();
  for (const int size : {n, small}) {
    const RecurrencePlan best = recurrence_plan(size, type, batch, backward, device);
    HOLDS(std::isfinite(best.microseconds) && best.microseconds > 0);
    for (const auto route : {RecurrenceRoute::cta, RecurrenceRoute::cluster, RecurrenceRoute::steps}) {
      const auto p = recurrence_plan(route, size, type, batch, backward, device);
      if (!p) continue;
      HOLDS(p->route == route && best.microseconds <= p->microseconds);
      HOLDS(p->N >= size && p->cluster >= 1 && p->threads >= 32 && p->threads <= 1024 && p->shared > 0);
      HOLDS(p->registers + 32 <= 255);
      if (route == RecurrenceRoute::steps) {
        const StepTile tile = step_tile(size, type, batch);
        const int64_t tiles = p->blocks / ((batch + tile.samples - 1) / tile.samples);
        HOLDS(tiles * tile.units >= size && (tiles - 1) * tile.units < size);
        continue;
      }
      HOLDS(type != CudaType::f64 && p->shared <= device.shared_limit);
      HOLDS(p->cluster == 1 || (device.arch >= 90 && p->cluster <= device.largest_cluster));
      HOLDS(p->blocks % p->cluster == 0);
      const int64_t tiles = p->blocks / p->cluster;
      HOLDS(tiles * p->samples >= batch && (tiles - 1) * p->samples < batch);
      // every unit belongs to one warp, and every piece of shared memory lies before the barriers
      const RecurrenceShape& s = (type == CudaType::f32 ? shapes_32_bits : shapes_16_bits)[p->shape];
      const int bytes = bytes_of(type);
      HOLDS(s.cluster * s.warps() * s.unit_tiles * 16 == s.N);
      for (int warp = 0; warp < s.warps(); ++warp) {
        for (int tile = 0; tile < s.unit_tiles; ++tile) {
          for (int group = s.register_groups; group < s.groups(bytes); ++group) {
            const int at = s.fragment_at(bytes, warp, tile, group);
            HOLDS(at >= 2 * s.buffer_bytes(bytes) && at + s.fragment_bytes(bytes) <= s.barriers_at(bytes));
          }
        }
      }
      for (int sample = 0; sample < s.samples(); ++sample) {
        for (int chunk = 0; chunk < s.N * bytes / 16; ++chunk) {
          HOLDS(chunk_at(s.row_bytes(bytes), sample, chunk) + 16 <= s.buffer_bytes(bytes));
        }
      }
    }
  }
}

static void field_flow(FuzzedDataProvider& data, const gpu::DeviceProperties& device) {
  const int64_t B = data.ConsumeIntegralInRange<int64_t>(1, INT32_MAX);
  const int m = data.ConsumeIntegralInRange<int>(1, data.ConsumeBool() ? 1 << 20 : 1 << 9);
  const int n = data.ConsumeIntegralInRange<int>(1, field_flow_largest_n);
  const int order = data.ConsumeIntegralInRange<int>(1, 170);
  const bool backward = data.ConsumeBool(), to_X = backward && data.ConsumeBool(),
             to_Y = backward && data.ConsumeBool();
  const FieldFlowLayout l = field_flow_layout({B, m, n, order, backward, to_X, to_Y}, device);
  HOLDS(32 * l.columns >= n && l.warps >= 1 && l.warps <= 16 && l.rows >= 1);
  HOLDS(!l.resident || l.warps * l.rows >= m);
  HOLDS(l.slots >= 1 && l.slots <= l.blocks && l.slots <= B && l.blocks >= 1);
  HOLDS(l.shared <= device.shared_limit);
  // the places do not overlap and end within what is asked for
  const int64_t terms = 2 * int64_t(order), mesh = int64_t(m) * n;
  const struct {
    int at;
    int64_t count;
  } places[] = {{l.tape, terms * n}, {l.coefficients, 2 * terms * m}, {l.C, mesh}, {l.N, mesh}, {l.X, mesh},
                {l.Y, mesh}};
  int64_t last = l.z + n;
  for (const auto& place : places) {
    if (place.at < 0) continue;
    HOLDS(place.at >= last && (place.at + place.count) * 4 <= l.shared);
    last = place.at + place.count;
  }
  HOLDS(field_flow_plan_size(n, l.blocks) >= int64_t(n) * n);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  FuzzedDataProvider data(bytes, size);
  const int archs[] = {80, 86, 90, 100, 120}, clusters[] = {1, 2, 4, 8, 16};
  const gpu::DeviceProperties device{data.PickValueInArray(archs), data.ConsumeIntegralInRange<int>(1, 512),
                                     // 98 KB: of the smallest device that is served
                                     data.ConsumeIntegralInRange<int>(101376, most_shared_bytes),
                                     data.PickValueInArray(clusters)};
  data.ConsumeBool() ? recurrence(data, device) : field_flow(data, device);
  return 0;
}
