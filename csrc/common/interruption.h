// Calls that a signal ends early, for kernels and bindings.
//
// Python runs the handler of a signal between two of its instructions, of which there are none while an op goes through
// a sequence. So the kernels ask between steps: the thread that called the op then lets Python look, now and then, and
// where a handler has raised (Ctrl-C) all threads of the call leave what they do, and the call throws (parallel.h).
#pragma once

#include <stdint.h>

namespace vfrnn {

// Whether the parallel loop that this thread is in is over before its end: then its results are read by nobody.
bool stop_asked();
// The same as far as it is known, without a look.
bool stopped();

namespace {  // no copy of one instruction set serves another

// Asks once in so many steps as take some microseconds.
class StopCheck {
 public:
  // `work`: multiply-adds of a step
  explicit StopCheck(double work) : every_(1 + int64_t((1 << 18) / (work + 1))), left_(every_) {}
  bool asked() {
    if (__builtin_expect(--left_ > 0, 1)) return false;
    left_ = every_;
    return stop_asked();
  }

 private:
  int64_t every_, left_;
};

}  // namespace

}  // namespace vfrnn
