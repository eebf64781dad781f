// Questions to the CUDA runtime.
#include "common/device.h"
#include "common/gpu.h"

#if defined(__CUDACC__)
#include <map>
#include <mutex>
#endif

namespace vfrnn::gpu {

#if defined(__CUDACC__)

namespace {

__global__ void cluster_probe() {}

// Clusters of 16 are beyond what every device of sm_90 and later can run.
int largest_cluster(int arch) {
  if (arch < 90) return 1;
  constexpr int shared = 200 * 1024;
  const auto* kernel = reinterpret_cast<const void*>(&cluster_probe);
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = 16, attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(16);
  config.blockDim = dim3(256);
  config.dynamicSmemBytes = shared;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  const bool answered =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared) == cudaSuccess &&
      cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1) == cudaSuccess &&
      cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) == cudaSuccess;
  if (!answered) cudaGetLastError();  // a no; nobody else shall see it as theirs
  return answered && clusters > 0 ? 16 : 8;
}

}  // namespace

DeviceProperties device_properties() {
  static std::mutex mutex;
  static auto* known = new std::map<int, DeviceProperties>;
  int device = 0, major = 0, minor = 0, multiprocessors = 0, shared = 0;
  cudaGetDevice(&device);
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = known->find(device);
  if (found != known->end()) return found->second;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  const int arch = 10 * major + minor;
  return (*known)[device] = {arch, multiprocessors, shared, largest_cluster(arch)};
}
const char* error_message(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}

#else

DeviceProperties device_properties() {
  return {90, 3, 232448, 16};
}
const char* error_message(int) {
  return "emulated";
}

#endif

}  // namespace vfrnn::gpu
