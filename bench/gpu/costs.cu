// What the design of the CUDA kernels rests on, measured: a block's, a cluster's and a grid's barrier, a slice pushed
// to the peers of a cluster and counted by their mbarriers, an empty kernel's launch, alone and in a graph. Prints one
// line of JSON, in microseconds.
//   nvcc -std=c++17 -O3 -arch=native -I csrc bench/gpu/costs.cu csrc/common/gpu.cu -o costs && ./costs
#include <cstdio>
#include <cstdlib>

#include "common/gpu.h"

using namespace vfrnn::gpu;

namespace {

constexpr int rounds = 2000, threads = 256;

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
  std::exit(1);
}

__global__ void empty() {}
__global__ void block_barriers() {
  for (int k = 0; k < rounds; ++k) sync_threads();
}
__global__ void cluster_barriers() {
  for (int k = 0; k < rounds; ++k) cluster_sync();
}
__global__ void grid_barriers(uint32_t* counter) {
  for (int k = 0; k < rounds; ++k) grid_sync(counter, uint32_t(k + 1));
}

// Every round each warp pushes `chunks` times 16 bytes a lane to every peer; the next round starts when all have
// landed: the exchange of a recurrence without its arithmetic.
__global__ void pushes(int cluster, int chunks) {
  unsigned char* const shared = shared_memory();
  auto* const barriers = reinterpret_cast<uint64_t*>(shared);
  unsigned char* const buffers = shared + 128;
  const int rank = cluster_rank(), warps = int(blockDim.x / 32), slice = warps * chunks * 512;
  if (threadIdx.x == 0) {
    for (int b = 0; b < 2; ++b) mbarrier_init(barriers + b, uint32_t(warps + 1));
    mbarrier_fence_init();
  }
  cluster_sync();
  for (int k = 0; k < rounds; ++k) {
    uint64_t* const barrier = barriers + (k & 1);
    if (threadIdx.x == 0) mbarrier_arrive_expect(barrier, uint32_t((cluster - 1) * slice));
    for (int c = 0; c < chunks; ++c) {
      unsigned char* const at =
          buffers + (k & 1) * cluster * slice + rank * slice + ((warp() * chunks + c) * 32 + lane()) * 16;
      for (int d = 1; d < cluster; ++d) {
        const int peer = (rank + d) % cluster;
        store_async(remote_address(at, peer), make_uint4(uint32_t(k), 0, 0, 0), remote_address(barrier, peer));
      }
    }
    sync_warp();
    if (lane() == 0) mbarrier_arrive(barrier);
    mbarrier_wait(barrier, uint32_t(k >> 1) & 1u);
  }
  cluster_sync();
}

// The least of five runs.
template <class F>
float microseconds(int count, const F& run) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  float best = 1e30f;
  for (int k = 0; k < 6; ++k) {
    check(cudaEventRecord(begin));
    run();
    check(cudaEventRecord(end));
    check(cudaEventSynchronize(end));
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end));
    if (k > 0 && ms < best) best = ms;
  }
  check(cudaGetLastError());
  return best * 1e3f / float(count);
}

}  // namespace

int main() {
  int multiprocessors = 0, major = 0;
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  const Launch one{1, 1, 1, threads, 0, 1, false, nullptr};
  std::printf("{\"block barrier\": %.4f", microseconds(rounds, [&] { check(launch(one, block_barriers)); }));
  uint32_t* counter;
  check(cudaMalloc(&counter, sizeof(uint32_t)));
  const Launch grid{uint32_t(multiprocessors), 1, 1, threads, 0, 1, true, nullptr};
  std::printf(", \"grid barrier of all SMs\": %.4f", microseconds(rounds, [&] {
                check(cudaMemsetAsync(counter, 0, sizeof(uint32_t)));
                check(launch(grid, grid_barriers, counter));
              }));
  std::printf(", \"launch\": %.4f", microseconds(1000, [&] {
                for (int k = 0; k < 1000; ++k) check(launch(one, empty));
              }));
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t instance;
  check(cudaStreamCreate(&stream));
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  Launch captured = one;
  captured.stream = stream;
  for (int k = 0; k < 64; ++k) check(launch(captured, empty));
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaGraphInstantiate(&instance, graph, 0));
  std::printf(", \"launch in a graph of 64\": %.4f",
              microseconds(64, [&] { check(cudaGraphLaunch(instance, nullptr)); }));
  for (uint32_t cluster : {4u, 8u, 16u}) {
    if (major < 9) break;
    for (uint32_t clusters : {1u, 8u}) {
      const Launch l{clusters * cluster, 1, 1, threads, 0, cluster, false, nullptr};
      if (launch(l, cluster_barriers) != cudaSuccess) {  // 16 blocks need a device that offers them
        cudaGetLastError();
        continue;
      }
      const float barrier = microseconds(rounds, [&] { check(launch(l, cluster_barriers)); });
      std::printf(", \"cluster of %u, %u at a time: barrier\": %.4f", cluster, clusters, barrier);
      for (int chunks : {1, 4}) {
        Launch p = l;
        p.threads = 128;
        p.shared = 128 + int64_t(2) * cluster * 4 * chunks * 512;
        if (p.shared > 200 * 1024) continue;
        const float push = microseconds(rounds, [&] { check(launch(p, pushes, int(cluster), chunks)); });
        std::printf(", \"cluster of %u, %u at a time: %d bytes to every peer\": %.4f", cluster, clusters, 2048 * chunks,
                    push);
      }
    }
  }
  std::printf("}\n");
  return 0;
}
