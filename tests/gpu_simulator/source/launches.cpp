// What tests ask the simulator, as ops of torch.
#include <torch/csrc/stable/library.h>

#include "interface.h"

namespace {

int64_t launches() {
  return simulator::launches();
}
// A line for each kernel that cannot be executed.
std::string unsupported() {
  return simulator::unsupported();
}

}  // namespace

STABLE_TORCH_LIBRARY(vfrnn_emulator, m) {
  m.def("launches() -> int");  // of kernels, since the start
  m.def("unsupported() -> str");
}
STABLE_TORCH_LIBRARY_IMPL(vfrnn_emulator, CompositeExplicitAutograd, m) {
  m.impl("launches", TORCH_BOX(&launches));
  m.impl("unsupported", TORCH_BOX(&unsupported));
}
