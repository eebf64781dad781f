// vfrnn_kernels._host: what this build is, the CPUs it may use, what its CUDA kernels would do, and the signals that
// end its CPU kernels. Links no torch, so it loads when nothing else does.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <stdexcept>
#include <string>

#include "common/cpus.h"
#include "field_flow/layout.h"
#include "host/signals.h"
#include "recurrence/plan.h"

namespace {

std::map<std::string, std::string> build_info() {
  return {
      {"version", VFRNN_VERSION},
      {"oldest_torch", VFRNN_TORCH_TARGET},
      {"build_type", VFRNN_BUILD_TYPE},
#if defined(__clang__)
      {"compiler", __VERSION__},  // says which
#elif defined(__SANITIZE_ADDRESS__)
      {"compiler", "g++ " __VERSION__ " -fsanitize=address"},  // which moves roundings too
#else
      {"compiler", "g++ " __VERSION__},
#endif
      {"cuda", VFRNN_CUDA_ARCHS[0] ? VFRNN_CUDA_ARCHS : "off"},
      {"cuda_toolkit", VFRNN_CUDA_TOOLKIT},  // empty without CUDA kernels
  };
}

namespace py = pybind11;

py::dict recurrence_plan(int n, const std::string& dtype, int64_t batch, bool backward, int arch, int multiprocessors,
                         int shared_limit, int largest_cluster) {
  const std::map<std::string, vfrnn::CudaType> types = {{"bfloat16", vfrnn::CudaType::bf16},
                                                        {"float16", vfrnn::CudaType::f16},
                                                        {"float32", vfrnn::CudaType::f32},
                                                        {"float64", vfrnn::CudaType::f64}};
  const auto type = types.find(dtype);
  if (type == types.end()) {
    throw std::invalid_argument("dtype must be bfloat16, float16, float32 or float64, got " + dtype);
  }
  if (n < 1 || batch < 1) throw std::invalid_argument("n and batch must be at least 1");
  const vfrnn::RecurrencePlan p =
      vfrnn::recurrence_plan(n, type->second, batch, backward, {arch, multiprocessors, shared_limit, largest_cluster});
  using namespace py::literals;
  return py::dict("route"_a = vfrnn::recurrence_route_names[int(p.route)], "shape"_a = p.shape, "N"_a = p.N,
                  "cluster"_a = p.cluster, "samples"_a = p.samples, "unit_tiles"_a = p.unit_tiles,
                  "blocks"_a = p.blocks, "threads"_a = p.threads, "registers"_a = p.registers, "shared"_a = p.shared,
                  "microseconds"_a = p.microseconds);
}

py::dict field_flow_layout(int64_t batch, int m, int n, int order, bool backward, int arch, int multiprocessors,
                           int shared_limit) {
  if (batch < 1 || m < 1 || n < 1 || n > vfrnn::field_flow_largest_n || order < 1) {
    throw std::invalid_argument("batch, m, order and n must be at least 1, n at most 1024");
  }
  const vfrnn::FieldFlowLayout l = vfrnn::field_flow_layout({batch, m, n, order, backward, backward, backward},
                                                            {arch, multiprocessors, shared_limit, 1});
  using namespace py::literals;
  return py::dict("columns"_a = l.columns, "warps"_a = l.warps, "blocks"_a = l.blocks, "slots"_a = l.slots,
                  "shared"_a = l.shared, "resident"_a = l.resident);
}

}  // namespace

// All it keeps is the main thread's (host/signals.cpp).
PYBIND11_MODULE(_host, m, py::mod_gil_not_used()) {
  m.doc() = "Build information of vfrnn_kernels, the CPUs for its threads, the plans of its CUDA kernels, and signals.";
  m.def("build_info", &build_info,
        "Version, compiler, oldest torch served, build type, CUDA architectures and toolkit, as strings.");
  m.def("usable_cpus", &vfrnn::usable_cpus,
        "CPUs that this process may use, by its affinity and the quota of its control groups; 2^20 where nothing is "
        "known.");
  m.def(
      "cgroup_cpus", &vfrnn::cgroup_cpus, py::arg("membership"), py::arg("root"),
      "The quota of the control groups that a file like /proc/self/cgroup names, in CPUs, rounded up; 2^20 for none.");
  m.def("watch_signals", &vfrnn::watch_signals, py::arg("library"),
        "Lets signals whose handlers raise end the calls of the CPU kernels in `library`, a path that is loaded.");
  m.def("recurrence_plan", &recurrence_plan, py::arg("n"), py::arg("dtype"), py::arg("batch"), py::arg("backward"),
        py::arg("arch") = 90, py::arg("multiprocessors") = 132, py::arg("shared_limit") = 232448,
        py::arg("largest_cluster") = 16,
        "How the CUDA kernels would run the recurrence on such a device: the route ('cta', 'cluster' or 'steps'), its "
        "tiles, the registers of a thread that hold M, the bytes of shared memory per block, and microseconds per step "
        "of the whole batch: a lower bound by count, not measured.");
  m.def("field_flow_layout", &field_flow_layout, py::arg("batch"), py::arg("m"), py::arg("n"), py::arg("order"),
        py::arg("backward"), py::arg("arch") = 90, py::arg("multiprocessors") = 132, py::arg("shared_limit") = 232448,
        "How the CUDA kernels would run field_flow on such a device, all gradients asked for: the nodes of a lane, the "
        "warps of a block, the blocks that run at the same time, those of them that take samples, the bytes of shared "
        "memory per block, and whether the mesh stays in registers.");
}
