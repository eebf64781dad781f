// What the stub runtime (stub_runtime.cpp) asks of the simulator (simulator.cpp), and of the device that is simulated
// (device.cpp).
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace simulator {

// A launch as the runtime got it; `arguments` are pointers to the parameters, in the kernel's order.
struct Launch {
  std::string name;
  uint32_t grid[3], block[3];
  int64_t shared;
  uint32_t cluster;
  bool cooperative;
  void** arguments;
  std::string file = {};  // of the PTX; empty: in the folder of code
};

// Executes all of it; returns what was wrong, or nothing.
std::string execute(const Launch& launch);
// Launches since the start.
int64_t launches();
// Device memory that cudaMalloc gave: addresses outside of it, and of torch's tensors (tensor_bounds.cpp), are faults.
void allocated(void* p, size_t bytes);
void freed(void* p);
// Bytes of each parameter of a kernel, from its PTX.
std::vector<uint32_t> parameter_sizes(const std::string& name);
// The files of code may have changed.
void forget_code();
// Reads every kernel of the folder of code; returns what is unsupported, a line each.
std::string unsupported();

// The device: VFRNN_SIMULATOR_DEVICE is its compute capability (9.0). The others follow from it if they are not set:
// _SHARED bytes of shared memory that a block may have, _CLUSTER the most blocks of a cluster (16, 8 or 1: none), _SMS
// multiprocessors (3).
struct Device {
  int major, minor, shared, cluster, multiprocessors;
};
Device device();
// Folder of the code that it runs: code/ARCH beside this library, or VFRNN_SIMULATOR_CODE.
std::string code_folder();

}  // namespace simulator
