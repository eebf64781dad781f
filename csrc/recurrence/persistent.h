// The recurrence with M on the chip for all steps, forward and backward in one body:
//   forward   h_t      = act(M h_{t-1} + u_t + c)                       u_t where h_t will be
//   backward  grad_z_t = act'(z_t) (grad_hs_t + M^T grad_z_{t+1}),  and grad_h0 = M^T grad_z_1 as one more product
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
//      They may land before this block's warps expect them, each a share as it arrives: the count is then below 0 for a
//      while, and the phase cannot end while own arrivals of s+2 are missing.
//   4. The last state is not pushed, and no block leaves before the closing barrier of the cluster: its shared memory
//      outlives the pushes under way.
// Without a cluster a barrier of the block per step does the same.
#pragma once

#include <type_traits>

#include "common/activations.h"
#include "common/tanh.h"
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

// Rows of the tensors begin at even entries, and a pair of entries may be read and written there at once.
struct PersistentProblem {
  const uint4* packed;  // M, or for the backward its transpose, by persistent_pack.cu
  const void* start;    // forward: h0 (B, n)
  const void* input;    // forward: u (T, B, n), in hs; backward: grad_hs
  int64_t input_step, input_row;
  const void* states;  // backward: hs (T, B, n)
  const void *c, *beta;
  void* result;    // (T, B, n): forward hs, backward grad_z
  void* grad_h0;   // backward: (B, n)
  int64_t B, row;  // row: entries from a sample to the next in states, result and grad_h0
  int T, n;
  Activation activation;
};

// with_activation (activations.h) by tests, the most used one first: what is left is one value after another that the
// compiler knows nothing of, so that it makes no table of jumps of them.
template <int k = 0, class F>
VFRNN_DEVICE void with_tested_activation(int activation, const F& f) {
  constexpr Activation order[] = {Activation::tanh, Activation::modrelu, Activation::relu, Activation::leaky_relu,
                                  Activation::identity};
  static_assert(sizeof(order) / sizeof(order[0]) == activation_count);
  if constexpr (k + 1 < activation_count) {
    if (activation != int(order[k])) return with_tested_activation<k + 1>(gpu::opaque(activation), f);
  }
  f(ActivationConstant<order[k]>{});
}

template <class Type, int index, bool backward, bool wide>
__global__ void __launch_bounds__(shape_of<Type>(index).threads(), 1)
    recurrence_persistent_kernel(const PersistentProblem problem) {
  constexpr RecurrenceShape shape = shape_of<Type>(index);
#if defined(__CUDA_ARCH__)
  if constexpr (!shape.fits(sizeof(typename Type::Storage), __CUDA_ARCH__)) return;  // no plan comes here
#endif
  using Storage = typename Type::Storage;
  using State = Pair<Type, wide>;                // of the input and of states
  using Result = Pair<Type, wide && !backward>;  // grad_z is of the products' type
  using Math = std::conditional_t<State::entry_bytes == 2, gpu::HalfMath, gpu::FullMath>;
  constexpr int bytes = sizeof(Storage), groups = shape.groups(bytes), row_bytes = shape.row_bytes(bytes);
  constexpr int unit_tiles = shape.unit_tiles, batch_tiles = shape.batch_tiles, in_registers = shape.register_groups;
  constexpr int per_chunk = 16 / bytes, sums = shape.sums(bytes), round = shape.round(bytes, backward);
  constexpr int cluster = shape.cluster, samples = shape.samples();
  constexpr int buffer_bytes = shape.buffer_bytes(bytes);
  constexpr bool clustered = cluster > 1;

  unsigned char* const shared = gpu::shared_memory();
  auto* const barriers = reinterpret_cast<uint64_t*>(shared + shape.barriers_at(bytes));
  const int lane = gpu::lane(), warp = gpu::warp(), g = lane / 4, t = lane % 4, n = problem.n;
  const int rank = clustered ? gpu::cluster_rank() : 0;
  const int first_unit = rank * shape.units() + warp * unit_tiles * 16;
  const int64_t first_sample = int64_t(blockIdx.x / cluster) * samples;
  unsigned char* const fragments_in_shared = shared + shape.fragment_at(bytes, warp, 0, in_registers) + 16 * lane;
  constexpr bool split = shape.split(bytes);
  constexpr int fragment_bytes = shape.fragment_bytes(bytes), tile_bytes = shape.shared_groups(bytes) * fragment_bytes;

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
      auto* const to =
          reinterpret_cast<uint4*>(fragments_in_shared + i * tile_bytes + (k - in_registers) * fragment_bytes);
      const uint4 low = packed[(i * groups + k) * 64], high = packed[(i * groups + k) * 64 + 32];
      if constexpr (split) {
        gpu::store_rows(gpu::rows_of<Type>(low, high), to, 32);
      } else {
        to[0] = low, to[32] = high;
      }
    }
  }

  // ---- the state before the first step, all of it in every block; no step writes units beyond n, which stay 0 ----
  for (int k = int(threadIdx.x); k < samples * shape.N; k += shape.threads()) {
    const int sample = k / shape.N, unit = k % shape.N;
    float value = 0.f;
    if (!backward && unit < n && first_sample + sample < problem.B) {
      value = load_entry<Type>(problem.start, (first_sample + sample) * n + unit, wide);
    }
    const int at = chunk_at(row_bytes, sample, unit / per_chunk) + unit % per_chunk * bytes;
    *reinterpret_cast<Storage*>(shared + at) = Type::of_float(0.f);
    *reinterpret_cast<Storage*>(shared + buffer_bytes + at) = Type::of_float(value);
  }
  if constexpr (clustered) {
    if (threadIdx.x < 2) {
      gpu::mbarrier_init(barriers + threadIdx.x, shape.warps());
      gpu::mbarrier_fence_init();
    }
    gpu::cluster_sync();
  }
  gpu::sync_threads();

  // ---- what this lane finishes: pairs of units of two samples per tile ----
  float2 c[unit_tiles], beta[unit_tiles];
  bool exists[unit_tiles];
#pragma unroll
  for (int i = 0; i < unit_tiles; ++i) {
    const int unit = first_unit + 16 * i + 2 * g;
    const auto vector = [&](const void* p) {
      if (backward || p == nullptr) return make_float2(0.f, 0.f);
      return make_float2(unit < n ? load_entry<Type>(p, unit, wide) : 0.f,
                         unit + 1 < n ? load_entry<Type>(p, unit + 1, wide) : 0.f);
    };
    exists[i] = unit < n, c[i] = vector(problem.c), beta[i] = vector(problem.beta);
  }

  // ---- where it reads and writes ----
  const int first_time = backward ? problem.T - 1 : 0, direction = backward ? -1 : 1;
  const unsigned char *input_at[batch_tiles][2], *state_at[batch_tiles][2];
  unsigned char* result_at[batch_tiles][2];
  bool stored[unit_tiles][batch_tiles][2];
  const int samples_left = int(problem.B - first_sample < samples ? problem.B - first_sample : samples);
  const auto row_of = [&](int64_t sample) { return (first_time * problem.B + sample) * problem.row; };
#pragma unroll
  for (int j = 0; j < batch_tiles; ++j) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int64_t sample = first_sample + 8 * j + 2 * t + e;
      const int unit = first_unit + 2 * g;
#pragma unroll
      for (int i = 0; i < unit_tiles; ++i) {
        stored[i][j][e] = exists[i] && 8 * j + 2 * t + e < samples_left;
      }
      input_at[j][e] = static_cast<const unsigned char*>(problem.input) +
                       (first_time * problem.input_step + sample * problem.input_row + unit) * State::entry_bytes;
      if constexpr (backward) {
        state_at[j][e] =
            static_cast<const unsigned char*>(problem.states) + (row_of(sample) + unit) * State::entry_bytes;
      }
      result_at[j][e] = static_cast<unsigned char*>(problem.result) + (row_of(sample) + unit) * Result::entry_bytes;
    }
  }
  const int64_t input_advance = direction * problem.input_step * State::entry_bytes;
  const int64_t row_advance = direction * problem.B * problem.row;
  int unread = problem.T;                              // steps
  constexpr int pairs = unit_tiles * batch_tiles * 2;  // pair 2 (batch_tiles i + j) + e: of tile (i, j), sample 2 t + e
  State inputs[round][pairs] = {}, states[round][pairs] = {};
  const auto read_step = [&](State(&input)[pairs], State(&state)[pairs]) {
#pragma unroll
    for (int j = 0; j < batch_tiles; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
#pragma unroll
        for (int i = 0; i < unit_tiles; ++i) {
          const int k = 2 * (batch_tiles * i + j) + e;
          if constexpr (backward) input[k] = {};  // the product behind the last step has none
          if (stored[i][j][e] && unread > 0) {
            input[k] = *reinterpret_cast<const State*>(input_at[j][e] + 16 * i * State::entry_bytes);
            if constexpr (backward) {
              state[k] = *reinterpret_cast<const State*>(state_at[j][e] + 16 * i * State::entry_bytes);
            }
          }
        }
        input_at[j][e] += input_advance;
        if constexpr (backward) state_at[j][e] += row_advance * State::entry_bytes;
      }
    }
    --unread;
  };
#pragma unroll
  for (int s = 0; s < round; ++s) read_step(inputs[s], states[s]);

  const int read_at[2] = {chunk_at(row_bytes, g, t), chunk_at(row_bytes, g, 4 + t)};
  int write_at[unit_tiles];
#pragma unroll
  for (int i = 0; i < unit_tiles; ++i) {
    const int unit = first_unit + 16 * i + 2 * g;
    write_at[i] = chunk_at(row_bytes, 2 * t, unit / per_chunk) + unit % per_chunk * bytes;
  }

  // ---- all steps, in rounds of as many as are read ahead ----
  float sum[sums][unit_tiles][batch_tiles][4];
  // Step s; whether another one follows. `place`: of s in the round, as a constant.
  const auto step = [&](auto place, int s) {
    constexpr int r = decltype(place)::value;
    const int next = round == 2 ? r : buffer_of(s), current = next ^ 1;
    State input[pairs], state[pairs];
#pragma unroll
    for (int k = 0; k < pairs; ++k) input[k] = inputs[r][k], state[k] = states[r][k];
    read_step(inputs[r], states[r]);
    if constexpr (clustered) {
      if (s > 0) gpu::mbarrier_wait(barriers + current, parity_of(s - 1));
    }

    // the product with the state before; in 16 bits its sums begin with c and the input
#pragma unroll
    for (int i = 0; i < unit_tiles; ++i) {
#pragma unroll
      for (int j = 0; j < batch_tiles; ++j) {
        const int pair = 2 * (batch_tiles * i + j);
        const float2 of[2] = {input[pair].value(), input[pair + 1].value()};
#pragma unroll
        for (int k = 0; k < sums; ++k) {
#pragma unroll
          for (int e = 0; e < 4; ++e) sum[k][i][j][e] = 0.f;
        }
        float (&first)[4] = sum[0][i][j];
        first[0] = of[0].x, first[1] = of[1].x, first[2] = of[0].y, first[3] = of[1].y;
        if constexpr (!backward && sums > 1) {
          float (&second)[4] = sum[1][i][j];
          second[0] = second[1] = c[i].x, second[2] = second[3] = c[i].y;
        }
      }
    }
    const unsigned char* const before = shared + current * buffer_bytes;
    constexpr int together = shape.unrolled_groups(bytes);
    static_assert(together == groups || (groups % together == 0 && in_registers == 0));
#pragma unroll 1
    for (int first = 0; first < groups; first += together) {
#pragma unroll
      for (int k = 0; k < together; ++k) {
        uint4 h[batch_tiles];
#pragma unroll
        for (int j = 0; j < batch_tiles; ++j) {
          // chunk 4 k + t: the exchange stays within 8 chunks, which two groups share
          const int at = read_at[k % 2] + 8 * j * row_bytes + k / 2 * 128 + first * 64;
          h[j] = *reinterpret_cast<const uint4*>(before + at);
        }
#pragma unroll
        for (int i = 0; i < unit_tiles; ++i) {
          gpu::Rows<Type> rows;
          if (k < in_registers) {
            rows = fragments[i][k < in_registers ? k : 0];
          } else {
            const auto* const from = reinterpret_cast<const uint4*>(fragments_in_shared + i * tile_bytes +
                                                                    (first + k - in_registers) * fragment_bytes);
            if constexpr (split) {
              rows = gpu::load_rows(from, 32);
            } else {
              rows = gpu::rows_of<Type>(from[0], from[32]);
            }
          }
#pragma unroll
          for (int j = 0; j < batch_tiles; ++j) {
            gpu::multiply(sum[2 * k % sums][i][j], sum[(2 * k + 1) % sums][i][j], rows, h[j]);
          }
        }
      }
    }
#pragma unroll
    for (int i = 0; i < unit_tiles; ++i) {
#pragma unroll
      for (int j = 0; j < batch_tiles; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if constexpr (sums == 4) sum[0][i][j][e] += sum[2][i][j][e], sum[1][i][j][e] += sum[3][i][j][e];
          if constexpr (sums > 1) sum[0][i][j][e] += sum[1][i][j][e];
        }
      }
    }
    if constexpr (backward) {
      if (s == problem.T) return false;
    }

    // the new state: to the own buffer and to global memory
    const auto finish = [&](auto activation) {
      using Formula = Formula<decltype(activation)::value, Math>;
#pragma unroll
      for (int i = 0; i < unit_tiles; ++i) {
#pragma unroll
        for (int j = 0; j < batch_tiles; ++j) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            float& z = sum[0][i][j][e];
            const float2 h = state[2 * (batch_tiles * i + j) + e % 2].value();
            if constexpr (backward) {
              z = Formula::times_derivative(z, e < 2 ? h.x : h.y);
            } else {
              if constexpr (sums == 1) z += e < 2 ? c[i].x : c[i].y;
              z = Formula::value(z, e < 2 ? beta[i].x : beta[i].y);
            }
          }
        }
      }
    };
    with_tested_activation(int(problem.activation), finish);
    unsigned char* const after = shared + next * buffer_bytes;
#pragma unroll
    for (int i = 0; i < unit_tiles; ++i) {
#pragma unroll
      for (int j = 0; j < batch_tiles; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float2 value = make_float2(sum[0][i][j][e], sum[0][i][j][e + 2]);
          if (exists[i]) {
            *reinterpret_cast<Pair<Type, false>*>(after + write_at[i] + (8 * j + e) * row_bytes) = value;
          }
          if (stored[i][j][e]) {
            *reinterpret_cast<Result*>(result_at[j][e] + 16 * i * Result::entry_bytes) = value;
          }
        }
      }
    }
#pragma unroll
    for (int j = 0; j < batch_tiles; ++j) {
      result_at[j][0] += row_advance * Result::entry_bytes, result_at[j][1] += row_advance * Result::entry_bytes;
    }
    if constexpr (!backward) {
      if (s + 1 == problem.T) return false;
    }
    if constexpr (clustered) {
      // a lane takes the same chunk to several peers
      constexpr int in_row = shape.chunks_per_row(bytes), chunks = in_row * samples, peers = 32 / chunks;
      gpu::sync_warp();
      unsigned char* const from =
          after + chunk_at(row_bytes, lane % chunks / in_row, first_unit / per_chunk + lane % chunks % in_row);
      const uint4 chunk = *reinterpret_cast<const uint4*>(from);
#pragma unroll
      for (int k = 0; k < cluster - 1; k += peers) {
        if (k + lane / chunks < cluster - 1) {
          const int peer = (rank + 1 + k + lane / chunks) % cluster;
          gpu::store_async(gpu::remote_address(from, peer), chunk, gpu::remote_address(barriers + next, peer));
        }
      }
      if (lane == 0) gpu::mbarrier_arrive_expect(barriers + next, shape.received_bytes(bytes) / shape.warps());
    } else {
      gpu::sync_threads();
    }
    return true;
  };
  if constexpr (round == 2) {
    for (int s = 0; step(std::integral_constant<int, 0>{}, s) && step(std::integral_constant<int, 1>{}, s + 1);) s += 2;
  } else {
    for (int s = 0; step(std::integral_constant<int, 0>{}, s);) ++s;
  }

  if constexpr (backward) {
#pragma unroll
    for (int i = 0; i < unit_tiles; ++i) {
#pragma unroll
      for (int j = 0; j < batch_tiles; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int64_t sample = first_sample + 8 * j + 2 * t + e;
          if (!stored[i][j][e]) continue;
          *reinterpret_cast<State*>(static_cast<unsigned char*>(problem.grad_h0) +
                                    (sample * problem.row + first_unit + 16 * i + 2 * g) * State::entry_bytes) =
              make_float2(sum[0][i][j][e], sum[0][i][j][e + 2]);
        }
      }
    }
  }
  if constexpr (clustered) gpu::cluster_sync();
}

}  // namespace vfrnn
