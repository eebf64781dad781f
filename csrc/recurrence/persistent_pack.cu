// M as the kernels of persistent.h read it.
#include "recurrence/device.h"
#include "recurrence/persistent_launch.h"

namespace vfrnn {

// M (n, n), or its transpose, as fragments: [tile of 16 units][group][rows 0 to 7, rows 8 to 15][lane], padded with
// zeros to N units and N terms. One thread per 16 bytes.
template <class Type>
__global__ void recurrence_pack_kernel(const typename Type::Storage* M, uint4* packed, int n, int N, bool transposed) {
  using Storage = typename Type::Storage;
  constexpr int bytes = sizeof(Storage), per_chunk = 16 / bytes;
  const int groups = N * bytes / 64, index = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (index >= N / 16 * groups * 64) return;
  const int lane = index % 32, half = index / 32 % 2, group = index / 64 % groups, tile = index / 64 / groups;
  const int unit = 16 * tile + unit_of_row(lane / 4 + 8 * half), first = (4 * group + lane % 4) * per_chunk;
  Storage chunk[per_chunk];
  for (int j = 0; j < per_chunk; ++j) {
    const int k = first + j;
    const bool exists = unit < n && k < n;
    chunk[j] = exists ? M[transposed ? int64_t(k) * n + unit : int64_t(unit) * n + k] : Type::of_float(0.f);
  }
  uint32_t words[4];
  for (int j = 0; j < 4; ++j) {
    if constexpr (bytes == 2) {
      words[j] = uint32_t(chunk[2 * j]) | uint32_t(chunk[2 * j + 1]) << 16;
    } else {
      words[j] = gpu::bits_of(chunk[j]);
    }
  }
  packed[index] = make_uint4(words[0], words[1], words[2], words[3]);
}

int launch_pack(const void* M, void* packed, int n, int N, CudaType type, bool transposed, void* stream) {
  return with_type(type, [&](auto t) {
    using Storage = typename decltype(t)::Storage;
    const int chunks = N * N * int(sizeof(Storage)) / 16;
    const gpu::Launch launch{uint32_t(chunks + 255) / 256, 1, 1, 256, 0, 1, false, static_cast<cudaStream_t>(stream)};
    return int(gpu::launch(launch, recurrence_pack_kernel<decltype(t)>, static_cast<const Storage*>(M),
                           static_cast<uint4*>(packed), n, N, transposed));
  });
}

}  // namespace vfrnn
