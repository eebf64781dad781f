// recurrence: forward and backward over one block of samples, compiled once per instruction set. Layouts and names:
// kernels.h; products: common/panel_products.h; derivation: vfrnn_kernels/recurrence/README.md.
//
// Beside what the caller sees there are only buffers of a few steps, sized for the second cache: the current state in
// panels (forward), the gradients of the pre-activations of one chunk of steps and the matching [h_{t-1}, x_t, 1]
// (backward), from which the weight gradients take one rank-K update per chunk.
#include "recurrence/kernels.h"

#include "common/interruption.h"
#include "common/isa.h"
#include "common/state_panels.h"

namespace vfrnn {
namespace VFRNN_ISA {
namespace {

// ---- forward --------------------------------------------------------------------------------------------------------

template <class T>
int64_t forward_state(const ForwardProblem<T>& f, int64_t rows) {
  return 2 * rows * panel_width<T> * panels_of(f.n, panel_width<T>);
}
template <class T>
int64_t forward_workspace(const ForwardProblem<T>& f, int64_t rows) {
  return rows * panel_width<T> * panels_of(f.i, panel_width<T>);
}

// Until the others have come as far; false where this share is over, or the call.
inline bool wait(Share& share, int64_t panels, bool stop = false) {
  if (!share.wait || share.wait(share.team, stop)) return !stop;
  share = {0, share.first == 0 ? panels : 0, nullptr, nullptr};
  return share.last > 0 && !stop;
}

// Two copies of the state take turns, so that a step is written while others still read the one before.
template <Activation activation, class T>
void forward_steps(const ForwardProblem<T>& f, int64_t begin, int64_t end, Share& share, T* state, T* x) {
  constexpr int W = panel_width<T>;
  const int64_t rows = end - begin, n = f.n, panels = panels_of(n, W), stride = rows * W, first = share.first * W;
  T *h = state, *next = h + panels * stride;
  to_panels(f.h0.p + begin * f.h0.sample + first, f.h0.sample, rows, smaller(n, share.last * W) - first,
            h + share.first * stride, stride);
  if (!wait(share, panels)) return;
  StopCheck stop(double(rows) * double(n) * double(n + f.i));
  for (int64_t t = 0; t < f.steps; ++t) {
    to_panels(f.x.p + t * f.x.step + begin * f.x.sample, f.x.sample, rows, f.i, x, stride);
    T* hs = f.hs + t * f.hs_step + begin * n;
    const Product<T> z{{h, stride, n}, {x, stride, f.i}, f.weights, (n + f.i) * W, f.c, next, stride, {{hs, n}}};
    product(z, rows, n, share.first, share.last, [&](int64_t p, int count) {
      for (const int64_t last = p + count; p < last; ++p) {
        const T* beta = has_beta<activation> ? f.beta + p * W : nullptr;
        activate_panel<activation>(next + p * stride, rows, smaller(W, n - p * W), beta, hs + p * W, n);
      }
    });
    T* const swap = h;
    h = next, next = swap;
    if (!wait(share, panels, stop.asked())) return;
  }
}

template <class T>
void forward(const ForwardProblem<T>& f, int64_t begin, int64_t end, Share& share, T* state, T* workspace) {
  with_activation(f.activation,
                  [&](auto activation) { forward_steps<activation.value>(f, begin, end, share, state, workspace); });
}

// ---- backward -------------------------------------------------------------------------------------------------------
// With g_t = grad_hs_t, back in time:
//   grad_z_t = act'(z_t) (g_t + M^T grad_z_{t+1}),  grad_x_t = grad_z_t U,  grad_h0 = M^T grad_z_1,
//   [grad_M, grad_U, grad_c] = sum_t grad_z_t^T [h_{t-1}, x_t, 1],  grad_beta = sum_t sign(h_t) grad_z_t.

// Rows (steps times samples) of one rank-K update: a panel of them fills half of the first cache.
template <class T>
inline constexpr int64_t chunk_rows = 16384 / (panel_width<T> * int64_t(sizeof(T)));

// Steps of a chunk: at least two, since a step reads the grad_z of the one before while it writes its own.
template <class T>
int64_t chunk_steps(const BackwardProblem<T>& b, int64_t rows) {
  const int64_t steps = chunk_rows<T> / rows;
  return smaller(steps < 2 ? 2 : steps, b.steps < 2 ? 2 : b.steps);
}

// Columns of [x_t, 1] that the weight gradients need.
template <class T>
int64_t input_columns(const BackwardProblem<T>& b) {
  return (b.needs_U ? b.i : 0) + (b.needs_c ? 1 : 0);
}
// Panels of [h_{t-1}, x_t, 1].
template <class T>
int64_t factor_panels(const BackwardProblem<T>& b) {
  return (b.needs_M ? panels_of(b.n, panel_width<T>) : 0) + panels_of(input_columns(b), panel_width<T>);
}

template <class T>
int64_t sums_size(const BackwardProblem<T>& b) {
  constexpr int W = panel_width<T>;
  return factor_panels(b) * panels_of(b.n, W) * W * W;
}
// Rows of a chunk of blocks of up to `rows` samples: a chunk of a smaller block has more steps.
template <class T>
int64_t most_chunk_rows(int64_t rows) {
  return chunk_rows<T> > 2 * rows ? chunk_rows<T> : 2 * rows;
}
template <class T>
int64_t backward_state(const BackwardProblem<T>& b, int64_t rows) {
  return most_chunk_rows<T>(rows) * panels_of(b.n, panel_width<T>) * panel_width<T>;
}
template <class T>
int64_t backward_workspace(const BackwardProblem<T>& b, int64_t rows) {
  return (most_chunk_rows<T>(rows) * factor_panels(b) + rows) * panel_width<T>;
}

// [h_{t-1}, x_t, 1] of one step into its rows of the panels.
template <class T>
void factor_step(const BackwardProblem<T>& b, int64_t t, int64_t begin, int64_t rows, T* to, int64_t stride) {
  constexpr int W = panel_width<T>;
  if (b.needs_M) {
    const T* h = t > 0 ? b.hs + (t - 1) * b.hs_step + begin * b.n : b.h0.p + begin * b.h0.sample;
    to_panels(h, t > 0 ? b.n : b.h0.sample, rows, b.n, to, stride);
    to += panels_of(b.n, W) * stride;
  }
  const int64_t i = b.needs_U ? b.i : 0;
  if (i > 0) to_panels(b.x.p + t * b.x.step + begin * b.x.sample, b.x.sample, rows, i, to, stride);
  if (b.needs_c) {
    T* ones = to + i / W * stride + i % W;
    for (int64_t row = 0; row < rows; ++row) ones[row * W] = 1;
  }
}

template <class T>
void add_weight_gradients(const BackwardProblem<T>& b, const T* factors, const T* grad_z, int64_t stride, int64_t count,
                          const Share& share, T* sums) {
  constexpr int W = panel_width<T>;
  const int64_t panels = panels_of(b.n, W), inputs = input_columns(b), state_panels = b.needs_M ? panels : 0;
  const int64_t all = factor_panels(b);
  for (int64_t p = share.first; p < share.last; ++p) {
    const bool wide = b.n - p * W > lanes<T>;
    for (int64_t q = 0; q < all; ++q) {
      const int64_t left = q < state_panels ? b.n - q * W : inputs - (q - state_panels) * W;
      outer_product(factors + q * stride, smaller(W, left), grad_z + p * stride, count, sums + (q * panels + p) * W * W,
                    wide);
    }
  }
}

// Columns of the panels first..last of to (rows, columns) = grad_z b, for a b in panels of n rows; `block` holds one
// panel of the result.
template <class T>
void carry_out(const Panels<T>& grad_z, int64_t rows, const T* b, int64_t n, int64_t columns, int64_t first,
               int64_t last, T* block, T* to) {
  constexpr int W = panel_width<T>;
  const Product<T> m{grad_z, {}, b, n * W, nullptr, block, 0, {{to, columns}}};
  for (int64_t p = first; p < last; ++p) {
    product(m, rows, columns, p, p + 1, [](int64_t, int) {});
    from_panel(block, rows, smaller(W, columns - p * W), to + p * W, columns);
  }
}

template <Activation activation, class T>
void backward_steps(const BackwardProblem<T>& b, int64_t begin, int64_t end, Share& share, T* chunk_grad_z,
                    T* workspace, const BackwardSums<T>& sums) {
  constexpr int W = panel_width<T>;
  const int64_t rows = end - begin, n = b.n;
  const int64_t chunk = chunk_steps(b, rows), stride = chunk * rows * W;
  T *factors = workspace, *block = factors + factor_panels(b) * stride;
  const T* next = chunk_grad_z;  // grad_z_{t+1}
  StopCheck stop(double(rows) * double(n) * double(n + b.i));
  for (int64_t last = b.steps; last > 0;) {
    const int64_t steps = smaller(chunk, last), first = last - steps;
    const int64_t offset = (chunk - steps) * rows * W;  // a shorter chunk, the last one, takes the last slots
    for (int64_t t = last - 1; t >= first; --t) {
      T* grad_z = chunk_grad_z + offset + (t - first) * rows * W;
      const T* hs = b.hs + t * b.hs_step + begin * n;
      const T* grad_hs = b.grad_hs.p + t * b.grad_hs.step + begin * b.grad_hs.sample;
      const Panels<T> later{next, stride, t == b.steps - 1 ? 0 : n};
      const Product<T> carried{later,   {},     b.weights, n * W,
                               nullptr, grad_z, stride,    {{hs, n}, {grad_hs, b.grad_hs.sample}}};
      product(carried, rows, n, share.first, share.last, [&](int64_t p, int count) {
        for (const int64_t end_panel = p + count; p < end_panel; ++p) {
          grad_z_panel<activation>(grad_z + p * stride, rows, smaller(W, n - p * W), grad_hs + p * W, b.grad_hs.sample,
                                   hs + p * W, n, sums.beta ? sums.beta + p * W : nullptr);
        }
      });
      next = grad_z;
      if (factor_panels(b)) factor_step(b, t, begin, rows, factors + offset + (t - first) * rows * W, stride);
      if (!wait(share, panels_of(n, W), stop.asked())) return;
      if (b.grad_x && share.first == 0) {
        T* grad_x = b.grad_x + t * b.grad_x_step + begin * b.i;
        carry_out<T>({grad_z, stride, n}, rows, b.input_weights, n, b.i, 0, panels_of(b.i, W), block, grad_x);
      }
    }
    // Only of its own columns, which nobody else writes: the next chunk may already begin elsewhere.
    add_weight_gradients(b, factors + offset, chunk_grad_z + offset, stride, steps * rows, share, sums.weights);
    last = first;
  }
  if (b.grad_h0) {
    carry_out<T>({next, stride, b.steps > 0 ? n : 0}, rows, b.weights, n, n, share.first, share.last, block,
                 b.grad_h0 + begin * n);
  }
  wait(share, panels_of(n, W));  // the next block takes the place of this one
}

template <class T>
void backward(const BackwardProblem<T>& b, int64_t begin, int64_t end, Share& share, T* state, T* workspace,
              const BackwardSums<T>& sums) {
  with_activation(b.activation, [&](auto activation) {
    backward_steps<activation.value>(b, begin, end, share, state, workspace, sums);
  });
}

template <class T>
constexpr RecurrenceKernels<T> table{panel_width<T>,        forward_state<T>, forward_workspace<T>, backward_state<T>,
                                     backward_workspace<T>, sums_size<T>,     forward<T>,           backward<T>};

}  // namespace

}  // namespace VFRNN_ISA

template <>
const RecurrenceKernels<float> IsaTable<RecurrenceKernels<float>>::VFRNN_ISA = VFRNN_ISA::table<float>;
template <>
const RecurrenceKernels<double> IsaTable<RecurrenceKernels<double>>::VFRNN_ISA = VFRNN_ISA::table<double>;

}  // namespace vfrnn
