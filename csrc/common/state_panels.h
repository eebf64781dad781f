// States in panels (panels.h): to and from the rows of the user's tensors, and through the activation. The last vector
// of a row may be partial.
#pragma once

#include "common/activations.h"
#include "common/elementary.h"
#include "common/panel_products.h"

namespace vfrnn {
namespace VFRNN_ISA {

// rows x count entries from the user's rows into panels. What pads the last one stays as it was.
template <class T>
void to_panels(const T* from, int64_t from_stride, int64_t rows, int64_t count, T* to, int64_t to_stride) {
  constexpr int W = panel_width<T>, L = lanes<T>;
  for (int64_t p = 0; p < count; p += W, to += to_stride) {
    const int64_t width = smaller(W, count - p), whole = width / L * L;
    for (int64_t row = 0; row < rows; ++row) {
      const T* entries = from + row * from_stride + p;
      T* panel = to + row * W;
      for (int64_t v = 0; v < whole; v += L) store(panel + v, load(entries + v));
      copy_part<L>(entries + whole, panel + whole, width - whole);
    }
  }
}
template <class T>
void from_panel(const T* from, int64_t rows, int64_t width, T* to, int64_t to_stride) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t v = 0; v < width; v += lanes<T>) {
      store_part(to + row * to_stride + v, load(from + row * panel_width<T> + v), width - v);
    }
  }
}

// K rows of a vector of pre-activations become states, and columns of hs.
template <Activation activation, int K, class T>
[[gnu::always_inline]] inline void activate_rows(T* panel, Vec<T> beta, T* hs, int64_t n, int64_t width) {
  Vec<T> h[K];
#pragma GCC unroll 4
  for (int k = 0; k < K; ++k) h[k] = load(panel + k * panel_width<T>);
  if constexpr (activation == Activation::tanh) {
    tanh_each<T>(h);
  } else {
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) h[k] = Formula<activation, Math<T>>::value(h[k], beta);
  }
#pragma GCC unroll 4
  for (int k = 0; k < K; ++k) {
    store(panel + k * panel_width<T>, h[k]);
    store_part(hs + k * n, h[k], width);
  }
}

// One panel of pre-activations becomes a panel of the next state, and `width` columns of hs.
template <Activation activation, class T>
void activate_panel(T* panel, int64_t rows, int64_t width, const T* beta, T* hs, int64_t n) {
  constexpr int K = 4;
  for (int64_t v = 0; v < width; v += lanes<T>) {
    const Vec<T> b = has_beta<activation> ? load(beta + v) : Vec<T>{};
    int64_t row = 0;
    for (; row + K <= rows; row += K) {
      activate_rows<activation, K>(panel + row * panel_width<T> + v, b, hs + row * n + v, n, width - v);
    }
    for (; row < rows; ++row) {
      activate_rows<activation, 1>(panel + row * panel_width<T> + v, b, hs + row * n + v, n, width - v);
    }
  }
}

// One panel of what later steps carried becomes grad_z = act'(z) (grad_h + carried); grad_beta may be null.
template <Activation activation, class T>
void grad_z_panel(T* panel, int64_t rows, int64_t width, const T* grad_hs, int64_t grad_stride, const T* hs, int64_t n,
                  T* grad_beta) {
  for (int64_t v = 0; v < width; v += lanes<T>) {
    const Vec<T> zero{};
    Vec<T> sum = zero;
    for (int64_t row = 0; row < rows; ++row) {
      T* carried = panel + row * panel_width<T> + v;
      const Vec<T> h = load_part(hs + row * n + v, width - v);
      const Vec<T> grad = load(carried) + load_part(grad_hs + row * grad_stride + v, width - v);
      const Vec<T> grad_z = Formula<activation, Math<T>>::times_derivative(grad, h);
      store(carried, grad_z);
      if constexpr (has_beta<activation>) sum += h > zero ? grad_z : -grad_z;
    }
    if (has_beta<activation> && grad_beta) store(grad_beta + v, load(grad_beta + v) + sum);
  }
}

}  // namespace VFRNN_ISA
}  // namespace vfrnn
