// The kernels of one instruction set: forward and backward of h_t = act(M h_{t-1} + U x_t + c) over one block of
// samples, for all T. cpu.cpp packs, splits the batch or the state over threads and adds the partial sums.
//
// Dimensions: T steps, B samples, n hidden size, i input size. W = panel_width. Panels (common/panels.h):
//   forward weights   panel p: (n + i, W), the columns pW.. of [M^T; U^T]
//   backward weights  panel p: (n, W), the columns pW.. of M; for grad_x of U (panels over i)
//   weight gradients  panel (q, p): (W, W), entry (r, s) is the gradient with respect to row pW + s and column qW + r
//                     of M; then, with other q, of [U, c] (columns 0..i-1 and i)
#pragma once

#include <stdint.h>

#include "common/activations.h"
#include "common/panels.h"

namespace vfrnn {

template <class T>
struct ForwardProblem {
  int64_t steps, n, i;
  Activation activation;
  Rows<const T> x, h0;  // h0.step is 0
  const T* weights;
  const T* c;     // padded to whole panels
  const T* beta;  // the same
  T* hs;          // (T, B, n), contiguous
  int64_t hs_step;
};

template <class T>
struct BackwardProblem {
  int64_t steps, n, i;
  Activation activation;
  Rows<const T> grad_hs, x, h0;
  const T* hs;  // (T, B, n), contiguous
  int64_t hs_step;
  const T* weights;
  const T* input_weights;  // packed U, with grad_x
  T* grad_x;               // (T, B, i) contiguous, or null: not asked for; so are the following
  int64_t grad_x_step;
  T* grad_h0;  // (B, n)
  bool needs_M, needs_U, needs_c;
};

// The panels of the state that one call computes. Where others compute the rest at the same time, `wait` returns when
// all have called it: after every step, since each needs the state of all. Once it is false, to all of them, the share
// of the first becomes everything, and those of the others nothing: they are over. One that was asked to stop gives the
// others up, so that all leave in the same round.
struct Share {
  int64_t first, last;
  bool (*wait)(const void* team, bool give_up);  // null: the share is everything
  const void* team;
};

// Sums over the samples of one call, which it adds to in the columns of its share.
template <class T>
struct BackwardSums {
  T* weights;  // panels of [dM, dU, dc]^T, those that are asked for
  T* beta;     // (padded n), or null
};

template <class T>
struct RecurrenceKernels {
  int64_t panel_width;
  // Entries of the workspaces for blocks of up to `rows` samples: one for all shares of a block, one for each share.
  int64_t (*forward_state)(const ForwardProblem<T>&, int64_t rows);
  int64_t (*forward_workspace)(const ForwardProblem<T>&, int64_t rows);
  int64_t (*backward_state)(const BackwardProblem<T>&, int64_t rows);
  int64_t (*backward_workspace)(const BackwardProblem<T>&, int64_t rows);
  int64_t (*sums_size)(const BackwardProblem<T>&);
  // Samples begin..end, for all steps.
  void (*forward)(const ForwardProblem<T>&, int64_t begin, int64_t end, Share&, T* state, T* workspace);
  void (*backward)(const BackwardProblem<T>&, int64_t begin, int64_t end, Share&, T* state, T* workspace,
                   const BackwardSums<T>&);
};

}  // namespace vfrnn
