// spectral_recurrence: forward and backward over one block of samples, compiled once per instruction set. Layouts and
// names: kernels.h; products: common/panel_products.h; derivation: vfrnn_kernels/spectral_recurrence/README.md.
#include "spectral_recurrence/kernels.h"

#include "common/elementary.h"
#include "common/interruption.h"
#include "common/isa.h"
#include "common/state_panels.h"

namespace vfrnn {
namespace VFRNN_ISA {
namespace {

// The buffers of one block, all in panels: the state, its product with e, its coordinates in the planes (cosines, then
// sines), and the step's factors, which have one row where all samples share the time.
template <class T>
struct Block {
  const SpectralProblem<T>& s;
  int64_t rows, stride, state_panels, plane_panels, factor_row;
  T *state, *scaled, *planes, *growth, *cosine, *sine;

  Block(const SpectralProblem<T>& s_, int64_t rows_, T* memory)
      : s(s_),
        rows(rows_),
        stride(rows_ * panel_width<T>),
        state_panels(panels_of(s_.n, panel_width<T>)),
        plane_panels(panels_of(s_.planes, panel_width<T>)),
        factor_row(s_.dt.sample == 0 ? 0 : panel_width<T>) {
    state = memory, scaled = state + state_panels * stride, planes = scaled + state_panels * stride;
    growth = planes + 2 * plane_panels * stride, cosine = growth + state_panels * stride;
    sine = cosine + plane_panels * stride;
  }
  // Multiply-adds of a step
  double work() const { return 4.0 * double(rows) * double(s.substeps) * double(s.n) * double(s.planes); }
  static int64_t size(const SpectralProblem<T>& s, int64_t rows) {
    constexpr int W = panel_width<T>;
    return (3 * panels_of(s.n, W) + 4 * panels_of(s.planes, W)) * rows * W;
  }

  // The factors of a substep of step t: exp(dt growth), and the cosines and sines of dt times the planes' rates.
  void set_factors(int64_t t, int64_t begin) const {
    constexpr int W = panel_width<T>;
    for (int64_t row = 0; row < (factor_row ? rows : 1); ++row) {
      const T dt = s.dt.p[t * s.dt.step + (begin + row) * s.dt.sample];
      for (int64_t v = 0; s.growth && v < state_panels * W; v += lanes<T>) {
        store(growth + v / W * stride + row * W + v % W, exp<T>(load(s.growth + v) * dt));
      }
      for (int64_t v = 0; v < plane_panels * W; v += lanes<T>) {
        const int64_t at = v / W * stride + row * W + v % W;
        Vec<T> c, si;
        cos_sin<T>(load(s.quarters + v) * dt, c, si);
        store(cosine + at, c), store(sine + at, si);
      }
    }
  }

  void scale(const T* from, int64_t p, T* to) const {
    constexpr int W = panel_width<T>;
    const T* e = growth + p * stride;
    for (int64_t row = 0; row < rows; ++row) {
      for (int v = 0; v < W; v += lanes<T>) {
        store(to + row * W + v, load(from + row * W + v) * load(e + row * factor_row + v));
      }
    }
  }

  template <bool backwards>
  void rotate() const {
    constexpr int W = panel_width<T>;
    for (int64_t q = 0; q < plane_panels; ++q) {
      T *a = planes + q * stride, *b = a + plane_panels * stride;
      const T *c = cosine + q * stride, *si = sine + q * stride;
      for (int64_t row = 0; row < rows; ++row) {
        for (int v = 0; v < W; v += lanes<T>) {
          const int64_t at = row * W + v, factor = row * factor_row + v;
          const Vec<T> x = load(a + at), y = load(b + at), cosines = load(c + factor);
          const Vec<T> sines = backwards ? -load(si + factor) : load(si + factor);
          store(a + at, cosines * x - sines * y), store(b + at, sines * x + cosines * y);
        }
      }
    }
  }

  // state = (e exp(dt S / k) e)^k state, or with the transposed exponential.
  template <bool backwards>
  void move() const {
    constexpr int W = panel_width<T>;
    const int64_t n = s.n, P = s.planes;
    for (int64_t k = 0; k < s.substeps; ++k) {
      for (int64_t p = 0; s.growth && p < state_panels; ++p) scale(state + p * stride, p, scaled + p * stride);
      const T* from = s.growth ? scaled : state;
      const Product<T> coordinates{{from, stride, n}, {}, s.analysis, n * W, nullptr, planes, stride, {}};
      product(coordinates, rows, 2 * plane_panels * W, 0, 2 * plane_panels, [](int64_t, int) {});
      rotate<backwards>();
      const Panels<T> first{planes, stride, P}, second{planes + plane_panels * stride, stride, P};
      const Product<T> moved{first, second, s.synthesis, 2 * P * W, nullptr, state, stride, {}};
      product(moved, rows, n, 0, state_panels, [&](int64_t p, int count) {
        for (const int64_t last = p + count; s.growth && p < last; ++p)
          scale(state + p * stride, p, state + p * stride);
      });
    }
  }
};

template <Activation activation, class T>
void forward_steps(const SpectralProblem<T>& s, int64_t begin, const Block<T>& block) {
  constexpr int W = panel_width<T>;
  const int64_t rows = block.rows, n = s.n, stride = block.stride;
  to_panels(s.h0.p + begin * s.h0.sample, s.h0.sample, rows, n, block.state, stride);
  StopCheck stop(block.work());
  for (int64_t t = 0; t < s.steps && !stop.asked(); ++t) {
    block.set_factors(t, begin);
    block.template move<false>();
    T* hs = s.hs + t * s.hs_step + begin * n;
    for (int64_t p = 0; p < block.state_panels; ++p) {
      T* panel = block.state + p * stride;
      const int64_t width = smaller(W, n - p * W);
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t v = 0; v < width; v += lanes<T>) {
          T* z = panel + row * W + v;
          store(z, load(z) + load_part(hs + row * n + p * W + v, width - v));
        }
      }
      const T* beta = has_beta<activation> ? s.beta + p * W : nullptr;
      activate_panel<activation>(panel, rows, width, beta, hs + p * W, n);
    }
  }
}

template <Activation activation, class T>
void backward_steps(const SpectralProblem<T>& s, int64_t begin, const Block<T>& block) {
  constexpr int W = panel_width<T>;
  const int64_t rows = block.rows, n = s.n, stride = block.stride;
  for (int64_t k = 0; k < block.state_panels * stride; ++k) block.state[k] = 0;
  StopCheck stop(block.work());
  for (int64_t t = s.steps - 1; t >= 0 && !stop.asked(); --t) {
    const T* hs = s.hs + t * s.hs_step + begin * n;
    const T* grad_hs = s.grad_hs.p + t * s.grad_hs.step + begin * s.grad_hs.sample;
    for (int64_t p = 0; p < block.state_panels; ++p) {
      T* panel = block.state + p * stride;
      const int64_t width = smaller(W, n - p * W);
      grad_z_panel<activation>(panel, rows, width, grad_hs + p * W, s.grad_hs.sample, hs + p * W, n,
                               static_cast<T*>(nullptr));
      from_panel(panel, rows, width, s.grad_z + t * s.hs_step + begin * n + p * W, n);
    }
    block.set_factors(t, begin);
    block.template move<true>();
  }
  for (int64_t p = 0; p < block.state_panels; ++p) {
    from_panel(block.state + p * stride, rows, smaller(W, n - p * W), s.grad_h0 + begin * n + p * W, n);
  }
}

template <class T>
int64_t workspace(const SpectralProblem<T>& s, int64_t rows) {
  return Block<T>::size(s, rows);
}

template <class T>
void forward(const SpectralProblem<T>& s, int64_t begin, int64_t end, T* memory) {
  const Block<T> block(s, end - begin, memory);
  with_activation(s.activation, [&](auto activation) { forward_steps<activation.value>(s, begin, block); });
}

template <class T>
void backward(const SpectralProblem<T>& s, int64_t begin, int64_t end, T* memory) {
  const Block<T> block(s, end - begin, memory);
  with_activation(s.activation, [&](auto activation) { backward_steps<activation.value>(s, begin, block); });
}

template <class T>
constexpr SpectralKernels<T> table{panel_width<T>, workspace<T>, forward<T>, backward<T>};

}  // namespace

}  // namespace VFRNN_ISA

template <>
const SpectralKernels<float> IsaTable<SpectralKernels<float>>::VFRNN_ISA = VFRNN_ISA::table<float>;
template <>
const SpectralKernels<double> IsaTable<SpectralKernels<double>>::VFRNN_ISA = VFRNN_ISA::table<double>;

}  // namespace vfrnn
