// Who looks for signals, and when. Python's part is in host/signals.cpp; without it no call is ever ended.
#include <chrono>

#include "common/parallel.h"

// ThreadSanitizer does not see how OpenMP's runtime hands a loop to its threads, and waits for them.
#if !defined(__SANITIZE_THREAD__) && defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__
#endif
#endif
#if defined(__SANITIZE_THREAD__)
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
#else
#define __tsan_acquire(address)
#define __tsan_release(address)
#endif

namespace vfrnn {
namespace {

using clock = std::chrono::steady_clock;

// What a look costs is waiting for Python's lock, up to 5 ms where another thread of Python is busy.
constexpr std::chrono::milliseconds between_looks{100};

std::atomic<bool (*)()> look_for_signals{nullptr};
std::atomic<void (*)()> throw_what_was_raised{nullptr};

thread_local Region* current = nullptr;
thread_local clock::time_point next_look{};

}  // namespace

Region::Region() : outer_(current), caller_(&current) {
  __tsan_release(&begun_);
}

Region::Member::Member(Region& region) : region_(region), before_(current) {
  __tsan_acquire(&region.begun_);
  current = region.outer_ ? region.outer_ : &region;
}
Region::Member::~Member() {
  current = before_;
  __tsan_release(&region_.ended_);
}

bool Region::stop_asked() {
  if (stopped_.load(std::memory_order_relaxed)) return true;
  const auto look = look_for_signals.load(std::memory_order_acquire);
  if (look == nullptr || caller_ != &current) return false;
  const clock::time_point now = clock::now();
  if (now < next_look) return false;
  next_look = now + between_looks;
  // A handler may call an op itself, which is a call of its own.
  Region* const here = current;
  current = nullptr;
  const bool raised = look();
  current = here;
  if (raised) stopped_.store(true, std::memory_order_relaxed);
  return raised;
}

void Region::close() {
  __tsan_acquire(&ended_);
  if (outer_ || !stop_asked()) return;
  throw_what_was_raised.load(std::memory_order_acquire)();
}

bool stopped() {
  return current != nullptr && current->stopped();
}
bool stop_asked() {
  return current != nullptr && current->stop_asked();
}

}  // namespace vfrnn

// look(): on the thread that called an op, whether a handler has raised; raise() throws what it raised.
extern "C" [[gnu::visibility("default")]] void vfrnn_watch_signals(bool (*look)(), void (*raise)()) {
  vfrnn::throw_what_was_raised.store(raise, std::memory_order_release);
  vfrnn::look_for_signals.store(look, std::memory_order_release);
}
