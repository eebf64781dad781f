// Questions to the CUDA runtime, and what is told to it once.
#include <algorithm>
#include <map>
#include <mutex>
#include <set>
#include <tuple>
#include <utility>

#include "common/device.h"
#include "common/gpu.h"

namespace vfrnn::gpu {

namespace {

__global__ void cluster_probe() {}
const void* const probe = reinterpret_cast<const void*>(&cluster_probe);

// Whether clusters of so many blocks, each with so many bytes, run on the current device.
cudaError_t runs_clusters(unsigned blocks, int shared, bool& runs) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = blocks, attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(256);
  config.dynamicSmemBytes = size_t(shared);
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  const cudaError_t error = cudaOccupancyMaxActiveClusters(&clusters, probe, &config);
  runs = error == cudaSuccess && clusters > 0;
  return error;
}

cudaError_t find_largest_cluster(DeviceProperties& p) {
  p.largest_cluster = 1;
  int code = 0;  // on a newer device, code for sm_80 leaves out what clusters need
  if (const int error = served_architecture(code)) return static_cast<cudaError_t>(error);
  if (code < 90) return cudaSuccess;
  if (const cudaError_t error = allow(probe, cudaFuncAttributeMaxDynamicSharedMemorySize)) return error;
  const int shared = std::min(p.shared_limit, 200 * 1024);
  for (const unsigned blocks : {16u, 8u, 4u, 2u}) {
    // More than 8 are beyond what every device of sm_90 and later can run, and it may say so by an error.
    const bool must_answer = blocks <= 8;
    bool runs = false;
    cudaError_t error = must_answer ? cudaSuccess : allow(probe, cudaFuncAttributeNonPortableClusterSizeAllowed);
    if (error == cudaSuccess) error = runs_clusters(blocks, shared, runs);
    if (error != cudaSuccess && must_answer) return error;
    if (error != cudaSuccess) cudaGetLastError();  // a no; nobody else shall see it as theirs
    if (runs) {
      p.largest_cluster = int(blocks);
      break;
    }
  }
  return cudaSuccess;
}

cudaError_t find_properties(int device, DeviceProperties& p) {
  int major = 0, minor = 0;
  const std::pair<cudaDeviceAttr, int*> wanted[] = {{cudaDevAttrComputeCapabilityMajor, &major},
                                                    {cudaDevAttrComputeCapabilityMinor, &minor},
                                                    {cudaDevAttrMultiProcessorCount, &p.multiprocessors},
                                                    {cudaDevAttrMaxSharedMemoryPerBlockOptin, &p.shared_limit}};
  for (const auto& [attribute, value] : wanted) {
    if (const cudaError_t error = cudaDeviceGetAttribute(value, attribute, device)) return error;
  }
  p.arch = 10 * major + minor;
  return find_largest_cluster(p);
}

}  // namespace

int device_properties(DeviceProperties& properties) {
  static std::mutex mutex;
  static auto* known = new std::map<int, DeviceProperties>;  // never destroyed, as the runtime may be gone by then
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device)) return error;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = known->find(device);
  if (found != known->end()) {
    properties = found->second;
    return cudaSuccess;
  }
  const cudaError_t error = find_properties(device, properties);
  if (error == cudaSuccess) (*known)[device] = properties;
  return error;
}

int versions(Versions& found) {
  if (const cudaError_t error = cudaDriverGetVersion(&found.driver)) return error;
  return cudaRuntimeGetVersion(&found.runtime);
}

int served_architecture(int& arch) {
  cudaFuncAttributes attributes = {};
  const cudaError_t error = cudaFuncGetAttributes(&attributes, probe);
  arch = error == cudaSuccess ? attributes.ptxVersion : 0;
  if (error != cudaErrorNoKernelImageForDevice && error != cudaErrorInvalidDeviceFunction) return error;
  cudaGetLastError();  // an answer, not a failure
  return cudaSuccess;
}

cudaError_t allow(const void* kernel, cudaFuncAttribute attribute) {
  static std::mutex mutex;
  static auto* allowed = new std::set<std::tuple<int, const void*, int>>;
  int device = 0, value = 1;
  if (const cudaError_t error = cudaGetDevice(&device)) return error;
  const std::lock_guard<std::mutex> lock(mutex);
  const std::tuple<int, const void*, int> entry{device, kernel, int(attribute)};
  if (allowed->count(entry) != 0) return cudaSuccess;
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    const cudaError_t error = cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (error != cudaSuccess) return error;
  }
  const cudaError_t error = cudaFuncSetAttribute(kernel, attribute, value);
  if (error == cudaSuccess) allowed->insert(entry);
  return error;
}

const char* error_message(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}

}  // namespace vfrnn::gpu
