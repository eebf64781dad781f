// A stub CUDA runtime: what nvcc's host code and the launchers call, in one process, at once (a stream is done when a
// call returns). Registration gives kernels their names; launches go to the simulator; memory is the host's. Graphs: a
// chain of kernel nodes, launched in order. A function that is not here does not link: the library then does not load,
// and the loader names it.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "interface.h"

namespace {

std::map<const void*, std::string>& names() {
  static auto* names = new std::map<const void*, std::string>;
  return *names;
}
std::map<std::string, std::map<int, int>> attributes;  // of kernels, that cudaFuncSetAttribute set
std::string last_fault;

cudaError_t failed(const std::string& what) {
  last_fault = what;
  return cudaErrorLaunchFailure;
}
int align(int bytes, int unit) {
  return (bytes + unit - 1) / unit * unit;
}
// CUDA C++ Programming Guide, "Technical Specifications per Compute Capability". Registers are not looked at: PTX does
// not say them.
int blocks_per_multiprocessor(int threads, int64_t shared) {
  const simulator::Device d = simulator::device();
  const bool small = d.major == 12 || (d.major == 8 && d.minor != 0);
  const int most_threads = small ? 1536 : 2048, most_blocks = d.major == 8 && d.minor == 6 ? 16 : small ? 24 : 32;
  // A block takes 1 KiB beyond what it asks for, and a multiprocessor has 1 KiB more than a block may have.
  const int by_shared = (d.shared + 1024) / align(int(shared) + 1024, 128);
  return std::min({most_threads / threads, most_blocks, by_shared});
}

cudaError_t launch(const void* function, dim3 grid, dim3 block, size_t shared, unsigned cluster, bool cooperative,
                   void** arguments) {
  const auto name = names().find(function);
  if (name == names().end()) return failed("a launch of a function that is no kernel");
  const simulator::Device device = simulator::device();
  auto& set = attributes[name->second];
  const auto allowed = set.find(cudaFuncAttributeMaxDynamicSharedMemorySize);
  const int most = allowed == set.end() ? 48 * 1024 : allowed->second;
  if (int64_t(shared) > most) {
    return failed(name->second + ": " + std::to_string(shared) + " bytes of shared memory, allowed are " +
                  std::to_string(most));
  }
  if (int64_t(shared) > device.shared) return failed(name->second + ": more shared memory than the device has");
  if (cluster > unsigned(device.cluster)) return failed(name->second + ": a larger cluster than the device has");
  if (cluster > 8 && set[cudaFuncAttributeNonPortableClusterSizeAllowed] == 0) {
    return failed(name->second + ": a cluster of more than 8 blocks, not allowed");
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 || block.x == 0 || block.x > 1024) {
    return failed(name->second + ": a grid or block that no device takes");
  }
  const int64_t blocks = int64_t(grid.x) * grid.y * grid.z;
  if (cooperative &&
      blocks > int64_t(device.multiprocessors) * blocks_per_multiprocessor(int(block.x), int64_t(shared))) {
    return failed(name->second + ": " + std::to_string(blocks) + " blocks of a cooperative launch do not fit");
  }
  if (std::getenv("VFRNN_SIMULATOR_PLAN") != nullptr) {  // it would run: that is all that is asked
    if (const char* log = std::getenv("VFRNN_SIMULATOR_LOG")) {
      std::ofstream(log, std::ios::app) << "{\"kernel\": \"" << name->second << "\"}\n";
    }
    return cudaSuccess;
  }
  const std::string fault = simulator::execute({name->second,
                                                {grid.x, grid.y, grid.z},
                                                {block.x, block.y, block.z},
                                                int64_t(shared),
                                                cluster,
                                                cooperative,
                                                arguments});
  return fault.empty() ? cudaSuccess : failed(fault);
}

struct Pushed {
  dim3 grid, block;
  size_t shared;
  void* stream;
} pushed;

struct Node {
  const void* function;
  dim3 grid, block;
  size_t shared;
  std::vector<std::vector<char>> arguments;
};
struct Graph {
  std::vector<Node> nodes;
};

}  // namespace

extern "C" {

// ---- what nvcc's own host code calls ----
void** __cudaRegisterFatBinary(void*) {
  static void* handle[1];
  return handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* host_function, char*, const char* name, int, uint3*, uint3*, dim3*,
                            dim3*, int*) {
  names()[host_function] = name;
}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
char __cudaInitModule(void**) {
  return 1;
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void* stream) {
  pushed = {grid, block, shared, stream};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  *grid = pushed.grid;
  *block = pushed.block;
  *shared = pushed.shared;
  *static_cast<void**>(stream) = pushed.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = cudaKernel_t(function);
  return cudaSuccess;
}

// ---- launches ----
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function, void** arguments) {
  unsigned cluster = 1;
  bool cooperative = false;
  for (unsigned k = 0; k < config->numAttrs; ++k) {
    const cudaLaunchAttribute& attribute = config->attrs[k];
    if (attribute.id == cudaLaunchAttributeClusterDimension) cluster = attribute.val.clusterDim.x;
    if (attribute.id == cudaLaunchAttributeCooperative) cooperative = attribute.val.cooperative != 0;
  }
  return launch(function, config->gridDim, config->blockDim, config->dynamicSmemBytes, cluster, cooperative, arguments);
}
cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared,
                             cudaStream_t) {
  return launch(function, grid, block, shared, 1, false, arguments);
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                               cudaStream_t) {
  return launch(kernel, grid, block, shared, 1, false, arguments);
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  const simulator::Device device = simulator::device();
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize && value > device.shared) return cudaErrorInvalidValue;
  if (attribute == cudaFuncAttributeNonPortableClusterSizeAllowed && device.major < 9) return cudaErrorInvalidValue;
  attributes[names()[function]][attribute] = value;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* found, const void*) {
  const simulator::Device device = simulator::device();
  *found = {};
  found->binaryVersion = found->ptxVersion = device.major < 9 ? 80 : device.major == 9 ? 90 : 100;
  return cudaSuccess;
}

// ---- memory: 256-byte aligned, filled with 0xff ----
cudaError_t cudaMalloc(void** p, size_t bytes) {
  *p = aligned_alloc(256, (bytes + 511) / 256 * 256);
  memset(*p, 0xff, bytes);
  simulator::allocated(*p, bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  simulator::freed(p);
  free(p);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  memset(to, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  memset(to, value, bytes);
  return cudaSuccess;
}

// ---- the device ----
cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
// Whatever the environment describes is a device of its own, of which the library asks once what it can do.
cudaError_t cudaGetDevice(int* index) {
  static std::vector<simulator::Device> seen;
  const simulator::Device now = simulator::device();
  size_t at = 0;
  while (at < seen.size() && memcmp(&seen[at], &now, sizeof now) != 0) ++at;
  if (at == seen.size()) seen.push_back(now);
  *index = int(at);
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorLaunchFailure ? last_fault.c_str() : "a value that the simulated device does not take";
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const simulator::Device device = simulator::device();
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = device.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = device.minor;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = device.multiprocessors;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = device.shared;
      break;
    default:
      return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveClusters(int* count, const void*, const cudaLaunchConfig_t* config) {
  *count = 0;
  for (unsigned k = 0; k < config->numAttrs; ++k) {
    const cudaLaunchAttribute& attribute = config->attrs[k];
    if (attribute.id == cudaLaunchAttributeClusterDimension) {
      *count = int(attribute.val.clusterDim.x) <= simulator::device().cluster ? 8 : 0;
    }
  }
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* count, const void*, int threads, size_t shared,
                                                                   unsigned) {
  *count = blocks_per_multiprocessor(threads, int64_t(shared));
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* count, const void* function, int threads,
                                                          size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(count, function, threads, shared, 0);
}

// ---- streams and events: all work is done when its call returns; no capture ----
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamGetId(cudaStream_t, unsigned long long* id) {
  *id = 7;
  return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) {
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  static char one;
  *event = cudaEvent_t(&one);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) {
  return cudaSuccess;
}

// ---- graphs; a node is its place in the chain, from 1 ----
cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned) {
  *graph = cudaGraph_t(new Graph);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete reinterpret_cast<Graph*>(graph);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete reinterpret_cast<Graph*>(graph);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* ready, cudaGraph_t graph, unsigned long long) {
  *ready = cudaGraphExec_t(new Graph(*reinterpret_cast<Graph*>(graph)));
  return cudaSuccess;
}
cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* after, size_t count,
                                   const cudaKernelNodeParams* parameters) {
  auto& nodes = reinterpret_cast<Graph*>(graph)->nodes;
  const bool chained = nodes.empty() ? count == 0 : count == 1 && size_t(*after) == nodes.size();
  if (!chained) return failed("a graph that is no chain is not simulated");
  Node added = {parameters->func, parameters->gridDim, parameters->blockDim, parameters->sharedMemBytes, {}};
  const auto sizes = simulator::parameter_sizes(names()[parameters->func]);
  for (size_t k = 0; k < sizes.size(); ++k) {
    const char* value = static_cast<const char*>(parameters->kernelParams[k]);
    added.arguments.emplace_back(value, value + sizes[k]);
  }
  nodes.push_back(added);
  *node = cudaGraphNode_t(nodes.size());
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  for (auto& node : reinterpret_cast<Graph*>(graph)->nodes) {
    std::vector<void*> arguments;
    for (auto& value : node.arguments) arguments.push_back(value.data());
    const cudaError_t error = launch(node.function, node.grid, node.block, node.shared, 1, false, arguments.data());
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // extern "C"
