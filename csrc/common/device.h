// What plans and bindings need to know of a device. No CUDA header.
#pragma once

#include <cstdint>

namespace vfrnn::gpu {

struct DeviceProperties {
  int arch;             // 90 for sm_90
  int multiprocessors;  // SMs
  int shared_limit;     // bytes of shared memory that a block may ask for
};

// Of the current device (common/gpu.cu); emulated: a small sm_90.
DeviceProperties device_properties();
const char* error_message(int error);

}  // namespace vfrnn::gpu
