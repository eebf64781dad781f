// Detection of the instruction set, and the ops that report it.
#include "common/isa.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#define VFRNN_AS_STRING(...) #__VA_ARGS__
#define VFRNN_NAMES(...) VFRNN_AS_STRING(__VA_ARGS__)

namespace vfrnn {
namespace {

// In the order of Isa.
std::vector<std::string> cpu_isas() {
  std::vector<std::string> names;
  std::istringstream list(VFRNN_NAMES(VFRNN_ISAS));
  for (std::string name; std::getline(list, name, ',');) names.push_back(name);
  return names;
}

bool cpu_has([[maybe_unused]] const std::string& isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (isa == "avx512") {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  }
  if (isa == "avx2") {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  }
#endif
  return true;  // the least of each processor
}

Isa best_isa() {
  const std::vector<std::string> names = cpu_isas();
  return Isa(std::find_if(names.rbegin(), names.rend(), cpu_has).base() - names.begin() - 1);
}

Isa requested_isa() {
  const char* variable = std::getenv("VFRNN_ISA");
  const Isa best = best_isa();
  if (variable == nullptr || *variable == '\0') {
    return best;
  }
  const std::vector<std::string> names = cpu_isas();
  const auto found = std::find(names.begin(), names.end(), variable);
  if (found == names.end()) {
    std::string known = names[0];
    for (size_t k = 1; k < names.size(); ++k) known += (k + 1 < names.size() ? ", " : " or ") + names[k];
    throw std::runtime_error("VFRNN_ISA must be " + known + ", got " + variable);
  }
  const Isa isa = Isa(found - names.begin());
  if (isa > best) {
    throw std::runtime_error("VFRNN_ISA=" + *found + ", but the best this CPU has is " + names[int(best)]);
  }
  return isa;
}

std::string cpu_isa() {
  return cpu_isas()[int(active_isa())];
}

}  // namespace

Isa active_isa() {
  static const Isa isa = requested_isa();
  return isa;
}

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&cpu_isa));
  m.impl("cpu_isas", TORCH_BOX(&cpu_isas));
}

}  // namespace vfrnn
