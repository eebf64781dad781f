// recurrence on the CPU: h_t = act(M h_{t-1} + U x_t + c). Packs the weights once per pass, splits the batch once for
// all T over the framework's threads, or the state where there are more threads than samples. Sums over samples are
// taken by slices of the batch that do not depend on the number of threads, and added in their order: no bit depends on
// it either. The loop over time is in kernels.cpp.
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>

#include "common/isa.h"
#include "common/packing.h"
#include "common/scratch.h"
#include "common/team.h"
#include "common/tensors.h"
#include "recurrence/kernels.h"

namespace vfrnn {
namespace {

enum Gradient { grad_x_bit = 0, grad_U_bit, grad_c_bit, grad_M_bit, grad_h0_bit, grad_beta_bit };

// Samples that go through time together: what a step keeps of them stays in the second cache.
constexpr int64_t block_rows = 128;
// Multiply-adds below which another thread costs more than it takes over: of a call, and of a step where threads meet
// after every step.
constexpr int64_t work_per_thread = 200000, work_per_share = 24000;

// Fresh memory costs a page fault every 4 KB: ask for large pages where the result is large.
void advise_large_pages(const Tensor& t, size_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = 2 << 20;
  const uintptr_t start = reinterpret_cast<uintptr_t>(t.data_ptr());
  const uintptr_t first = (start + page - 1) / page * page, last = (start + bytes) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}
template <class T>
Tensor large_result(const Tensor& like, int64_t steps, int64_t samples, int64_t width) {
  Tensor result = empty_tensor(like, {steps, samples, width});
  advise_large_pages(result, size_t(steps * samples * width) * sizeof(T));
  return result;
}

// Slices of the batch of which the backward sums each by itself, from the sizes alone: neither the threads nor the
// gradients that are asked for have a part in the bits. A slice has samples enough that a tile of a product is as fast
// as it gets, and that sums of its own cost little beside it; all sums together have room in a cache. A power of two:
// most machines have so many threads.
int64_t slices_of_sums(int64_t steps, int64_t samples, int64_t n, int64_t i) {
  constexpr int64_t least_samples = 8, least_entries = 1024, least_rows = 1024, most_sums = int64_t(1) << 20;
  const int64_t samples_each = std::max({least_samples, least_entries / n, least_rows / std::max<int64_t>(steps, 1)});
  const int64_t most = std::min(samples / samples_each, most_sums / (n * (n + i)));
  int64_t slices = 1;
  while (2 * slices <= std::min<int64_t>(most, 64)) slices *= 2;
  return slices;
}

// How a call is split over threads. Slices of the batch of nearly equal size are independent, and a slice goes block by
// block. Where samples are few and the state is wide, a slice is computed by several threads at once, a share of the
// state each, and one slice after the other.
struct Split {
  int64_t samples, panels, slices, grain, shares, rows;  // grain: slices of a thread; rows: most samples of a block

  // In `slices_` slices, or, where that is 0, in one for each thread.
  Split(int64_t steps, int64_t samples_, int64_t n, int64_t i, int64_t panels_, int64_t slices_ = 0)
      : samples(samples_), panels(panels_), slices(slices_) {
    const double step_work = double(samples) * double(n) * double(n + i), work = double(steps) * step_work;
    const auto worth = [](double all, int64_t least) { return int64_t(std::min(all / double(least), 1e6)); };
    int64_t threads = std::max<int64_t>(1, std::min({usable_threads(), samples, worth(work, work_per_thread)}));
    if (slices > 0) threads = std::min(threads, slices);
    shares = std::min({usable_threads(), panels, worth(step_work, work_per_share)});
    if (shares <= threads) {
      shares = 1;
    } else {
      threads = 1;
    }
    if (slices == 0) slices = threads;
    grain = panels_of(slices, threads);
    rows = std::max<int64_t>(1, std::min(block_rows, panels_of(samples, slices)));
  }

  // block(slice, share, state, workspace, begin, end), with memory for so many numbers: one state for all shares of a
  // block, a workspace for each.
  template <class T, class F>
  void run(int64_t state_size, int64_t workspace_size, const F& block) const {
    if (shares > 1) {
      const Scratch<T> state(state_size), workspaces(shares * workspace_size);
      return Team::run(shares, [&](const Team& team) {
        const auto wait = [](const void* t, bool give_up) {
          const Team* const team = static_cast<const Team*>(t);
          if (give_up) team->give_up();
          return team->wait();
        };
        Share share{team.begin(panels), team.end(panels), wait, &team};
        T* const workspace = workspaces.get() + team.number() * workspace_size;
        for (int64_t s = 0; s < slices; ++s) {
          for_blocks(s, share, [&](int64_t begin, int64_t end) {
            if (share.first < share.last) block(s, share, state.get(), workspace, begin, end);
          });
        }
      });
    }
    parallel_for(0, slices, grain, [&](int64_t first, int64_t last) {
      const Scratch<T> state(state_size), workspace(workspace_size);
      Share everything{0, panels, nullptr, nullptr};
      for (int64_t s = first; s < last; ++s) {
        for_blocks(s, everything,
                   [&](int64_t begin, int64_t end) { block(s, everything, state.get(), workspace.get(), begin, end); });
      }
    });
  }

 private:
  // A thread for which others wait does not leave between two blocks, only with them, in a step.
  template <class F>
  void for_blocks(int64_t slice, const Share& share, const F& block) const {
    const int64_t begin = samples * slice / slices, end = samples * (slice + 1) / slices;
    const int64_t blocks = panels_of(end - begin, rows);
    for (int64_t k = 0; k < blocks && (share.wait || !stop_asked()); ++k) {
      block(begin + (end - begin) * k / blocks, begin + (end - begin) * (k + 1) / blocks);
    }
  }
};

template <class T>
void forward(Tensor& hs, const Tensor& x_, const Tensor& U_, const std::optional<Tensor>& c, const Tensor& M_,
             const Tensor& h0_, const std::optional<Tensor>& beta, Activation activation) {
  const RecurrenceKernels<T>& kernel = IsaTable<RecurrenceKernels<T>>::active();
  const int64_t W = kernel.panel_width;
  const Tensor x = with_adjacent_entries(x_), h0 = with_adjacent_entries(h0_), U = packed(U_), M = packed(M_);
  const int64_t steps = x.size(0), samples = x.size(1), i = x.size(2), n = M.size(0);
  if (steps == 0 || samples == 0) return;

  Tensor weights = empty_tensor(x, {panels_of(n, W) * (n + i) * W});
  T* w = weights.mutable_data_ptr<T>();
  pack(M.const_data_ptr<T>(), 1, n, n, n, W, w, n + i, 0);
  pack(U.const_data_ptr<T>(), 1, i, i, n, W, w, n + i, n);
  const Tensor c_padded = padded<T>(c, x, n, W), beta_padded = padded<T>(beta, x, n, W);
  ForwardProblem<T> problem{};
  problem.steps = steps, problem.n = n, problem.i = i, problem.activation = activation;
  problem.x = rows_of<T>(x), problem.h0 = rows_of<T>(h0), problem.weights = w;
  problem.c = c_padded.const_data_ptr<T>(), problem.beta = beta_padded.const_data_ptr<T>();
  problem.hs = hs.mutable_data_ptr<T>(), problem.hs_step = samples * n;
  const Split split(steps, samples, n, i, panels_of(n, W));
  split.run<T>(kernel.forward_state(problem, split.rows), kernel.forward_workspace(problem, split.rows),
               [&](int64_t, Share& share, T* state, T* workspace, int64_t begin, int64_t end) {
                 kernel.forward(problem, begin, end, share, state, workspace);
               });
}

void recurrence_into(Tensor hs, const Tensor& x, const Tensor& U, std::optional<Tensor> c, const Tensor& M,
                     const Tensor& h0, std::optional<Tensor> beta, Activation activation) {
  dispatch_real(x, [&](auto zero) { forward<decltype(zero)>(hs, x, U, c, M, h0, beta, activation); });
}

Tensor recurrence(const Tensor& x, const Tensor& U, std::optional<Tensor> c, const Tensor& M, const Tensor& h0,
                  std::optional<Tensor> beta, Activation activation) {
  return dispatch_real(x, [&](auto zero) {
    using T = decltype(zero);
    Tensor hs = large_result<T>(x, x.size(0), x.size(1), M.size(0));
    forward<T>(hs, x, U, c, M, h0, beta, activation);
    return hs;
  });
}

// to (n, columns) = sum over slices of the panels' entries (row j of `to` is column j of the panels, its column f their
// row f), taken in the order of the slices.
template <class T>
void add_slices(const T* sums, int64_t slices, int64_t slice_size, int64_t W, int64_t n, int64_t first_panel,
                int64_t first_row, int64_t columns, T* to) {
  const int64_t panels = panels_of(n, W);
  parallel_for(0, panels, 1 + 65536 / (slices * columns * W + 1), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      for (int64_t f = 0; f < columns; ++f) {
        const int64_t q = first_panel + (first_row + f) / W, r = (first_row + f) % W;
        const T* entries = sums + ((q * panels + p) * W + r) * W;
        for (int64_t j = p * W; j < std::min(n, (p + 1) * W); ++j, ++entries) {
          T sum = 0;
          for (int64_t s = 0; s < slices; ++s) sum += entries[s * slice_size];
          to[j * columns + f] = sum;
        }
      }
    }
  });
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <class T>
Gradients backward(const Tensor& grad_hs_, const Tensor& x_, const Tensor& U_, bool has_c, const Tensor& M_,
                   const Tensor& h0_, bool has_beta, const Tensor& hs_, Activation activation, int64_t needs) {
  const RecurrenceKernels<T>& kernel = IsaTable<RecurrenceKernels<T>>::active();
  const int64_t W = kernel.panel_width;
  const Tensor grad_hs = with_adjacent_entries(grad_hs_), x = with_adjacent_entries(x_),
               h0 = with_adjacent_entries(h0_), hs = packed(hs_), U = packed(U_), M = packed(M_);
  const int64_t steps = x.size(0), samples = x.size(1), i = x.size(2), n = M.size(0), panels = panels_of(n, W);
  const bool needs_x = wanted(needs, grad_x_bit), needs_U = wanted(needs, grad_U_bit),
             needs_c = has_c && wanted(needs, grad_c_bit), needs_M = wanted(needs, grad_M_bit),
             needs_h0 = wanted(needs, grad_h0_bit), needs_beta = has_beta && wanted(needs, grad_beta_bit);
  const auto absent = [&] { return empty_tensor(x, {0}); };
  Tensor grad_x = needs_x ? large_result<T>(x, steps, samples, i) : absent();
  Tensor grad_U = needs_U ? empty_tensor(x, {n, i}) : absent(), grad_c = needs_c ? empty_tensor(x, {n}) : absent();
  Tensor grad_M = needs_M ? empty_tensor(x, {n, n}) : absent();
  Tensor grad_h0 = needs_h0 ? empty_tensor(x, {samples, n}) : absent();
  Tensor grad_beta = needs_beta ? zeros_tensor(x, {n}) : absent();

  Tensor weights = empty_tensor(x, {panels * n * W});
  pack(M.const_data_ptr<T>(), n, 1, n, n, W, weights.mutable_data_ptr<T>(), n, 0);
  Tensor input_weights = needs_x ? empty_tensor(x, {panels_of(i, W) * n * W}) : absent();
  if (needs_x) pack(U.const_data_ptr<T>(), i, 1, n, i, W, input_weights.mutable_data_ptr<T>(), n, 0);
  BackwardProblem<T> problem{};
  problem.steps = steps, problem.n = n, problem.i = i, problem.activation = activation;
  problem.grad_hs = rows_of<T>(grad_hs), problem.x = rows_of<T>(x), problem.h0 = rows_of<T>(h0);
  problem.hs = hs.const_data_ptr<T>(), problem.hs_step = samples * n;
  problem.weights = weights.const_data_ptr<T>(), problem.input_weights = input_weights.const_data_ptr<T>();
  problem.grad_x = needs_x ? grad_x.mutable_data_ptr<T>() : nullptr, problem.grad_x_step = samples * i;
  problem.grad_h0 = needs_h0 ? grad_h0.mutable_data_ptr<T>() : nullptr;
  problem.needs_M = needs_M, problem.needs_U = needs_U, problem.needs_c = needs_c;

  const int64_t sums_size = kernel.sums_size(problem);
  const Split split(steps, samples, n, i, panels, slices_of_sums(steps, samples, n, i));
  Tensor sums = zeros_tensor(x, {split.slices, sums_size});
  Tensor beta_sums = zeros_tensor(x, {split.slices, needs_beta ? panels * W : 0});
  T* const s = sums.mutable_data_ptr<T>();
  T* const beta_s = needs_beta ? beta_sums.mutable_data_ptr<T>() : nullptr;
  split.run<T>(kernel.backward_state(problem, split.rows), kernel.backward_workspace(problem, split.rows),
               [&](int64_t slice, Share& share, T* state, T* workspace, int64_t begin, int64_t end) {
                 kernel.backward(problem, begin, end, share, state, workspace,
                                 {s + slice * sums_size, needs_beta ? beta_s + slice * panels * W : nullptr});
               });

  const int64_t input_panel = needs_M ? panels : 0;
  if (needs_M) add_slices(s, split.slices, sums_size, W, n, 0, 0, n, grad_M.mutable_data_ptr<T>());
  if (needs_U) add_slices(s, split.slices, sums_size, W, n, input_panel, 0, i, grad_U.mutable_data_ptr<T>());
  if (needs_c) {
    add_slices(s, split.slices, sums_size, W, n, input_panel, needs_U ? i : 0, 1, grad_c.mutable_data_ptr<T>());
  }
  if (needs_beta) {
    T* g = grad_beta.mutable_data_ptr<T>();
    for (int64_t slice = 0; slice < split.slices; ++slice) {
      for (int64_t j = 0; j < n; ++j) g[j] += beta_s[slice * panels * W + j];
    }
  }
  return {grad_x, grad_U, grad_c, grad_M, grad_h0, grad_beta};
}

Gradients recurrence_backward(const Tensor& grad_hs, const Tensor& x, const Tensor& U, std::optional<Tensor> c,
                              const Tensor& M, const Tensor& h0, std::optional<Tensor> beta, const Tensor& hs,
                              Activation activation, int64_t needs) {
  return dispatch_real(x, [&](auto zero) {
    return backward<decltype(zero)>(grad_hs, x, U, c.has_value(), M, h0, beta.has_value(), hs, activation, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vfrnn_kernels, CPU, m) {
  m.impl("recurrence", TORCH_BOX(&recurrence));
  m.impl("recurrence_into", TORCH_BOX(&recurrence_into));
  m.impl("recurrence_backward", TORCH_BOX(&recurrence_backward));
}

}  // namespace vfrnn
