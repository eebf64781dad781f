// Which CUDA kernel runs the recurrence: a choice by lower bounds of the time, not measured. Plain C++, for the
// binding, the host module and the tests.
#pragma once

#include <cstdint>
#include <optional>

#include "common/device.h"

namespace vfrnn {

// cta: a block holds M and takes some samples through all steps; cluster: the blocks of a cluster hold M together and
// exchange states after every step; steps: a launch per step.
enum class RecurrenceRoute { cta, cluster, steps };
constexpr const char* recurrence_route_names[] = {"cta", "cluster", "steps"};

struct RecurrencePlan {
  RecurrenceRoute route;
  int shape;  // index into the table of the type (shapes.h); steps: -1
  int N;      // n with its padding
  int cluster, samples, unit_tiles;
  int64_t blocks;
  int threads, registers;  // registers of a thread that hold M
  int64_t shared;          // bytes per block
  double microseconds;     // per step of the whole batch: a lower bound, not measured
};

RecurrencePlan recurrence_plan(int n, CudaType type, int64_t batch, bool backward, const gpu::DeviceProperties& device);
// The best of one route, if it serves the call.
std::optional<RecurrencePlan> recurrence_plan(RecurrenceRoute route, int n, CudaType type, int64_t batch, bool backward,
                                              const gpu::DeviceProperties& device);

// The tile of a block of a step: units of so many samples. A large one reads fewer bytes per product (in float32 its
// registers hold fewer units), but fewer blocks than this would leave SMs idle.
struct StepTile {
  int units, samples;
};
constexpr StepTile small_step_tile{32, 16};
constexpr StepTile large_step_tile(CudaType type) {
  return {type == CudaType::f32 ? 32 : 64, 32};
}
constexpr StepTile step_tile(int n, CudaType type, int64_t batch) {
  constexpr int64_t enough_blocks = 256;
  const StepTile large = large_step_tile(type);
  const int64_t blocks = (n + large.units - 1) / large.units * ((batch + large.samples - 1) / large.samples);
  return type != CudaType::f64 && blocks >= enough_blocks ? large : small_step_tile;
}

}  // namespace vfrnn
