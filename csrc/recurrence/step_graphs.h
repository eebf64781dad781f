// How the kernels of single time steps are launched: in CUDA graphs of many steps, so that a step costs the device a
// microsecond and the host nothing. Included by steps.cu alone.
//
// The kernels read all that changes from call to call in a record on the device. A graph that was made once for a
// kernel and a grid on a stream thus serves every later call, of any T, M and address.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "common/activations.h"
#include "common/gpu.h"

namespace vfrnn {
namespace {

// Step s of `steps` is t = s forward, and t = T - 1 - s backward, where t = -1 is grad_h0.
struct StepRecord {
  const void* M;         // (n, row), the numbers after the n of a row are 0; backward: M^T
  void* operands;        // (2, B, row), likewise; step s reads number s % 2 and writes the other
  const void *c, *beta;  // forward
  const void* grad_hs;   // backward
  int64_t grad_step, grad_row;
  void *hs, *grad_z, *grad_h0;
  int64_t T, B, steps;
  int64_t first;  // a kernel of the current chunk, with `offset`, is step first + offset; beyond `steps` it returns
  int n, row;
  Activation activation;
};

using StepKernel = void (*)(const StepRecord* record, int offset);

struct StepLaunch {
  StepKernel kernel;
  uint32_t x, y, threads;
  int64_t shared;  // at most 48 KB
};

__global__ void write_record(StepRecord* to, StepRecord record) {
  if (threadIdx.x == 0) *to = record;
}

// One launch after the other; `at` is memory for the record.
inline int run_steps_plainly(const StepLaunch& l, const StepRecord& record, StepRecord* at, cudaStream_t stream) {
  int error = int(gpu::launch(gpu::Launch{1, 1, 1, 32, 0, 1, false, stream}, write_record, at, record));
  for (int64_t s = 0; s < record.steps && error == 0; ++s) {
    const gpu::Launch launch{l.x, l.y, 1, l.threads, l.shared, 1, false, stream};
    error = int(gpu::launch(launch, l.kernel, static_cast<const StepRecord*>(at), int(s)));
  }
  return error;
}

__global__ void advance(StepRecord* record, int64_t steps) {
  if (threadIdx.x == 0) record->first += steps;
}

#define VFRNN_RETURN_ERROR(call)                        \
  do {                                                  \
    const cudaError_t vfrnn_error = (call);             \
    if (vfrnn_error != cudaSuccess) return vfrnn_error; \
  } while (0)

// The graphs of this process. Work on a stream is in order, so a call may overwrite the record and launch the graphs of
// an entry while those of the call before are under way. An entry taken over from another stream, the least recently
// used one, waits on the device for its last use. Nothing here waits on the host.
class StepGraphs {
 public:
  static StepGraphs& instance() {
    static auto* graphs = new StepGraphs;  // never destroyed: the runtime may be gone before static objects are
    return *graphs;
  }

  cudaError_t run(const StepLaunch& l, const StepRecord& record, cudaStream_t stream) {
    const std::lock_guard<std::mutex> lock(mutex_);  // what a call enqueues stays together
    Entry* entry = nullptr;
    VFRNN_RETURN_ERROR(find(l, stream, &entry));
    VFRNN_RETURN_ERROR(gpu::launch(gpu::Launch{1, 1, 1, 32, 0, 1, false, stream}, write_record, entry->record, record));
    int64_t left = record.steps;
    for (int k = 0; k < sizes; ++k) {
      const bool last = k + 1 == sizes;
      for (; left >= (last ? 1 : chunk[k]); left -= chunk[k]) {
        VFRNN_RETURN_ERROR(cudaGraphLaunch(entry->graphs[k], stream));
      }
    }
    return cudaEventRecord(entry->used, stream);
  }

 private:
  static constexpr int sizes = 2;
  static constexpr int chunk[sizes] = {64, 8};
  static constexpr size_t entries_per_device = 16;

  struct Entry {
    int device;
    unsigned long long stream;
    StepKernel kernel;
    uint32_t x, y;
    StepRecord* record = nullptr;
    cudaEvent_t used = nullptr;
    cudaGraphExec_t graphs[sizes] = {};
    uint64_t age = 0;
  };

  cudaError_t find(const StepLaunch& l, cudaStream_t stream, Entry** found) {
    int device = 0;
    unsigned long long id = 0;
    VFRNN_RETURN_ERROR(cudaGetDevice(&device));
    VFRNN_RETURN_ERROR(cudaStreamGetId(stream, &id));
    ++calls_;
    Entry* oldest = nullptr;
    size_t on_device = 0;
    for (Entry& e : entries_) {
      if (e.device != device) continue;
      if (e.stream == id && e.kernel == l.kernel && e.x == l.x && e.y == l.y && e.graphs[sizes - 1]) {
        e.age = calls_;
        *found = &e;
        return cudaSuccess;
      }
      ++on_device;
      if (!oldest || e.age < oldest->age) oldest = &e;
    }
    // Making an entry allocates memory, which is safe beside a capture of another thread, but has to be asked for.
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    VFRNN_RETURN_ERROR(cudaThreadExchangeStreamCaptureMode(&mode));
    const cudaError_t error = make(l, stream, on_device < entries_per_device ? nullptr : oldest, device, id, found);
    VFRNN_RETURN_ERROR(cudaThreadExchangeStreamCaptureMode(&mode));
    return error;
  }

  // In the place of `old`, if given. After an error the entry has no graphs, and is made again by the next call.
  cudaError_t make(const StepLaunch& l, cudaStream_t stream, Entry* old, int device, unsigned long long id,
                   Entry** made) {
    if (!old) {
      Entry e;
      e.device = device;
      VFRNN_RETURN_ERROR(cudaEventCreateWithFlags(&e.used, cudaEventDisableTiming));
      VFRNN_RETURN_ERROR(cudaMalloc(&e.record, sizeof(StepRecord)));
      entries_.push_back(e);
      old = &entries_.back();
    }
    VFRNN_RETURN_ERROR(cudaStreamWaitEvent(stream, old->used, 0));  // at once if it was never recorded
    for (cudaGraphExec_t& graph : old->graphs) {
      // A graph that still runs is freed when it has ended.
      if (graph) VFRNN_RETURN_ERROR(cudaGraphExecDestroy(graph));
      graph = nullptr;
    }
    old->stream = id, old->kernel = l.kernel, old->x = l.x, old->y = l.y, old->age = calls_;
    for (int k = 0; k < sizes; ++k) {
      cudaGraph_t graph = nullptr;
      VFRNN_RETURN_ERROR(cudaGraphCreate(&graph, 0));
      cudaError_t error = add_nodes(graph, l, old->record, chunk[k]);
      if (error == cudaSuccess) error = cudaGraphInstantiate(&old->graphs[k], graph, 0);
      VFRNN_RETURN_ERROR(cudaGraphDestroy(graph));
      if (error != cudaSuccess) return error;
    }
    *made = old;
    return cudaSuccess;
  }

  static cudaError_t add_nodes(cudaGraph_t graph, const StepLaunch& l, StepRecord* record, int64_t steps) {
    cudaGraphNode_t node = nullptr;
    cudaKernelNodeParams p = {};
    for (int offset = 0; offset < steps; ++offset) {
      void* arguments[] = {&record, &offset};  // copied by the call
      p.func = reinterpret_cast<void*>(l.kernel);
      p.gridDim = dim3(l.x, l.y, 1);
      p.blockDim = dim3(l.threads);
      p.sharedMemBytes = unsigned(l.shared);
      p.kernelParams = arguments;
      const cudaGraphNode_t before = node;
      VFRNN_RETURN_ERROR(cudaGraphAddKernelNode(&node, graph, &before, before ? 1 : 0, &p));
    }
    void* arguments[] = {&record, &steps};
    p.func = reinterpret_cast<void*>(&advance);
    p.gridDim = dim3(1);
    p.blockDim = dim3(32);
    p.sharedMemBytes = 0;
    p.kernelParams = arguments;
    const cudaGraphNode_t before = node;
    return cudaGraphAddKernelNode(&node, graph, &before, 1, &p);
  }

  std::mutex mutex_;
  std::vector<Entry> entries_;
  uint64_t calls_ = 0;
};

#undef VFRNN_RETURN_ERROR

// All steps of the record, on a stream that may be under capture; then, and for few steps, without graphs.
inline int run_steps(const StepLaunch& l, const StepRecord& record, StepRecord* at, cudaStream_t stream) {
  constexpr int64_t few = 8;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaError_t error = cudaStreamIsCapturing(stream, &status);
  if (error != cudaSuccess) return int(error);
  if (status == cudaStreamCaptureStatusNone && record.steps > few) {
    return int(StepGraphs::instance().run(l, record, stream));
  }
  return run_steps_plainly(l, record, at, stream);
}

}  // namespace
}  // namespace vfrnn
