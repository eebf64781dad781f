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
  int largest_cluster;  // blocks of a cluster: 16, 8, 4 or 2 where device and code can run such, each with up to 200
                        // KB, else 1
};

// Memory of a multiprocessor that its blocks take for `shared` bytes each: in units of 128, and 1 KB more for the
// runtime. There are as many bytes of it as one block may ask for, with that.
constexpr int64_t shared_taken(int64_t shared) {
  return (shared + 127) / 128 * 128 + 1024;
}

// Of the current device, asked once for each (common/gpu.cu). 0, or an error of the runtime: then the next call asks
// again.
int device_properties(DeviceProperties& properties);
// Versions of CUDA, 12080 for 12.8: the newest that the driver serves, 0 without a driver, and the runtime's.
struct Versions {
  int driver, runtime;
};
int versions(Versions& found);
// The architecture for which the code in this library was written that the current device runs; 0 if there is none.
int served_architecture(int& arch);
const char* error_message(int error);

}  // namespace vfrnn::gpu
