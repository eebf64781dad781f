// Matrices that need more than a block: a launch per stage with a block for every tile. Where its tiles lie, and how
// its kernels are launched.
#pragma once

#include "skew_expm/device.h"

namespace vfrnn {

// One matrix of every problem of a batch, `stride` numbers apart.
struct BatchedMatrix {
  float* first;
  int64_t stride;
  VFRNN_DEVICE float* operator[](int64_t k) const { return first + k * stride; }
};
// result = a b, or, where c is given, a b + c d, of K matrices of size n.
struct BatchedProduct {
  BatchedMatrix result, a, b, c, d;
  uint32_t K;
  int n;
};
int launch_product(const BatchedProduct& product, cudaStream_t stream);

namespace {

using T = MiddleTiling;

// Tile (i, j), i <= j, of one triangle, column by column: index = j (j + 1) / 2 + i.
VFRNN_DEVICE Place upper_tile(int index, int n) {
  int j = int((sqrtf(8.f * float(index) + 1.f) - 1.f) * 0.5f);
  while (j * (j + 1) / 2 > index) --j;  // the root is rounded
  while ((j + 1) * (j + 2) / 2 <= index) ++j;
  const int i = index - j * (j + 1) / 2;
  return {i * T::block, j * T::block, n, i != j};
}
VFRNN_DEVICE Place any_tile(int index, int n) {
  const int tiles = tiles_of(n);
  return {index / tiles * T::block, index % tiles * T::block, n, false};
}
template <class Run>
VFRNN_DEVICE void for_tiles(bool half, int n, const Run& run) {
  const int tiles = tiles_of(n), count = half ? tiles * (tiles + 1) / 2 : tiles * tiles;
  for (int index = 0; index < count; ++index) run(half ? upper_tile(index, n) : any_tile(index, n));
  gpu::sync_threads();
}

// The blocks of a launch over K matrices, as many for each, lie along x: the other directions of a grid end at 65535.
struct Share {
  int64_t matrix;
  int block, blocks;  // of the matrix
};
VFRNN_DEVICE Share share_of(int64_t K) {
  const uint32_t blocks = gridDim.x / uint32_t(K);
  return {blockIdx.x / blocks, int(blockIdx.x % blocks), int(blocks)};
}
// The same for threads, which go over the entries of their matrix.
struct Entries {
  int64_t matrix, first, stride;
};
VFRNN_DEVICE Entries entries_of(int64_t K) {
  const Share share = share_of(K);
  return {share.matrix, int64_t(share.block) * blockDim.x + threadIdx.x, int64_t(share.blocks) * blockDim.x};
}

inline gpu::Launch launch_per_tile(bool half, uint32_t K, int n, cudaStream_t stream) {
  const uint32_t tiles = uint32_t(tiles_of(n)), each = half ? tiles * (tiles + 1) / 2 : tiles * tiles;
  return {each * K, 1, 1, T::threads, T::shared_bytes, 1, false, stream};
}

// Launches one kernel after the other until one fails.
class Launcher {
 public:
  Launcher(int64_t K, int n, void* stream) : K_(uint32_t(K)), n_(n), stream_(static_cast<cudaStream_t>(stream)) {}
  int error = 0;

  template <class... Parameters, class... Arguments>
  void per_tile(bool half, void (*kernel)(Parameters...), Arguments... arguments) {
    run(launch_per_tile(half, K_, n_, stream_), kernel, arguments...);
  }
  template <class... Parameters, class... Arguments>
  void per_entry(void (*kernel)(Parameters...), Arguments... arguments) {
    run({uint32_t((int64_t(n_) * n_ + 1023) / 1024) * K_, 1, 1, 256, 0, 1, false, stream_}, kernel, arguments...);
  }
  template <class... Parameters, class... Arguments>
  void per_row(void (*kernel)(Parameters...), Arguments... arguments) {
    run({uint32_t(n_ + 7) / 8 * K_, 1, 1, 256, 0, 1, false, stream_}, kernel, arguments...);
  }
  template <class... Parameters, class... Arguments>
  void per_matrix(void (*kernel)(Parameters...), Arguments... arguments) {
    run({K_, 1, 1, T::threads, T::shared_bytes, 1, false, stream_}, kernel, arguments...);
  }
  void product(BatchedMatrix result, BatchedMatrix a, BatchedMatrix b, BatchedMatrix c = {}, BatchedMatrix d = {}) {
    if (error == 0) error = launch_product({result, a, b, c, d, K_, n_}, stream_);
  }

 private:
  template <class... Parameters, class... Arguments>
  void run(const gpu::Launch& launch, void (*kernel)(Parameters...), Arguments... arguments) {
    if (error == 0) error = int(gpu::launch(launch, kernel, arguments...));
  }
  uint32_t K_;
  int n_;
  cudaStream_t stream_;
};

}  // namespace
}  // namespace vfrnn
