// A recurrence that two threads share, one of which is given up at round `round`, must have the bits of one thread
// alone: forward and backward, for every round. One that is asked to stop leaves with the other. And a barrier gives up
// whom it waits for too long, to all in one round.
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "common/barrier.h"
#include "common/interruption.h"
#include "common/isa.h"
#include "recurrence/kernels.h"

using namespace vfrnn;

namespace {

constexpr int64_t B = 2, n = 21, i = 3;
int64_t T = 23;

// What threads are told that ask whether to stop: true from the call with this number on.
std::atomic<int64_t> asked{0}, stop_from{INT64_MAX};

// A meeting of two that is over at one round, as Barrier's is.
struct Meeting {
  explicit Meeting(int64_t round) : last_round(round) {}
  Barrier barrier{2};
  const int64_t last_round;
  std::atomic<bool> given_up{false};
};
struct Member {
  Meeting* meeting;
  int64_t rounds = 0;
  Barrier::Losses losses;
  bool wait(bool give_up) {
    // As Barrier says it, which sees what was said before the last of a round has come
    if (give_up) meeting->given_up = true;
    meeting->barrier.wait(1, losses);
    const bool together = rounds++ < meeting->last_round && !meeting->given_up;
    meeting->barrier.wait(1, losses);
    return together;
  }
};

std::vector<float> numbers(int64_t count, unsigned seed) {
  std::vector<float> x(count);
  for (float& value : x) {
    seed = seed * 1664525u + 1013904223u;
    value = float(seed >> 8) / float(1 << 24) - 0.5f;
  }
  return x;
}

constexpr float never_written = 1e30f;

// All results, one after the other; round < 0: by one thread.
std::vector<float> results(int64_t round) {
  const RecurrenceKernels<float>& kernel = IsaTable<RecurrenceKernels<float>>::baseline;
  const int64_t W = kernel.panel_width, panels = panels_of(n, W);
  const auto x = numbers(T * B * i, 1), h0 = numbers(B * n, 2), grad_hs = numbers(T * B * n, 3);
  const auto weights = numbers(panels * (n + i) * W, 4), c = numbers(panels * W, 5), beta = numbers(panels * W, 6);
  const auto input_weights = numbers(panels_of(i, W) * n * W, 7);
  std::vector<float> hs(T * B * n, never_written), grad_x(T * B * i, never_written), grad_h0(B * n),
      beta_sums(panels * W);

  ForwardProblem<float> f{};
  f.steps = T, f.n = n, f.i = i, f.activation = Activation::modrelu;
  f.x = {x.data(), B * i, i}, f.h0 = {h0.data(), 0, n}, f.weights = weights.data();
  f.c = c.data(), f.beta = beta.data(), f.hs = hs.data(), f.hs_step = B * n;
  BackwardProblem<float> b{};
  b.steps = T, b.n = n, b.i = i, b.activation = Activation::modrelu;
  b.grad_hs = {grad_hs.data(), B * n, n}, b.x = f.x, b.h0 = f.h0, b.hs = hs.data(), b.hs_step = B * n;
  b.weights = weights.data(), b.input_weights = input_weights.data();
  b.grad_x = grad_x.data(), b.grad_x_step = B * i, b.grad_h0 = grad_h0.data();
  b.needs_M = b.needs_U = b.needs_c = true;
  std::vector<float> sums(kernel.sums_size(b)), state(kernel.forward_state(f, B)), shared(kernel.backward_state(b, B));

  const auto run = [&](auto call) {
    Meeting meeting(round);
    const auto part = [&](int64_t first, int64_t last) {
      Member member{&meeting, 0, {}};
      const auto wait = [](const void* m, bool give_up) {
        return static_cast<Member*>(const_cast<void*>(m))->wait(give_up);
      };
      Share share{first, last, wait, &member};
      if (round < 0) share.wait = nullptr;
      call(share);
    };
    if (round < 0) return part(0, panels);
    std::thread other(part, panels / 2, panels);
    part(0, panels / 2);
    other.join();
  };
  run([&](Share& share) {
    std::vector<float> workspace(kernel.forward_workspace(f, B));
    kernel.forward(f, 0, B, share, state.data(), workspace.data());
  });
  run([&](Share& share) {
    std::vector<float> workspace(kernel.backward_workspace(b, B));
    kernel.backward(b, 0, B, share, shared.data(), workspace.data(), {sums.data(), beta_sums.data()});
  });
  std::vector<float> all = hs;
  for (const auto* part : {&grad_x, &grad_h0, &sums, &beta_sums}) all.insert(all.end(), part->begin(), part->end());
  return all;
}

// Rounds until two threads part, one of which sleeps before every round; at most `most`.
int64_t rounds_together(std::chrono::microseconds sleep, int64_t most) {
  Barrier barrier(2);
  int64_t rounds[2] = {};
  const auto member = [&](int k) {
    Barrier::Losses losses;
    do {
      if (k == 1) std::this_thread::sleep_for(sleep);
    } while (++rounds[k] < most && barrier.wait(1, losses));
    // Who cannot go on alone waits as before, and hears the same of every round.
    for (int more = 0; rounds[k] < most && more < 3; ++more) {
      if (barrier.wait(1, losses)) std::printf("together again\n"), std::exit(1);
    }
  };
  std::thread other(member, 1);
  member(0);
  other.join();
  if (rounds[0] != rounds[1])
    std::printf("they part after %ld and %ld rounds\n", long(rounds[0]), long(rounds[1])), std::exit(1);
  return rounds[0];
}

// Whether both threads leave a forward and a backward before their last step, told so at their first question.
bool both_stop() {
  T = 4000;
  stop_from = 0;
  const std::vector<float> found = results(INT64_MAX);
  const bool stopped = found[T * B * n - 1] == never_written && found[T * B * n] == never_written;
  T = 23, stop_from = INT64_MAX;
  return stopped && asked >= 2;
}

}  // namespace

bool vfrnn::stop_asked() {
  return asked++ >= stop_from;
}

int main() {
  const std::vector<float> alone = results(-1);
  for (int64_t round = 0; round <= T + 1; ++round) {
    const std::vector<float> found = results(round);
    if (std::memcmp(found.data(), alone.data(), alone.size() * sizeof(float)) != 0) {
      std::printf("other bits where a thread is given up at round %ld\n", long(round));
      return 1;
    }
  }
  if (!both_stop()) return std::printf("a call goes on that was asked to stop\n"), 1;
  const int64_t slow = rounds_together(std::chrono::microseconds(5000), 400);
  if (slow > 20) return std::printf("a thread that takes 5 ms was waited for %ld times\n", long(slow)), 1;
  std::printf("parted after %ld rounds\n", long(slow));
  return 0;
}
