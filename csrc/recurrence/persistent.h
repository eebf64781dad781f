// The recurrence with M on the chip for all steps, forward and backward in one body:
//   forward   h_t      = act(M h_{t-1} + u_t + c)                       u_t where h_t will be
//   backward  grad_z_t = act'(z_t) (grad_hs_t + M^T grad_z_{t+1}),  and grad_h0 = M^T grad_z_1 as one more step
// A block computes N / cluster units of a few samples: units are the rows of tensor core tiles, samples their columns.
// Blocks of a cluster each hold all of the state: a block pushes its new slice into the shared memory of its peers,
// whose mbarriers count what arrives. Nothing ever waits for the whole grid.
//
// Why one mbarrier per buffer and no other barrier is enough. F(s), of buffer s & 1, ends for a block when its own
// warps have arrived (each with its units of state s written) and all remote bytes of s have landed.
//   1. A warp writes or pushes its part of s only after F(s-1) ended for its block: every warp of every block of the
//      cluster had then finished its reads of s-2, which come before that warp's arrival or pushes of s-1. So nobody
//      reads the buffer of s-2 any more when s is written into it.
//   2. Phases cannot alias: F(s+2) needs arrivals of all own warps for s+2, made after they waited for F(s+1), so after
//      they saw F(s). Nobody is two phases behind, and one bit of parity is enough.
//   3. Bytes of s+2 cannot arrive in the phase of s: their sender saw this block's part of s+1, pushed after F(s).
//      They may land before this block expects them: the count is then below 0 for a while, and the phase cannot end
//      while the own arrivals of s+2 are missing.
//   4. The last state is not pushed, and no block leaves before the closing barrier of the cluster: its shared memory
//      outlives the pushes under way.
// Without a cluster a barrier of the block per step does the same.
#pragma once

#include "common/activations.h"
#include "recurrence/device.h"
#include "recurrence/shapes.h"

namespace vfrnn {

template <class Type>
constexpr const RecurrenceShape& shape_of(int index) {
  if constexpr (sizeof(typename Type::Storage) == 2) {
    return shapes_16_bits[index];
  } else {
    return shapes_32_bits[index];
  }
}

struct PersistentProblem {
  const uint4* packed;  // M, or for the backward its transpose, by persistent_pack.cu
  const void* start;    // forward: h0 (B, n)
  const void* input;    // forward: u (T, B, n), in hs; backward: grad_hs
  int64_t input_step, input_row;
  const void* states;  // backward: hs (T, B, n)
  const void *c, *beta;
  void* result;   // (T, B, n): forward hs, backward grad_z
  void* grad_h0;  // backward: (B, n)
  int64_t T, B;
  int n;
  Activation activation;
  bool wide;
  bool paired;  // pairs of neighbours can be read and written at once
};

// A lane's pairs of one tile: units unit, unit + 1 of the samples sample, sample + 1.
struct Pairs {
  float2 of_sample[2];
};

template <class Type>
VFRNN_DEVICE float2 load_units(const void* p, int64_t row, int unit, const PersistentProblem& problem, bool wide) {
  if (problem.paired && unit < problem.n) return load_pair<Type>(p, row + unit, wide);
  return make_float2(unit < problem.n ? load_entry<Type>(p, row + unit, wide) : 0.f,
                     unit + 1 < problem.n ? load_entry<Type>(p, row + unit + 1, wide) : 0.f);
}
template <class Type>
VFRNN_DEVICE void store_units(void* p, int64_t row, int unit, float2 value, const PersistentProblem& problem,
                              bool wide) {
  if (problem.paired) {
    if (unit < problem.n) store_pair<Type>(p, row + unit, value, wide);
    return;
  }
  if (unit < problem.n) store_entry<Type>(p, row + unit, value.x, wide);
  if (unit + 1 < problem.n) store_entry<Type>(p, row + unit + 1, value.y, wide);
}

template <class Type, int index, bool backward>
__global__ void __launch_bounds__(shape_of<Type>(index).threads(), 1)
    recurrence_persistent_kernel(const PersistentProblem problem) {
  constexpr RecurrenceShape shape = shape_of<Type>(index);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  if constexpr (shape.cluster > 1) return;  // no plan comes here
#endif
  using Storage = typename Type::Storage;
  constexpr int bytes = sizeof(Storage), groups = shape.groups(bytes), row_bytes = shape.row_bytes(bytes);
  constexpr int unit_tiles = shape.unit_tiles, batch_tiles = shape.batch_tiles, in_registers = shape.register_groups;
  constexpr int per_chunk = 16 / bytes;
  // Two sums per tile where few tiles would leave the tensor cores waiting for each other: by n alone, so that a
  // sample's bits do not depend on the batch. And steps that are read ahead.
  constexpr int sums = bytes == 2 && unit_tiles == 1 ? 2 : 1;
  constexpr int ahead = unit_tiles * batch_tiles * (backward ? 2 : 1) <= 2 ? 2 : 1;
  constexpr int cluster = shape.cluster, samples = shape.samples(), buffer_bytes = shape.buffer_bytes(bytes);
  [[maybe_unused]] constexpr int chunks_per_row = shape.chunks_per_row(bytes),
                                 received_bytes = shape.received_bytes(bytes);
  constexpr bool clustered = cluster > 1;

  unsigned char* const shared = gpu::shared_memory();
  auto* const barriers = reinterpret_cast<uint64_t*>(shared + shape.barriers_at(bytes));
  const int lane = gpu::lane(), warp = gpu::warp(), g = lane / 4, t = lane % 4, n = problem.n;
  const int rank = clustered ? gpu::cluster_rank() : 0;
  const int first_unit = rank * shape.units() + warp * unit_tiles * 16;
  const int64_t first_sample = int64_t(blockIdx.x / cluster) * samples;
  const bool wide = problem.wide;
  unsigned char* const fragments_in_shared = shared + shape.fragment_at(bytes, warp, 0, in_registers) + 16 * lane;
  constexpr int tile_bytes = shape.shared_groups(bytes) * 1024;

  // ---- M, once ----
  const uint4* const packed = problem.packed + int64_t(first_unit / 16) * groups * 64 + lane;
  gpu::Rows<Type> fragments[unit_tiles][in_registers > 0 ? in_registers : 1];
#pragma unroll
  for (int i = 0; i < unit_tiles; ++i) {
#pragma unroll
    for (int k = 0; k < in_registers; ++k) {
      fragments[i][k] = gpu::rows_of<Type>(packed[(i * groups + k) * 64], packed[(i * groups + k) * 64 + 32]);
    }
#pragma unroll 1
    for (int k = in_registers; k < groups; ++k) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        *reinterpret_cast<uint4*>(fragments_in_shared + i * tile_bytes + (k - in_registers) * 1024 + 512 * half) =
            packed[((i * groups + k) * 2 + half) * 32];
      }
    }
  }

  // ---- the state before the first step, all of it in every block ----
  for (int k = int(threadIdx.x); k < samples * shape.N; k += shape.threads()) {
    const int sample = k / shape.N, unit = k % shape.N;
    float value = 0.f;
    if (!backward && unit < n && first_sample + sample < problem.B) {
      value = load_entry<Type>(problem.start, (first_sample + sample) * n + unit, wide);
    }
    const int at = buffer_bytes + chunk_at(row_bytes, sample, unit / per_chunk);
    reinterpret_cast<Storage*>(shared + at)[unit % per_chunk] = Type::of_float(value);
  }
  if constexpr (clustered) {
    if (threadIdx.x == 0) {
      for (int b = 0; b < 2; ++b) gpu::mbarrier_init(barriers + b, shape.warps() + 1);
      gpu::mbarrier_fence_init();
    }
    gpu::cluster_sync();
  }
  gpu::sync_threads();

  // ---- what this lane finishes: pairs of units of two samples per tile ----
  float2 c[unit_tiles], beta[unit_tiles];
#pragma unroll
  for (int i = 0; i < unit_tiles; ++i) {
    const int unit = first_unit + 16 * i + 2 * g;
    const auto vector = [&](const void* p) {
      if (backward || p == nullptr) return make_float2(0.f, 0.f);
      return make_float2(unit < n ? load_entry<Type>(p, unit, wide) : 0.f,
                         unit + 1 < n ? load_entry<Type>(p, unit + 1, wide) : 0.f);
    };
    c[i] = vector(problem.c), beta[i] = vector(problem.beta);
  }
  const int read_at[2] = {chunk_at(row_bytes, g, t), chunk_at(row_bytes, g, 4 + t)};
  const int64_t steps = backward ? problem.T + 1 : problem.T;
  Pairs inputs[ahead][unit_tiles][batch_tiles], states[ahead][unit_tiles][batch_tiles];
  const auto read_ahead = [&](int64_t s, Pairs(&input)[unit_tiles][batch_tiles],
                              Pairs(&state)[unit_tiles][batch_tiles]) {
    const int64_t time = backward ? problem.T - 1 - s : s;
#pragma unroll
    for (int i = 0; i < unit_tiles; ++i) {
#pragma unroll
      for (int j = 0; j < batch_tiles; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int unit = first_unit + 16 * i + 2 * g;
          const int64_t sample = first_sample + 8 * j + 2 * t + e;
          const bool exists = time >= 0 && time < problem.T && sample < problem.B;
          input[i][j].of_sample[e] = state[i][j].of_sample[e] = make_float2(0.f, 0.f);
          if (exists) {
            const int64_t row = time * problem.input_step + sample * problem.input_row;
            input[i][j].of_sample[e] = load_units<Type>(problem.input, row, unit, problem, wide);
            if constexpr (backward) {
              state[i][j].of_sample[e] =
                  load_units<Type>(problem.states, (time * problem.B + sample) * n, unit, problem, wide);
            }
          }
        }
      }
    }
  };
#pragma unroll
  for (int s = 0; s < ahead; ++s) read_ahead(s, inputs[s], states[s]);

#pragma unroll 1
  for (int64_t s = 0; s < steps; ++s) {
    const int next = buffer_of(int(s)), current = next ^ 1;
    Pairs input[unit_tiles][batch_tiles], state[unit_tiles][batch_tiles];
#pragma unroll
    for (int i = 0; i < unit_tiles; ++i) {
#pragma unroll
      for (int j = 0; j < batch_tiles; ++j) {
        input[i][j] = inputs[0][i][j], state[i][j] = states[0][i][j];
        if constexpr (ahead == 2) inputs[0][i][j] = inputs[1][i][j], states[0][i][j] = states[1][i][j];
      }
    }
    read_ahead(s + ahead, inputs[ahead - 1], states[ahead - 1]);
    if constexpr (clustered) {
      if (s > 0) gpu::mbarrier_wait(barriers + current, parity_of(int(s) - 1));
      if (threadIdx.x == 0 && s + 1 < steps) {
        gpu::mbarrier_arrive_expect(barriers + next, received_bytes);
      }
    }

    // ---- the product with the state before ----
    float sum[sums][unit_tiles][batch_tiles][4] = {};
    const unsigned char* const before = shared + current * buffer_bytes;
#pragma unroll
    for (int k = 0; k < groups; ++k) {
      uint4 h[batch_tiles];
#pragma unroll
      for (int j = 0; j < batch_tiles; ++j) {
        // chunk 4 k + t: the exchange stays within 8 chunks, which two groups share
        h[j] = *reinterpret_cast<const uint4*>(before + read_at[k % 2] + 8 * j * row_bytes + k / 2 * 128);
      }
#pragma unroll
      for (int i = 0; i < unit_tiles; ++i) {
        gpu::Rows<Type> rows;
        if (k < in_registers) {
          rows = fragments[i][k < in_registers ? k : 0];
        } else {
          const unsigned char* const at = fragments_in_shared + i * tile_bytes + (k - in_registers) * 1024;
          rows = gpu::rows_of<Type>(*reinterpret_cast<const uint4*>(at), *reinterpret_cast<const uint4*>(at + 512));
        }
#pragma unroll
        for (int j = 0; j < batch_tiles; ++j) gpu::multiply(sum[k % sums][i][j], rows, h[j]);
      }
    }

    // ---- the new state: to the own buffer and to global memory ----
    unsigned char* const after = shared + next * buffer_bytes;
    const bool last = backward && s == problem.T;
    const int64_t time = backward ? problem.T - 1 - s : s;
#pragma unroll
    for (int i = 0; i < unit_tiles; ++i) {
      const int unit = first_unit + 16 * i + 2 * g;
#pragma unroll
      for (int j = 0; j < batch_tiles; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float2 z = make_float2(sum[0][i][j][e], sum[0][i][j][e + 2]);
          if constexpr (sums == 2) z.x += sum[1][i][j][e], z.y += sum[1][i][j][e + 2];
          const float2 u = input[i][j].of_sample[e];
          z.x += u.x, z.y += u.y;
          if constexpr (backward) {
            if (!last) {
              const float2 h = state[i][j].of_sample[e];
              z.x = multiply_by_derivative<gpu::Math<float>>(problem.activation, z.x, h.x);
              z.y = multiply_by_derivative<gpu::Math<float>>(problem.activation, z.y, h.y);
            }
          } else {
            z.x = activate<gpu::Math<float>>(problem.activation, z.x + c[i].x, beta[i].x);
            z.y = activate<gpu::Math<float>>(problem.activation, z.y + c[i].y, beta[i].y);
          }
          // padded units stay 0, whatever the others are
          z.x = unit < n ? z.x : 0.f, z.y = unit + 1 < n ? z.y : 0.f;
          const int sample = 8 * j + 2 * t + e;
          store_pair<Type>(after + chunk_at(row_bytes, sample, unit / per_chunk), unit % per_chunk, z, false);
          if (first_sample + sample < problem.B) {
            const int64_t row = first_sample + sample;
            if (last) {
              store_units<Type>(problem.grad_h0, row * n, unit, z, problem, wide);
            } else {
              store_units<Type>(problem.result, (time * problem.B + row) * n, unit, z, problem, !backward && wide);
            }
          }
        }
      }
    }
    if constexpr (clustered) {
      gpu::sync_warp();
      if (s + 1 < steps) {
        constexpr int chunks = chunks_per_row * samples;
        for (int k = lane; k < chunks * (cluster - 1); k += 32) {
          const int chunk = k % chunks, peer = (rank + 1 + k / chunks) % cluster;
          unsigned char* const from =
              after + chunk_at(row_bytes, chunk / chunks_per_row, first_unit / per_chunk + chunk % chunks_per_row);
          gpu::store_async(gpu::remote_address(from, peer), *reinterpret_cast<const uint4*>(from),
                           gpu::remote_address(barriers + next, peer));
        }
        if (lane == 0) gpu::mbarrier_arrive(barriers + next);
      }
    } else {
      gpu::sync_threads();
    }
  }
  if constexpr (clustered) gpu::cluster_sync();
}

}  // namespace vfrnn
