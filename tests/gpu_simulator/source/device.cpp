// The simulated device: its properties, from the environment, and the code that it would run of those in a wheel.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "interface.h"

namespace simulator {
namespace {

const char* setting(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != 0 ? value : otherwise;
}

}  // namespace

Device device() {
  Device d = {};
  const char* capability = setting("VFRNN_SIMULATOR_DEVICE", "9.0");
  if (std::sscanf(capability, "%d.%d", &d.major, &d.minor) != 2) {
    throw std::runtime_error(std::string("VFRNN_SIMULATOR_DEVICE must be like 9.0, got ") + capability);
  }
  // CUDA C++ Programming Guide, "Technical Specifications per Compute Capability": shared memory of a thread block.
  const bool large = d.minor == 0 && (d.major == 9 || d.major == 10);
  const int kib = large ? 227 : d.major == 8 && d.minor == 0 ? 163 : 99;
  d.shared = std::atoi(setting("VFRNN_SIMULATOR_SHARED", std::to_string(kib * 1024).c_str()));
  d.cluster = std::atoi(setting("VFRNN_SIMULATOR_CLUSTER", d.major < 9 ? "1" : large ? "16" : "8"));
  d.multiprocessors = std::atoi(setting("VFRNN_SIMULATOR_SMS", "3"));
  return d;
}

std::string code_folder() {
  const char* chosen = setting("VFRNN_SIMULATOR_CODE", "");
  if (*chosen != 0) return chosen;
  Dl_info here;
  if (dladdr(reinterpret_cast<void*>(&code_folder), &here) == 0) throw std::runtime_error("where is this library?");
  const std::string path = here.dli_fname;
  const int major = device().major;
  return path.substr(0, path.rfind('/')) + "/code/" + (major < 9 ? "80" : major == 9 ? "90a" : "100");
}

}  // namespace simulator
