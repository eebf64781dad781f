// Threads that go through one computation together, a part of every pass each, and wait for each other after it.
//
// A pass of a product of 100 x 100 matrices takes about as long as it takes to hand it to the framework's threads; so
// they are called once for a whole sequence of passes and meet at a barrier instead.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/barrier.h"
#include "common/cpus.h"
#include "common/parallel.h"
#include "common/tensors.h"

namespace vfrnn {

// Threads that a call may use: those of the framework, and no more than there are CPUs for them. One that waits without
// a CPU of its own costs the others theirs.
inline int64_t usable_threads() {
  return std::min<int64_t>(ts::get_num_threads(), usable_cpus());
}

// What one thread of the team knows of it. It stands for the members first..last, more than one where the framework had
// fewer threads to give. Nothing may be thrown while a team is at work.
class Team {
 public:
  // A thread of its own
  Team() : Team(0, 1, 1, nullptr) {}

  // f(team) on up to `members` threads at the same time, once on each.
  template <class F>
  static void run(int64_t members, const F& f) {
    if (members <= 1) return run_here([&] { f(Team()); });
    Barrier barrier(members);
    parallel_for(0, members, 1, [&](int64_t begin, int64_t end) { f(Team(begin, end, members, &barrier)); });
  }
  // Members that `work` multiply-adds in a pass are worth, at most a thread each.
  static int64_t members_for(int64_t work) {
    constexpr int64_t work_per_member = 100000;
    return std::clamp<int64_t>(work / work_per_member, 1, usable_threads());
  }

  int64_t members() const { return members_; }
  // The first of the members that this thread stands for, and the part of 0..count that is theirs.
  int64_t number() const { return first_; }
  int64_t begin(int64_t count) const { return count * first_ / members_; }
  int64_t end(int64_t count) const { return count * last_ / members_; }
  // Until every thread of the team has called it. False, to all of them, where one thread should go on alone; who can
  // not goes on as before.
  bool wait() const { return barrier_ ? barrier_->wait(last_ - first_, losses_) : true; }
  // Makes the next wait() say so.
  void give_up() const {
    if (barrier_) barrier_->give_up();
  }
  // Whether a thread of its own may leave: the call is over. Threads that wait for each other go through all passes,
  // in which they do nothing more.
  bool may_leave() const { return members_ == 1 && stop_asked(); }
  // f(begin, end) on the part of 0..count that is this thread's; all have done theirs when it returns.
  template <class F>
  void split(int64_t count, const F& f) const {
    if (begin(count) < end(count) && !stopped()) f(begin(count), end(count));
    wait();
  }
  // f() on one thread; it has been done when this returns.
  template <class F>
  void alone(const F& f) const {
    if (first_ == 0) f();
    wait();
  }

 private:
  Team(int64_t first, int64_t last, int64_t members, Barrier* barrier)
      : first_(first), last_(last), members_(members), barrier_(barrier) {}

  int64_t first_, last_, members_;
  Barrier* barrier_;
  mutable Barrier::Losses losses_;
};

}  // namespace vfrnn
