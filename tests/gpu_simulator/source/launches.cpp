// What tests ask the simulator: ops of torch, and for ctypes a launch of other PTX than that of the project's kernels.
#include <torch/csrc/stable/library.h>

#include "interface.h"

namespace {

int64_t launches() {
  return simulator::launches();
}
void forget_code() {
  simulator::forget_code();
}
// A line for each kernel that cannot be executed.
std::string unsupported() {
  return simulator::unsupported();
}

}  // namespace

STABLE_TORCH_LIBRARY(vfrnn_simulator, m) {
  m.def("launches() -> int");  // of kernels, since the start
  m.def("unsupported() -> str");
  m.def("forget_code() -> ()");  // reads it again when it is needed
}
STABLE_TORCH_LIBRARY_IMPL(vfrnn_simulator, CompositeExplicitAutograd, m) {
  m.impl("launches", TORCH_BOX(&launches));
  m.impl("forget_code", TORCH_BOX(&forget_code));
  m.impl("unsupported", TORCH_BOX(&unsupported));
}

// `arguments` are the parameters in the kernel's order, each in the low bytes of a number. Returns what was wrong,
// which is valid until the next call, or an empty string.
extern "C" __attribute__((visibility("default"))) const char* simulate_ptx(const char* file, const char* kernel,
                                                                           const uint32_t* grid, uint32_t threads,
                                                                           int64_t shared, uint64_t* arguments,
                                                                           uint32_t count) {
  static std::string wrong;
  std::vector<void*> pointers;
  for (uint32_t k = 0; k < count; ++k) pointers.push_back(arguments + k);
  if (shared > simulator::device().shared) {
    wrong = std::string(kernel) + ": more shared memory than the device has";
  } else {
    wrong = simulator::execute(
        {kernel, {grid[0], grid[1], grid[2]}, {threads, 1, 1}, shared, 1, false, pointers.data(), file});
  }
  return wrong.c_str();
}
