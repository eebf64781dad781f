// What tests ask the emulator.
#include <torch/csrc/stable/library.h>

#include "common/emulator.h"

namespace {
int64_t launches() {
  return vfrnn::gpu::emulator::launches();
}
}  // namespace

STABLE_TORCH_LIBRARY(vfrnn_emulator, m) {
  m.def("launches() -> int");  // of kernels, since the start
}
STABLE_TORCH_LIBRARY_IMPL(vfrnn_emulator, CompositeExplicitAutograd, m) {
  m.impl("launches", TORCH_BOX(&launches));
}
