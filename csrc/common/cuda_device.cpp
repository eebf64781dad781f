// Binding of what can be asked about the CUDA kernels: vfrnn_kernels/cuda_device.py makes reasons of it.
#include <vector>

#include "common/cuda_tensors.h"

namespace vfrnn {
namespace {

std::vector<int64_t> cuda_versions() {
  gpu::Versions found{};
  const int error = gpu::versions(found);
  require(error == 0, "the CUDA driver does not answer: ", gpu::error_message(error));
  return {found.driver, found.runtime};
}

std::vector<int64_t> cuda_device(int64_t index) {
  const ts::accelerator::DeviceGuard guard(static_cast<ts::accelerator::DeviceIndex>(index));
  int code = 0;
  const int error = gpu::served_architecture(code);
  require(error == 0, "no CUDA kernel can be loaded: ", gpu::error_message(error));
  const gpu::DeviceProperties p = device_properties();
  return {p.arch, code, p.multiprocessors, p.shared_limit, p.largest_cluster};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, CompositeExplicitAutograd, m) {
  m.impl("cuda_versions", TORCH_BOX(&cuda_versions));
  m.impl("cuda_device", TORCH_BOX(&cuda_device));
}

}  // namespace vfrnn
