// What plans and bindings need to know of a device, and its number types. No CUDA header.
#pragma once

#include <cstdint>

namespace vfrnn {

// The number types of matrices and of their products.
enum class CudaType { bf16, f16, f32, f64 };
constexpr int bytes_of(CudaType type) {
  return type == CudaType::f64 ? 8 : type == CudaType::f32 ? 4 : 2;
}

}  // namespace vfrnn

namespace vfrnn::gpu {

struct DeviceProperties {
  int arch;             // 90 for sm_90
  int multiprocessors;  // SMs
  int shared_limit;     // bytes of shared memory that a block may ask for
  int largest_cluster;  // blocks of a cluster: 1 before sm_90; 16 where the device can run such with 200 KB each, else
                        // 8
};

// Of the current device (common/gpu.cu); emulated: a small sm_90.
DeviceProperties device_properties();
const char* error_message(int error);

}  // namespace vfrnn::gpu
