// Questions to the CUDA runtime.
#include "common/device.h"
#include "common/gpu.h"

namespace vfrnn::gpu {

#if defined(__CUDACC__)

DeviceProperties device_properties() {
  int device = 0, major = 0, minor = 0, multiprocessors = 0, shared = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return {10 * major + minor, multiprocessors, shared};
}
const char* error_message(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}

#else

DeviceProperties device_properties() {
  return {90, 3, 232448};
}
const char* error_message(int) {
  return "emulated";
}

#endif

}  // namespace vfrnn::gpu
