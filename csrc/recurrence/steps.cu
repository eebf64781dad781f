// The recurrence with one launch per time step, for any n and type: M and the state come from the second cache. The
// steps go out in CUDA graphs (step_graphs.h).
//
// Scratch holds M (backward: M^T) and the operand of the step, h_{t-1} or grad_z_{t+1} in the type of the products,
// their rows filled up with zeros to whole groups (mma.h): every load is 16 bytes and none is masked. An element is one
// sum in a fixed order, whatever its tile: a sample's bits do not depend on its batch.
#include <algorithm>

#include "common/activations.h"
#include "common/mma.h"
#include "recurrence/cuda.h"
#include "recurrence/plan.h"
#include "recurrence/step_graphs.h"

namespace vfrnn {
namespace {

using namespace gpu;

constexpr int group_bytes = 64, warps = 8, threads = 32 * warps;
constexpr int pass_units = 32, pass_stride = pass_units + 4;  // partial sums in shared memory: no bank conflicts

// double in the words of mma.h.
struct F64 {
  using Storage = double;
  static VFRNN_DEVICE double to_float(double x) { return x; }
  static VFRNN_DEVICE double of_float(double x) { return x; }
};
template <class Type, bool wide>
struct StateOf {
  using Type_ = Type;
};
template <class Type>
struct StateOf<Type, true> {
  using Type_ = F32;
};
template <class Type, bool wide>
using State = typename StateOf<Type, wide>::Type_;

// ---- what surrounds the sum of a sample and a unit ----
// u and h_t, or grad_hs_t and h_t, read before the sum is there; 0 where nothing is.
template <class Number>
struct Beside {
  Number u = 0, h = 0, c = 0, beta = 0;
};
template <class Type, bool wide, bool backward>
struct Epilogue {
  using S = State<Type, wide>;
  using Number = decltype(S::to_float(typename S::Storage()));
  const StepRecord& r;
  int64_t step, t;
  VFRNN_DEVICE Epilogue(const StepRecord& record, int64_t step)
      : r(record), step(step), t(backward ? record.T - 1 - step : step) {}

  VFRNN_DEVICE Beside<Number> load(int64_t sample, int unit) const {
    Beside<Number> beside;
    if (sample >= r.B || unit >= r.n) return beside;
    const auto at = [](const void* p, int64_t i) { return S::to_float(static_cast<const typename S::Storage*>(p)[i]); };
    const int64_t here = (t * r.B + sample) * r.n + unit;
    if constexpr (backward) {
      if (t < 0) return beside;
      beside.u = at(r.grad_hs, t * r.grad_step + sample * r.grad_row + unit);
      beside.h = at(r.hs, here);
    } else {
      beside.u = at(r.hs, here);
      if (r.c) beside.c = at(r.c, unit);
      if (r.beta) beside.beta = at(r.beta, unit);
    }
    return beside;
  }

  VFRNN_DEVICE void store(int64_t sample, int unit, Number sum, const Beside<Number>& beside) const {
    if (sample >= r.B || unit >= r.n) return;
    const auto put = [](void* p, int64_t i, Number x) { static_cast<typename S::Storage*>(p)[i] = S::of_float(x); };
    const int64_t here = (t * r.B + sample) * r.n + unit;
    typename Type::Storage operand;
    if constexpr (backward) {
      if (t < 0) return put(r.grad_h0, sample * r.n + unit, sum);
      operand = Type::of_float(multiply_by_derivative<Math<Number>>(r.activation, beside.u + sum, beside.h));
      static_cast<typename Type::Storage*>(r.grad_z)[here] = operand;
    } else {
      const Number h = activate<Math<Number>>(r.activation, sum + (beside.u + beside.c), beside.beta);
      put(r.hs, here, h);
      operand = Type::of_float(h);
    }
    auto* next = static_cast<typename Type::Storage*>(r.operands) + ((step + 1) & 1) * r.B * r.row;
    next[sample * r.row + unit] = operand;
  }
};

// ---- on tensor cores: a block has 16 * unit_tiles units of 8 * sample_tiles samples, its warps share the sum ----
template <class Type, bool wide, bool backward, int unit_tiles, int sample_tiles>
__global__ void __launch_bounds__(threads) tensor_step(const StepRecord* record, int offset) {
  constexpr int samples = 8 * sample_tiles, passes = unit_tiles / 2;
  constexpr int depth = sample_tiles == 2 && sizeof(typename Type::Storage) == 2
                            ? 4
                            : 2;  // groups under way per warp: as many as registers hold
  const StepRecord r = *record;
  const Epilogue<Type, wide, backward> epilogue(r, r.first + offset);
  if (epilogue.step >= r.steps) return;
  const int64_t first_sample = int64_t(blockIdx.x) * samples;
  const int first_unit = int(blockIdx.y) * 16 * unit_tiles;
  const int unit = int(threadIdx.x) % pass_units, sample = int(threadIdx.x) / pass_units;  // of the epilogue
  Beside<float> beside[passes][sample_tiles];
#pragma unroll
  for (int p = 0; p < passes; ++p) {
#pragma unroll
    for (int k = 0; k < sample_tiles; ++k) {
      beside[p][k] = epilogue.load(first_sample + sample + 8 * k, first_unit + p * pass_units + unit);
    }
  }

  const int g = lane() / 4, t = lane() % 4;
  const int groups = r.row * int(sizeof(typename Type::Storage)) / group_bytes;
  const auto* M = static_cast<const uint4*>(r.M) + t;
  const auto* state = static_cast<const uint4*>(r.operands) + (epilogue.step & 1) * r.B * (groups * 4) + t;
  // Rows beyond the last are the last: their sums are not stored.
  const uint4 *of_unit[unit_tiles][2], *of_sample[sample_tiles];
#pragma unroll
  for (int j = 0; j < 2 * unit_tiles; ++j) {
    const int row = first_unit + 8 * j + g;
    of_unit[j / 2][j % 2] = M + int64_t(row < r.n ? row : r.n - 1) * (groups * 4);
  }
#pragma unroll
  for (int j = 0; j < sample_tiles; ++j) {
    const int64_t row = first_sample + 8 * j + g;
    of_sample[j] = state + (row < r.B ? row : r.B - 1) * (groups * 4);
  }
  float sums[unit_tiles][sample_tiles][4] = {};
  for (int first = warp(); first < groups; first += warps * depth) {
    uint4 a[depth][unit_tiles][2], b[depth][sample_tiles];
#pragma unroll
    for (int d = 0; d < depth; ++d) {
      const int group = first + d * warps, at = 4 * (group < groups ? group : first);
#pragma unroll
      for (int j = 0; j < unit_tiles; ++j) a[d][j][0] = of_unit[j][0][at], a[d][j][1] = of_unit[j][1][at];
#pragma unroll
      for (int j = 0; j < sample_tiles; ++j) b[d][j] = of_sample[j][at];
    }
#pragma unroll
    for (int d = 0; d < depth; ++d) {
      if (first + d * warps >= groups) break;
#pragma unroll
      for (int i = 0; i < unit_tiles; ++i) {
#pragma unroll
        for (int j = 0; j < sample_tiles; ++j) multiply_group<Type>(sums[i][j], a[d][i][0], a[d][i][1], b[d][j]);
      }
    }
  }

  // The warps' parts of 32 units meet in shared memory, [warp][sample][unit], and are added in the order of the warps.
  auto* parts = reinterpret_cast<float*>(shared_memory());
#pragma unroll
  for (int p = 0; p < passes; ++p) {
    if (p > 0) sync_threads();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < sample_tiles; ++j) {
        float* to = parts + (warp() * samples + 8 * j + 2 * t) * pass_stride + 16 * i + g;
        const float (&d)[4] = sums[2 * p + i][j];
        to[0] = d[0], to[pass_stride] = d[1], to[8] = d[2], to[pass_stride + 8] = d[3];
      }
    }
    sync_threads();
#pragma unroll
    for (int k = 0; k < sample_tiles; ++k) {
      float sum = 0.f;
#pragma unroll
      for (int w = 0; w < warps; ++w) sum += parts[(w * samples + sample + 8 * k) * pass_stride + unit];
      epilogue.store(first_sample + sample + 8 * k, first_unit + p * pass_units + unit, sum, beside[p][k]);
    }
  }
}

// ---- float64: 32 units of 16 samples, two sums per thread, chunks of 32 terms through shared memory ----
constexpr int double_units = 32, double_samples = 16, double_terms = 32, double_stride = double_terms + 1;

template <bool backward>
__global__ void __launch_bounds__(threads) double_step(const StepRecord* record, int offset) {
  const StepRecord r = *record;
  const Epilogue<F64, false, backward> epilogue(r, r.first + offset);
  if (epilogue.step >= r.steps) return;
  const int64_t first_sample = int64_t(blockIdx.x) * double_samples;
  const int first_unit = int(blockIdx.y) * double_units, unit = lane(), sample = warp();
  const auto* M = static_cast<const double*>(r.M);
  const auto* state = static_cast<const double*>(r.operands) + (epilogue.step & 1) * r.B * r.row;
  auto* of_units = reinterpret_cast<double*>(shared_memory());  // [unit][term], then [sample][term]
  double* of_samples = of_units + double_units * double_stride;
  Beside<double> beside[2];
  for (int k = 0; k < 2; ++k) beside[k] = epilogue.load(first_sample + sample + 8 * k, first_unit + unit);
  double sums[2] = {0., 0.};
  for (int first = 0; first < r.row; first += double_terms) {
    const int term = first + lane();
    const bool inside = term < r.row;
    for (int j = warp(); j < double_units; j += warps) {
      const int row = first_unit + j;
      of_units[j * double_stride + lane()] = inside && row < r.n ? M[int64_t(row) * r.row + term] : 0.;
    }
    for (int j = warp(); j < double_samples; j += warps) {
      const int64_t row = first_sample + j;
      of_samples[j * double_stride + lane()] = inside && row < r.B ? state[row * r.row + term] : 0.;
    }
    sync_threads();
#pragma unroll 8
    for (int k = 0; k < double_terms; ++k) {
      const double m = of_units[unit * double_stride + k];
      sums[0] = fma(m, of_samples[sample * double_stride + k], sums[0]);
      sums[1] = fma(m, of_samples[(sample + 8) * double_stride + k], sums[1]);
    }
    sync_threads();
  }
  for (int k = 0; k < 2; ++k) epilogue.store(first_sample + sample + 8 * k, first_unit + unit, sums[k], beside[k]);
}

// ---- scratch ----
// to (n, row) = M or M^T with zeros after the n of a row; one tile of 32 by 32 per block.
template <class Storage>
__global__ void pad_matrix(const Storage* M, Storage* to, int n, int row, bool transposed) {
  auto* tile = reinterpret_cast<Storage*>(shared_memory());  // (32, 33)
  const int i0 = int(blockIdx.y) * 32, j0 = int(blockIdx.x) * 32;
  const int from_i = transposed ? j0 : i0, from_j = transposed ? i0 : j0;
  for (int k = warp(); k < 32; k += warps) {
    const int i = from_i + k, j = from_j + lane();
    tile[k * 33 + lane()] = i < n && j < n ? M[int64_t(i) * n + j] : Storage(0);
  }
  sync_threads();
  for (int k = warp(); k < 32; k += warps) {
    const int i = i0 + k, j = j0 + lane();
    if (i < n && j < row) to[int64_t(i) * row + j] = transposed ? tile[lane() * 33 + k] : tile[k * 33 + lane()];
  }
}
// operands (2, B, row): the first `start` (B, n), or zero if null, the second zero.
template <class Type, class S>
__global__ void fill_operands(const typename S::Storage* start, typename Type::Storage* operands, int64_t B, int n,
                              int row) {
  const int64_t all = 2 * B * row;
  for (int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; at < all; at += int64_t(gridDim.x) * blockDim.x) {
    const int64_t sample = at / row, unit = at % row;
    const bool read = start && sample < B && unit < n;
    operands[at] = Type::of_float(read ? S::to_float(start[sample * n + unit]) : 0);
  }
}

// ---- launchers ----
int64_t row_of(int n, CudaType type) {
  const int64_t group = group_bytes / bytes_of(type);
  return (n + group - 1) / group * group;
}
constexpr int64_t record_bytes = 256;
static_assert(sizeof(StepRecord) <= record_bytes, "the matrix follows, at a multiple of 16 bytes");

template <class Type, bool wide, bool backward>
StepLaunch step_launch(int64_t B, int n) {
  constexpr size_t bytes = sizeof(typename Type::Storage);
  constexpr CudaType any = bytes == 8 ? CudaType::f64 : bytes == 4 ? CudaType::f32 : CudaType::bf16;
  const StepTile tile = step_tile(n, any, B);
  StepLaunch l{nullptr, uint32_t((B + tile.samples - 1) / tile.samples), uint32_t((n + tile.units - 1) / tile.units),
               threads, 0};
  if constexpr (any == CudaType::f64) {
    l.kernel = double_step<backward>;
    l.shared = (double_units + double_samples) * double_stride * int64_t(sizeof(double));
  } else {
    constexpr int large_units = large_step_tile(any).units / 16;
    l.kernel = tile.samples == small_step_tile.samples ? tensor_step<Type, wide, backward, 2, 2>
                                                       : tensor_step<Type, wide, backward, large_units, 4>;
    l.shared = warps * tile.samples * pass_stride * int64_t(sizeof(float));
  }
  return l;
}

// What a call brings beside the record.
struct StepCall {
  const void *M, *start;  // (n, n); forward: h0 (B, n)
  CudaType type;
  bool wide;
  void* scratch;
  void* stream;
};

// Fills the scratch, completes the record and runs its steps.
template <class Type, bool wide, bool backward>
int run_as(StepRecord record, const StepCall& call) {
  using Storage = typename Type::Storage;
  using S = State<Type, wide>;
  const auto stream = static_cast<cudaStream_t>(call.stream);
  const int n = record.n, row = int(row_of(n, call.type));
  auto* M = reinterpret_cast<Storage*>(static_cast<unsigned char*>(call.scratch) + record_bytes);
  Storage* operands = M + int64_t(n) * row;
  record.M = M, record.operands = operands, record.row = row, record.first = 0;
  const uint32_t tiles = uint32_t((n + 31) / 32), columns = uint32_t((row + 31) / 32);
  int error = int(launch(Launch{columns, tiles, 1, threads, int64_t(32 * 33 * sizeof(Storage)), 1, false, stream},
                         pad_matrix<Storage>, static_cast<const Storage*>(call.M), M, n, row, backward));
  if (error != 0) return error;
  const uint32_t blocks = uint32_t(std::min<int64_t>((2 * record.B * row + threads - 1) / threads, 2048));
  error = int(launch(Launch{blocks, 1, 1, threads, 0, 1, false, stream}, fill_operands<Type, S>,
                     static_cast<const typename S::Storage*>(call.start), operands, record.B, n, row));
  if (error != 0) return error;
  return run_steps(step_launch<Type, wide, backward>(record.B, n), record, static_cast<StepRecord*>(call.scratch),
                   stream);
}

template <bool backward>
int run(const StepRecord& record, const StepCall& call) {
  switch (call.type) {
    case CudaType::bf16:
      return call.wide ? run_as<Bf16, true, backward>(record, call) : run_as<Bf16, false, backward>(record, call);
    case CudaType::f16:
      return call.wide ? run_as<F16, true, backward>(record, call) : run_as<F16, false, backward>(record, call);
    case CudaType::f32:
      return run_as<F32, false, backward>(record, call);
    case CudaType::f64:
      return run_as<F64, false, backward>(record, call);
  }
  return -1;
}

}  // namespace

int64_t recurrence_steps_scratch(int64_t B, int n, CudaType type) {
  return record_bytes + (n + 2 * B) * row_of(n, type) * bytes_of(type);
}

int recurrence_forward_steps(const RecurrenceForward& p, CudaType type, void* scratch, void* stream) {
  StepRecord r{};
  r.c = p.c, r.beta = p.beta, r.hs = p.hs;
  r.T = r.steps = p.T, r.B = p.B, r.n = p.n, r.activation = p.activation;
  return run<false>(r, {p.M, p.h0, type, p.wide, scratch, stream});
}

int recurrence_backward_steps(const RecurrenceBackward& p, CudaType type, void* scratch, void* stream) {
  StepRecord r{};
  r.grad_hs = p.grad_hs, r.grad_step = p.grad_step, r.grad_row = p.grad_row;
  r.hs = const_cast<void*>(p.hs);  // read, as no kernel of the backward writes it
  r.grad_z = p.grad_z, r.grad_h0 = p.grad_h0;
  r.T = p.T, r.steps = p.T + 1, r.B = p.B, r.n = p.n, r.activation = p.activation;
  return run<true>(r, {p.M, nullptr, type, p.wide, scratch, stream});
}

}  // namespace vfrnn
