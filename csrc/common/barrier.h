// Threads that wait for each other, for the few hundred nanoseconds that a step of a narrow recurrence takes.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>

namespace vfrnn {

// wait(k) returns when calls worth `members` have been made. The calls must come from threads that run at the same
// time, as the parts of one parallel_for do where the framework uses OpenMP (loader.py asks); a thread that was given k
// parts waits once, for all of them: so that a region that got fewer threads than parts, or one inside another region,
// does not wait for itself.
class Barrier {
 public:
  explicit Barrier(int64_t members) : members_(members) {}

  void wait(int64_t parts) {
    const int64_t round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(parts, std::memory_order_acq_rel) + parts == members_) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      return;
    }
    for (int64_t spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
      if (spins < patience) {
        pause();
      } else {
        sched_yield();  // more threads than cores: let the others arrive
      }
    }
  }

 private:
  static constexpr int64_t patience = 4000;
  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  const int64_t members_;
  alignas(64) std::atomic<int64_t> arrived_{0};
  alignas(64) std::atomic<int64_t> round_{0};
};

}  // namespace vfrnn
