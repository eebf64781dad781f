// Detection of the instruction set, and the op that reports it.
#include "common/isa.h"

#include <torch/csrc/stable/library.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace vfrnn {
namespace {

Isa best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw")) {
    return Isa::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return Isa::avx2;
  }
#endif
  return Isa::baseline;
}

Isa requested_isa() {
  const char* variable = std::getenv("VFRNN_ISA");
  const Isa best = best_isa();
  if (variable == nullptr || *variable == '\0') {
    return best;
  }
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (std::string(variable) == isa_name(isa)) {
      if (isa > best) {
        throw std::runtime_error(std::string("VFRNN_ISA=") + variable + ", but the best this CPU has is " +
                                 isa_name(best));
      }
      return isa;
    }
  }
  throw std::runtime_error(std::string("VFRNN_ISA must be baseline, avx2 or avx512, got ") + variable);
}

std::string cpu_isa() {
  return isa_name(active_isa());
}

}  // namespace

Isa active_isa() {
  static const Isa isa = requested_isa();
  return isa;
}

const char* isa_name(Isa isa) {
  return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "baseline";
}

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&cpu_isa));
}

}  // namespace vfrnn
