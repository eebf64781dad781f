// A CUDA runtime that runs nothing, for launches.cu: it judges every launch as the runtime of an H200 would, by the
// grid, the shared memory that the kernel was allowed, the size of its clusters, and whether a cooperative grid fits.
#include <cuda_runtime_api.h>

#include <chrono>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

namespace {

constexpr int multiprocessors = 132, shared_limit = 232448, unless_allowed = 48 * 1024, most_blocks = 32;
std::mutex mutex;
std::map<std::pair<const void*, int>, int> allowed;

int value_of(const void* kernel, cudaFuncAttribute attribute, int otherwise) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = allowed.find({kernel, int(attribute)});
  return found == allowed.end() ? otherwise : found->second;
}

// Long enough for another host thread to come in between two calls.
void dawdle() {
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

}  // namespace

extern "C" {

// So many questions about the device fail, each once.
int stub_failures = 0;
// The current device, the largest cluster that it runs, and the code it finds for itself: 0 is none.
int stub_device = 0, stub_largest_cluster = 16, stub_code = 90;

// What nvcc's host code calls when a program starts, and in stubs that nobody here calls.
void** __cudaRegisterFatBinary(void*) {
  static void* handle[1];
  return handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char*, char*, const char*, int, uint3*, uint3*, dim3*, dim3*, int*) {}
char __cudaInitModule(void**) {
  return 1;
}
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) {
  return cudaErrorNotSupported;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) {
  return cudaErrorNotSupported;
}
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) {
  return cudaErrorNotSupported;
}
unsigned __cudaPushCallConfiguration(dim3, dim3, size_t, void*) {
  return cudaErrorNotSupported;
}
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) {
  return cudaErrorNotSupported;
}

cudaError_t cudaGetDevice(int* device) {
  *device = stub_device;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "success" : "refused by the stub";
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  attributes->ptxVersion = stub_code;
  return stub_code == 0 ? cudaErrorNoKernelImageForDevice : cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  if (stub_failures > 0) {
    --stub_failures;
    return cudaErrorDevicesUnavailable;
  }
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = multiprocessors;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = shared_limit;
      return cudaSuccess;
    default:
      return cudaErrorNotSupported;
  }
}
cudaError_t cudaOccupancyMaxActiveClusters(int* count, const void*, const cudaLaunchConfig_t* c) {
  const int cluster = int(c->attrs[0].val.clusterDim.x);
  if (cluster > 8 && cluster > stub_largest_cluster) return cudaErrorInvalidClusterSize;
  *count = cluster <= stub_largest_cluster ? multiprocessors / cluster : 0;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize && value > shared_limit) return cudaErrorInvalidValue;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    allowed[{kernel, int(attribute)}] = value;
  }
  dawdle();
  return cudaSuccess;
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* kernel, void**) {
  unsigned cluster = 1;
  bool cooperative = false;
  for (unsigned k = 0; k < c->numAttrs; ++k) {
    if (c->attrs[k].id == cudaLaunchAttributeClusterDimension) cluster = c->attrs[k].val.clusterDim.x;
    if (c->attrs[k].id == cudaLaunchAttributeCooperative) cooperative = c->attrs[k].val.cooperative != 0;
  }
  const dim3 grid = c->gridDim;
  const unsigned threads = c->blockDim.x, warps = (threads + 31) / 32;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535 ||
      threads == 0 || threads > 1024 || grid.x % cluster != 0) {
    return cudaErrorInvalidConfiguration;
  }
  const int shared = int(c->dynamicSmemBytes);
  if (shared > value_of(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, unless_allowed)) {
    return cudaErrorInvalidValue;
  }
  if (cluster > 8 && value_of(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 0) == 0) {
    return cudaErrorInvalidClusterSize;
  }
  // The tables of the occupancy calculator: 228 KB, in units of 128 bytes, and 1 KB for every block; 64 warps.
  const int taken = (shared + 127) / 128 * 128 + 1024;
  const unsigned together = unsigned((shared_limit + 1024) / taken);
  const unsigned by_warps = 64 / warps, fit = together < by_warps ? together : by_warps;
  const unsigned long long most = (fit < most_blocks ? fit : most_blocks) * (unsigned long long)multiprocessors;
  if (cooperative && (unsigned long long)grid.x * grid.y * grid.z > most) return cudaErrorCooperativeLaunchTooLarge;
  return cudaSuccess;
}

}  // extern "C"
