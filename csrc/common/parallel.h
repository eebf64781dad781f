// Loops over the threads of the framework's pool, which a signal can end (interruption.h).
#pragma once

#include <atomic>
#include <cstdint>

#include "common/interruption.h"
#include "common/tensors.h"

namespace vfrnn {

// One parallel loop, as its threads know it. Inside of another one it is a part of that.
class Region {
 public:
  Region();
  Region(const Region&) = delete;
  // Throws what a handler has raised, if any has; not inside of another loop, which may have other threads.
  void close();
  bool stop_asked();
  bool stopped() const { return stopped_.load(std::memory_order_relaxed); }

  // Lives on a thread while it is in the loop.
  class Member {
   public:
    explicit Member(Region& region);
    ~Member();
    Member(const Member&) = delete;

   private:
    Region& region_;
    Region* const before_;
  };

 private:
  std::atomic<bool> stopped_{false};
  Region* const outer_;
  const void* const caller_;  // an address of the calling thread's own
  char begun_, ended_;        // whose addresses stand for the begin and the end, where ThreadSanitizer looks on
};

// f(begin, end) on parts of begin..end of at least `grain`, in parallel. Throws after the loop where a handler of a
// signal has raised; f should return soon once stop_asked(), and may not throw.
template <class F>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const F& f) {
  Region region;
  // What it captures is written after the region has begun, which ThreadSanitizer would call a race.
  ts::parallel_for(begin, end, grain, [&](int64_t first, int64_t last) __attribute__((no_sanitize("thread"))) {
    const Region::Member member(region);
    f(first, last);
  });
  region.close();
}

// f() on the calling thread, as a loop that a signal can end.
template <class F>
void run_here(const F& f) {
  Region region;
  {
    const Region::Member member(region);
    f();
  }
  region.close();
}

// The same for a loop that is not parallel, in each turn.
inline void throw_if_stopped() {
  Region().close();
}

}  // namespace vfrnn
