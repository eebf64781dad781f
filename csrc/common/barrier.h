// Threads that wait for each other, for the few hundred nanoseconds that a step of a narrow recurrence takes.
#pragma once

#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>

namespace vfrnn {

// wait(k) returns when calls worth `members` have been made: true as long as the threads are worth each other's
// company. The calls must come from threads that run at the same time, as the parts of one parallel_for do where the
// framework uses OpenMP (loader.py asks); a thread that was given k parts waits once, for all of them: so that a region
// that got fewer threads than parts, or one inside another region, does not wait for itself.
//
// Where other jobs keep the CPUs busy a thread that waits may wait for a turn of another process, thousands of times
// longer than a step. A thread alone would take at most `members` times the time that the threads spend computing: once
// the time that one of them has lost in waiting makes the whole longer than that, wait() returns false to all of them,
// of the same round, and one of them should go on alone. give_up() has the same effect, in the caller's next round.
class Barrier {
 public:
  explicit Barrier(int64_t members) : members_(members) {}

  // What one thread knows of its own waiting.
  class Losses {
    friend class Barrier;
    using clock = std::chrono::steady_clock;
    clock::time_point start_ = clock::now();
    clock::duration lost_{};
  };

  void give_up() { given_up_.store(true, std::memory_order_relaxed); }

  bool wait(int64_t parts, Losses& losses) {
    const int64_t round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(parts, std::memory_order_acq_rel) + parts == members_) {
      arrived_.store(0, std::memory_order_relaxed);
      const int64_t next = round / 2 * 2 + 2 + (given_up_.load(std::memory_order_relaxed) ? 1 : 0);
      round_.store(next, std::memory_order_release);
      return next % 2 == 0;
    }
    int64_t next;
    for (int64_t spins = 0; (next = round_.load(std::memory_order_acquire)) == round; ++spins) {
      if (spins == patience) return wait_long(round, losses);
      pause();
    }
    return next % 2 == 0;
  }

 private:
  static constexpr int64_t patience = 4000;
  // Less than what a thread is deprived of its CPU for, more than what happens now and then.
  static constexpr std::chrono::milliseconds least_loss{2};

  bool wait_long(int64_t round, Losses& losses) {
    using clock = Losses::clock;
    const clock::time_point before = clock::now();
    int64_t next;
    while ((next = round_.load(std::memory_order_acquire)) == round) {
      sched_yield();  // more threads than CPUs: let the others arrive
      const clock::time_point now = clock::now();
      const clock::duration lost = losses.lost_ + (now - before), all = now - losses.start_;
      if (lost > least_loss && all > members_ * (all - lost)) give_up();
    }
    losses.lost_ += clock::now() - before;
    return next % 2 == 0;
  }
  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  const int64_t members_;
  alignas(64) std::atomic<int64_t> arrived_{0};
  alignas(64) std::atomic<int64_t> round_{0};  // twice the number of rounds, and 1 once they were given up
  std::atomic<bool> given_up_{false};
};

}  // namespace vfrnn
