// CPUs of the process, as Linux tells them in /proc and in the file system of control groups.
#include "common/cpus.h"

#if defined(__linux__)
#include <dirent.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <sstream>
#endif

namespace vfrnn {

#if defined(__linux__)
namespace {

// One group's quota: "cpu.max" of version 2 holds "<microseconds or max> <period>", version 1 has a file for each.
int quota_of(const std::string& group, bool second_version) {
  double quota = -1, period = 0;
  if (second_version) {
    std::ifstream(group + "/cpu.max") >> quota >> period;  // "max" leaves the quota 0
  } else {
    std::ifstream(group + "/cpu.cfs_quota_us") >> quota;
    std::ifstream(group + "/cpu.cfs_period_us") >> period;
  }
  if (!(quota > 0) || !(period > 0)) return unlimited_cpus;
  return int(std::min<double>(unlimited_cpus, std::ceil(quota / period)));
}

// The CPUs of all threads together: where the framework binds its threads to a CPU each, the caller's own are too few.
int affinity_cpus() {
  cpu_set_t all;
  CPU_ZERO(&all);
  if (DIR* const tasks = opendir("/proc/self/task")) {
    while (const dirent* task = readdir(tasks)) {
      cpu_set_t mask;
      const int id = std::atoi(task->d_name);  // "." and ".." give 0, which would be the caller
      if (id > 0 && sched_getaffinity(id, sizeof(mask), &mask) == 0) CPU_OR(&all, &all, &mask);
    }
    closedir(tasks);
  }
  const int count = CPU_COUNT(&all);  // 0: more CPUs than the mask holds, or no /proc
  return count > 0 ? count : unlimited_cpus;
}

}  // namespace

int cgroup_cpus(const std::string& membership, const std::string& root) {
  int least = unlimited_cpus;
  std::ifstream lines(membership);
  for (std::string line; std::getline(lines, line);) {
    // "<number>:<controllers>:<path>"; version 2 names no controllers
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string mount = root;
    if (!controllers.empty()) {
      std::istringstream names(controllers);
      bool found = false;
      for (std::string name; std::getline(names, name, ',');) found = found || name == "cpu";
      if (!found) continue;
      mount += "/" + controllers;
      if (!std::ifstream(mount + "/cpu.cfs_quota_us")) mount = root + "/cpu";
    }
    std::string path = line.substr(second + 1);
    for (;; path.erase(path.rfind('/'))) {
      while (!path.empty() && path.back() == '/') path.pop_back();
      least = std::min(least, quota_of(mount + path, controllers.empty()));
      if (path.find('/') == std::string::npos) break;
    }
  }
  return least;
}

int usable_cpus() {
  using clock = std::chrono::steady_clock;
  constexpr int64_t validity = 200;  // milliseconds; what is asked takes some ten microseconds
  static std::atomic<int64_t> known_until{INT64_MIN};
  static std::atomic<int> known{unlimited_cpus};
  const int64_t now = std::chrono::duration_cast<std::chrono::milliseconds>(clock::now().time_since_epoch()).count();
  if (now >= known_until.load(std::memory_order_acquire)) {
    known.store(std::min(affinity_cpus(), cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup")),
                std::memory_order_relaxed);
    known_until.store(now + validity, std::memory_order_release);
  }
  return known.load(std::memory_order_relaxed);
}
#else
int cgroup_cpus(const std::string&, const std::string&) {
  return unlimited_cpus;
}
int usable_cpus() {
  return unlimited_cpus;
}
#endif

}  // namespace vfrnn
