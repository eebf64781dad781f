// CUDA kernel of spectral_recurrence's two chains over time, forward and backward in one body, and its launch.
// Equations: vfrnn_kernels/spectral_recurrence/README.md.
//
// A block takes four samples through all steps, and blocks never wait for each other. Products are plain multiply-adds
// of T, without tensor cores: a number of the basis is read once for the four samples. The basis is in shared memory
// where it fits, and comes through the second cache where not. Every sum is taken in an order that n alone decides, and
// what is to be a multiply-add is written as one: a sample's bits depend neither on its batch nor on its place in it.
//
// Arrays of a block hold an entry's four samples side by side: entry e of sample s at 4 e + s. Of the arrays over units
// and over planes, thread k has the numbers k, k + threads, ... in every phase, and needs no barrier for its own.
#pragma once

#include "common/activations.h"
#include "common/gpu.h"
#include "spectral_recurrence/cuda.h"

namespace vfrnn {
namespace {

using namespace gpu;

constexpr int samples = 4, threads = 256;

template <class T>
struct alignas(16) Samples {
  T of[samples];
};

// A product's sums are cut into as many parts as there are threads for a column.
VFRNN_HOST_DEVICE int column_threads(int m) {
  const int whole_warps = (m + 31) / 32 * 32;
  return whole_warps < threads ? whole_warps : threads;
}
VFRNN_HOST_DEVICE int parts_of(int m) {
  return threads / column_threads(m);
}
// Rows of the basis in shared memory: of odd length, so that both rows and columns are read without conflicts.
VFRNN_HOST_DEVICE int row_stride(int n) {
  return n | 1;
}

// Cosine and sine of t quarter turns: t = k + r, |r| <= 1/2, without rounding, and series on |x| <= pi / 4.
template <class T>
VFRNN_DEVICE void cos_sin(T t, T& cosine, T& sine) {
  const T k = floor(t + T(0.5)), x = (t - k) * T(1.57079632679489661923), square = x * x;
  T s = 1, c = 1;
#pragma unroll
  for (int j = sizeof(T) == 4 ? 5 : 9; j > 0; --j) {
    s = fma(-square * s, T(1.0 / (2 * j * (2 * j + 1))), T(1));
    c = fma(-square * c, T(1.0 / ((2 * j - 1) * 2 * j)), T(1));
  }
  s *= x;
  const T quadrant = k - 4 * floor(k * T(0.25));
  const bool odd = quadrant == 1 || quadrant == 3;
  cosine = odd ? s : c, sine = odd ? c : s;
  if (quadrant == 1 || quadrant == 2) cosine = -cosine;
  if (quadrant >= 2) sine = -sine;
}

template <class T, bool backward, int on_chip>
struct Block {
  const SpectralChain<T>& chain;
  const int64_t first;  // sample
  const int n, m, state_size, planes_size;
  // the state and its coordinates, the products' parts, the factors of a step, and what two steps read, by their parity
  T *state, *planes, *parts, *cosine, *sine, *growth, *input, *states, *times;
  T *quarters, *rates, *beta;  // quarter turns of the planes, and growth of the units, per unit of a step's time
  const T* basis;

  static VFRNN_HOST_DEVICE int64_t numbers(int n) {
    const int64_t m = n + (n & 1);
    return samples * ((backward ? 9 : 7) * m + parts_of(int(m)) * m + 2) + 3 * m;
  }
  static VFRNN_HOST_DEVICE int64_t bytes(int n) { return int64_t(sizeof(T)) * ((numbers(n) + 3) / 4 * 4); }

  VFRNN_DEVICE Block(const SpectralChain<T>& c, unsigned char* memory)
      : chain(c),
        first(int64_t(blockIdx.x) * samples),
        n(c.n),
        m(2 * c.p),
        state_size(samples * c.n),
        planes_size(samples * c.p) {
    T* next = reinterpret_cast<T*>(memory);
    const int row = samples * m;
    const auto take = [&](int64_t count) { return (next += count) - count; };
    state = take(row), planes = take(row), parts = take(int64_t(parts_of(m)) * row);
    cosine = take(planes_size), sine = take(planes_size), growth = take(row);
    input = take(2 * row), states = backward ? take(2 * row) : nullptr;
    times = take(2 * samples);
    quarters = take(m), rates = take(m), beta = take(m);
  }

  // The last sample stands for those beyond it, which are not stored.
  VFRNN_DEVICE int64_t row(int number) const {
    const int64_t sample = first + number % samples;
    return sample < chain.samples ? sample : chain.samples - 1;
  }
  VFRNN_DEVICE bool stored(int number) const { return first + number % samples < chain.samples; }
  VFRNN_DEVICE int64_t place(int64_t t, int number) const {
    return (t * chain.samples + row(number)) * n + number / samples;
  }

  VFRNN_DEVICE void load() {
    const int t = int(threadIdx.x);
    for (int e = t; e < state_size; e += threads) state[e] = backward ? T(0) : chain.h0[row(e) * n + e / samples];
    for (int j = t; j < chain.p; j += threads) {
      quarters[j] = chain.omega[j] * T(0.63661977236758134308 / double(chain.substeps));
    }
    for (int j = t; j < n; j += threads) {
      rates[j] = chain.delta ? chain.delta[j] * T(-0.25 / double(chain.substeps)) : T(0);
      beta[j] = chain.beta ? chain.beta[j] : T(0);
    }
    basis = chain.basis;
    if constexpr (on_chip == basis_on_chip) {
      T* copy = reinterpret_cast<T*>(shared_memory() + bytes(n));
      for (int e = t; e < m * n; e += threads) copy[e / n * row_stride(n) + e % n] = chain.basis[e];
      basis = copy;
    }
  }

  VFRNN_DEVICE void copy(T* to, const T* from) const {
    if constexpr (on_chip == nothing_on_chip) {
      *to = *from;
    } else {
      copy_async<sizeof(T)>(to, from);
    }
  }
  // What step t reads, on its way while the step before computes.
  VFRNN_DEVICE void fetch(int64_t t) const {
    if (t < 0 || t >= chain.steps) return;
    const int side = int(t & 1) * state_size;
    for (int e = int(threadIdx.x); e < state_size; e += threads) {
      if constexpr (backward) {
        copy(input + side + e, chain.grad_hs + t * chain.grad_step + row(e) * chain.grad_sample + e / samples);
        copy(states + side + e, chain.hs + place(t, e));
      } else {
        copy(input + side + e, chain.hs + place(t, e));
      }
    }
    const int s = int(threadIdx.x);
    if (s < samples) copy(times + (t & 1) * samples + s, chain.dt + t * chain.dt_step + row(s) * chain.dt_sample);
    copy_async_commit();
  }

  // Backward: the state becomes grad_z_t. Then the factors of the step, the first on the state.
  VFRNN_DEVICE void begin(int64_t t) const {
    const int side = int(t & 1) * state_size;
    const T* dt = times + (t & 1) * samples;
    for (int e = int(threadIdx.x); e < state_size; e += threads) {
      T h = state[e];
      if constexpr (backward) {
        h = multiply_by_derivative<Math<T>>(chain.activation, h + input[side + e], states[side + e]);
        if (stored(e)) chain.grad_z[place(t, e)] = h;
      }
      growth[e] = chain.delta ? exp(dt[e % samples] * rates[e / samples]) : T(1);
      state[e] = growth[e] * h;
    }
    for (int e = int(threadIdx.x); e < planes_size; e += threads) {
      cos_sin(dt[e % samples] * quarters[e / samples], cosine[e], sine[e]);
    }
  }

  // parts = from (depth) times the matrix (depth, columns).
  VFRNN_DEVICE void multiply(const T* from, int depth, int columns, const T* matrix, int64_t next_row,
                             int64_t next_column) const {
    const int width = column_threads(m), part = int(threadIdx.x) / width, count = parts_of(m);
    if (part >= count) return;
    const int begin = int(int64_t(depth) * part / count), end = int(int64_t(depth) * (part + 1) / count);
    const auto* vectors = reinterpret_cast<const Samples<T>*>(from);
    constexpr int ahead = on_chip == basis_on_chip ? 8 : 16;  // loads under way; the second cache is farther
    auto* sums = reinterpret_cast<Samples<T>*>(parts) + int64_t(part) * m;
    for (int column = int(threadIdx.x) % width; column < columns; column += width) {
      const T* at = matrix + begin * next_row + column * next_column;
      Samples<T> sum = {};
      for (int k = begin; k < end; k += ahead, at += ahead * next_row) {
        T entries[ahead];
#pragma unroll
        for (int j = 0; j < ahead; ++j) entries[j] = k + j < end ? at[j * next_row] : T(0);
#pragma unroll
        for (int j = 0; j < ahead; ++j) {
          if (k + j >= end) break;
          const Samples<T> vector = vectors[k + j];
#pragma unroll
          for (int s = 0; s < samples; ++s) sum.of[s] = fma(entries[j], vector.of[s], sum.of[s]);
        }
      }
      sums[column] = sum;
    }
  }
  VFRNN_DEVICE T sum_of_parts(int e) const {
    T sum = 0;
    for (int part = 0; part < parts_of(m); ++part) sum += parts[part * samples * m + e];
    return sum;
  }
  VFRNN_DEVICE void rotate() const {
    for (int e = int(threadIdx.x); e < planes_size; e += threads) {
      const T x = sum_of_parts(e), y = sum_of_parts(planes_size + e), s = backward ? -sine[e] : sine[e];
      planes[e] = fma(cosine[e], x, -(s * y)), planes[planes_size + e] = fma(s, x, cosine[e] * y);
    }
  }

  // The substeps: of the last one, the parts of the state are left.
  VFRNN_DEVICE void move() const {
    for (int64_t k = 0; k < chain.substeps; ++k) {
      if (k > 0) {
        for (int e = int(threadIdx.x); e < state_size; e += threads) state[e] = growth[e] * growth[e] * sum_of_parts(e);
      }
      sync_threads();
      if constexpr (on_chip == basis_on_chip) {
        multiply(state, n, m, basis, 1, row_stride(n));
      } else {
        multiply(state, n, m, chain.transposed, m, 1);
      }
      sync_threads();
      rotate();
      sync_threads();
      multiply(planes, m, n, basis, on_chip == basis_on_chip ? row_stride(n) : n, 1);
      copy_async_wait<0>();  // the next step's numbers are there for all, behind the barrier
      sync_threads();
    }
  }
  VFRNN_DEVICE void end(int64_t t) const {
    [[maybe_unused]] const int side = int(t & 1) * state_size;
    for (int e = int(threadIdx.x); e < state_size; e += threads) {
      if constexpr (backward) {
        state[e] = growth[e] * sum_of_parts(e);
      } else {
        const T z = fma(growth[e], sum_of_parts(e), input[side + e]);
        const T h = activate<Math<T>>(chain.activation, z, beta[e / samples]);
        if (stored(e)) chain.hs[place(t, e)] = h;
        state[e] = h;
      }
    }
  }
};

template <class T, bool backward, int on_chip>
__global__ void __launch_bounds__(threads, 1) spectral_chain(SpectralChain<T> chain, unsigned char* scratch) {
  using Own = Block<T, backward, on_chip>;
  unsigned char* memory = shared_memory();
  if constexpr (on_chip == nothing_on_chip) memory = scratch + int64_t(blockIdx.x) * Own::bytes(chain.n);
  Own block(chain, memory);
  block.load();
  const int64_t step = backward ? -1 : 1;
  int64_t t = backward ? chain.steps - 1 : 0;
  block.fetch(t);
  copy_async_wait<0>();
  sync_threads();
  for (int64_t k = 0; k < chain.steps; ++k, t += step) {
    block.fetch(t + step);
    block.begin(t);
    block.move();
    block.end(t);
  }
  if constexpr (backward) {
    for (int e = int(threadIdx.x); e < block.state_size; e += threads) {
      if (block.stored(e)) chain.grad_h0[block.row(e) * chain.n + e / samples] = block.state[e];
    }
  }
}

template <class T>
int64_t basis_bytes(int n) {
  return int64_t(sizeof(T)) * (n + n % 2) * row_stride(n);
}

template <class T, bool backward, int on_chip>
int launch_on(const SpectralChain<T>& chain, void* scratch, void* stream) {
  const int64_t of_samples = Block<T, backward, on_chip>::bytes(chain.n);
  const int64_t shared =
      on_chip == nothing_on_chip ? 0 : of_samples + (on_chip == basis_on_chip ? basis_bytes<T>(chain.n) : 0);
  const uint32_t blocks = uint32_t((chain.samples + samples - 1) / samples);
  const Launch l{blocks, 1, 1, threads, shared, 1, false, static_cast<cudaStream_t>(stream)};
  return int(launch(l, spectral_chain<T, backward, on_chip>, chain, static_cast<unsigned char*>(scratch)));
}

}  // namespace

template <class T, bool backward>
SpectralOnChip spectral_on_chip(int n, int shared_limit) {
  const int64_t of_samples = Block<T, backward, samples_on_chip>::bytes(n);
  if (of_samples + basis_bytes<T>(n) <= shared_limit) return basis_on_chip;
  return of_samples <= shared_limit ? samples_on_chip : nothing_on_chip;
}

template <class T, bool backward>
int64_t spectral_scratch(int64_t count, int n, SpectralOnChip on_chip) {
  const int64_t blocks = (count + samples - 1) / samples;
  return on_chip == nothing_on_chip ? blocks * Block<T, backward, nothing_on_chip>::bytes(n) : 0;
}

template <class T, bool backward>
int launch_spectral_chain(const SpectralChain<T>& chain, SpectralOnChip on_chip, void* scratch, void* stream) {
  switch (on_chip) {
    case basis_on_chip:
      return launch_on<T, backward, basis_on_chip>(chain, scratch, stream);
    case samples_on_chip:
      return launch_on<T, backward, samples_on_chip>(chain, scratch, stream);
    case nothing_on_chip:
      return launch_on<T, backward, nothing_on_chip>(chain, scratch, stream);
  }
  return -1;
}

}  // namespace vfrnn
