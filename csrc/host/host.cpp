// vfrnn_kernels._host: what this build is. Links no torch, so it loads when nothing else does.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <string>

namespace {

std::map<std::string, std::string> build_info() {
  return {
      {"version", VFRNN_VERSION},
      {"oldest_torch", VFRNN_TORCH_TARGET},
      {"build_type", VFRNN_BUILD_TYPE},
      {"compiler", "g++ " __VERSION__},
      {"cuda", VFRNN_CUDA_ARCHS[0] ? VFRNN_CUDA_ARCHS : "off"},
  };
}

}  // namespace

PYBIND11_MODULE(_host, m) {
  m.doc() = "Build information of vfrnn_kernels.";
  m.def("build_info", &build_info,
        "Version, compiler, oldest torch served, build type and CUDA architectures, as strings.");
}
