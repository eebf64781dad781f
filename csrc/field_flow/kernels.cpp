// field_flow, one sample or one cell at a time. Dimensions: m cells, n nodes, d components of the field.
//
// A term of the series costs one pass over the rows of N and C: a row is loaded once for its two products with y and
// its two contributions to S y. A few rows share the loads of y and of the sum. Sums run in one fixed order.
#include "field_flow/kernels.h"

#include "common/elementary.h"
#include "common/interruption.h"
#include "common/isa.h"
#include "common/rows.h"
#include "common/simd.h"

namespace vfrnn {
namespace VFRNN_ISA {
namespace {

constexpr int rows_at_once = vector_registers == 32 ? 8 : 4;

// R rows of S y: with a_c = N_c.y and g_c = C_c.y, out += (w_c / 2) (g_c N_c - a_c C_c). Where they are asked for,
// sigma a_c and -sigma g_c go to coef_C and coef_N.
template <class T, int R>
inline void add_rows(const T* N, const T* C, const T* half_w, const T* y, int64_t n, T sigma, T* coef_C, T* coef_N,
                     T* out) {
  constexpr int L = lanes<T>;
  const int64_t whole = n - n % L;
  Vec<T> sums[2 * R] = {};  // N_c.y, then C_c.y
  for (int64_t j = 0; j < whole; j += L) {
    const Vec<T> yj = load(y + j);
    for (int c = 0; c < R; ++c) {
      sums[c] += load(N + c * n + j) * yj;
      sums[R + c] += load(C + c * n + j) * yj;
    }
  }
  T totals[2 * R];
  sum_each<T, 2 * R>(sums, totals);
  T on_N[R], on_C[R];
  for (int c = 0; c < R; ++c) {
    T a = totals[c], g = totals[R + c];
    for (int64_t j = whole; j < n; ++j) {
      a += N[c * n + j] * y[j];
      g += C[c * n + j] * y[j];
    }
    on_N[c] = half_w[c] * g;
    on_C[c] = -half_w[c] * a;
    if (coef_C) coef_C[c] = sigma * a;
    if (coef_N) coef_N[c] = -sigma * g;
  }
  for (int64_t j = 0; j < whole; j += L) {
    Vec<T> sum = load(out + j);
    if constexpr (vector_bytes == 64) {  // a vector is a cache line: fetch the next rows while these are in use
      for (int c = 0; c < R; ++c) {
        __builtin_prefetch(N + (R + c) * n + j);
        __builtin_prefetch(C + (R + c) * n + j);
      }
    }
    Vec<T> other{};  // two chains of multiply-adds, for their latency
    for (int c = 0; c < R; ++c) {
      sum += on_N[c] * load(N + c * n + j);
      other += on_C[c] * load(C + c * n + j);
    }
    store<T>(out + j, sum + other);
  }
  for (int64_t j = whole; j < n; ++j) {
    for (int c = 0; c < R; ++c) out[j] += on_N[c] * N[c * n + j] + on_C[c] * C[c * n + j];
  }
}

// out = S y
template <class T>
void apply_generator(const Flow<T>& flow, const T* y, T sigma, T* coef_C, T* coef_N, T* out) {
  const int64_t m = flow.m, n = flow.n;
  for (int64_t j = 0; j < n; ++j) out[j] = 0;
  int64_t c = 0;
  for (; c + rows_at_once <= m; c += rows_at_once) {
    add_rows<T, rows_at_once>(flow.N + c * n, flow.C + c * n, flow.half_w + c, y, n, sigma,
                              coef_C ? coef_C + c : nullptr, coef_N ? coef_N + c : nullptr, out);
  }
  for (; c < m; ++c) {
    add_rows<T, 1>(flow.N + c * n, flow.C + c * n, flow.half_w + c, y, n, sigma, coef_C ? coef_C + c : nullptr,
                   coef_N ? coef_N + c : nullptr, out);
  }
}

// out = x y;  out = x + a y
template <class T>
inline void multiply(const T* x, const T* y, int64_t n, T* out) {
  for (int64_t j = 0; j < n; ++j) out[j] = x[j] * y[j];
}
template <class T>
inline void add_scaled(const T* x, T a, const T* y, int64_t n, T* out) {
  for (int64_t j = 0; j < n; ++j) out[j] = x[j] + a * y[j];
}

// (||Sy|| / ||y||)^2, 0 where y is 0. Squares that T does not hold say nothing: then those of the quotients by the
// largest entry of y.
template <class T>
T squared_growth(const T* Sy, const T* y, int64_t n) {
  constexpr T least = sizeof(T) == 4 ? T(0x1p-90) : T(0x1p-900), most = sizeof(T) == 4 ? T(0x1p120) : T(0x1p1000);
  const T image = dot(Sy, Sy, n), square = dot(y, y, n);
  if (square >= least && image <= most) return image / square;
  T largest = 0, sums[2] = {};
  for (int64_t j = 0; j < n; ++j) largest = magnitude(y[j]) > largest ? magnitude(y[j]) : largest;
  for (int64_t j = 0; j < n && largest > 0; ++j) {
    sums[0] += Sy[j] / largest * (Sy[j] / largest), sums[1] += y[j] / largest * (y[j] / largest);
  }
  return largest > 0 ? sums[0] / sums[1] : T(0);
}

// y_j = u + c_j S y_{j+1}, y_order = u = e h;  h <- e y_0
template <class T>
T forward(const Flow<T>& flow, const T* h, T* out, T* scratch) {
  const int64_t n = flow.n;
  T *u = scratch, *y = scratch + n, *Sy = scratch + 2 * n;
  T growth = 0;
  StopCheck stop(4.0 * double(flow.m) * double(n));
  for (int64_t s = 0; s < flow.substeps; ++s) {
    multiply(flow.e, s ? out : h, n, u);
    for (int64_t j = 0; j < n; ++j) y[j] = u[j];
    for (int64_t j = flow.order - 1; j >= 0 && !stop.asked(); --j) {
      apply_generator<T>(flow, y, T(0), nullptr, nullptr, Sy);
      const T squared = squared_growth(Sy, y, n);
      if (squared > growth) growth = squared;
      add_scaled(u, flow.tau / T(j + 1), Sy, n, y);
    }
    multiply(flow.e, y, n, out);
  }
  return growth;
}

// The adjoint of y_j = u + c_j S y_{j+1} with S^T = -S: r_0 = e grad, r_{j+1} = -c_j S r_j, grad_u = sum_j r_j, and
// grad_tau += <r_j, S y_{j+1}> / (j + 1) = -<S r_j, y_{j+1}> / (j + 1). S is B^-1/2 (..) B^-1/2, so b enters a term as
// its two factors: -2 b grad_b += r_j * (c_j S y_{j+1}) + y_{j+1} * r_{j+1}.
template <class T>
T backward(const Flow<T>& flow, const T* h, const T* grad, const FlowTape<T>& tape, T* grad_h, T* grad_e, T* series_b) {
  const int64_t m = flow.m, n = flow.n, order = flow.order;
  const auto y_row = [&](int64_t t) { return tape.vectors + 2 * t * n; };
  const auto r_row = [&](int64_t t) { return tape.vectors + (2 * t + 1) * n; };
  const auto coef = [&](T* all, int64_t row) { return all ? all + row * m : nullptr; };
  T *image = tape.scratch, *grad_u = tape.scratch + n, *last = tape.scratch + 2 * n;
  StopCheck stop(4.0 * double(m) * double(n));
  for (int64_t j = 0; j < n; ++j) tape.inputs[j] = h[j];
  for (int64_t s = 0; s < flow.substeps; ++s) {
    const int64_t first = s * order;
    const T* u = y_row(first + order - 1);
    multiply(flow.e, tape.inputs + s * n, n, y_row(first + order - 1));
    for (int64_t j = order - 1; j >= 0 && !stop.asked(); --j) {
      const int64_t t = first + j;
      const T c = flow.tau / T(j + 1);
      apply_generator<T>(flow, y_row(t), -c, coef(tape.coef_C, 2 * t + 1), coef(tape.coef_N, 2 * t + 1), image);
      add_scaled(u, c, image, n, j ? y_row(t - 1) : tape.sums + s * n);
      for (int64_t i = 0; i < n; ++i) tape.increments[t * n + i] = c * image[i];
    }
    multiply(flow.e, tape.sums + s * n, n, tape.inputs + (s + 1) * n);
  }
  T grad_tau = 0;
  for (int64_t j = 0; j < n; ++j) grad_h[j] = grad[j], grad_e[j] = 0, series_b[j] = 0;
  for (int64_t s = flow.substeps - 1; s >= 0; --s) {
    const int64_t first = s * order;
    const T *input = tape.inputs + s * n, *y_0 = tape.sums + s * n;
    T* r = r_row(first);
    for (int64_t j = 0; j < n; ++j) {
      grad_e[j] += grad_h[j] * y_0[j];
      r[j] = grad_u[j] = flow.e[j] * grad_h[j];
    }
    for (int64_t j = 0; j < order && !stop.asked(); ++j) {
      const int64_t t = first + j;
      const T c = flow.tau / T(j + 1);
      apply_generator<T>(flow, r, c, coef(tape.coef_C, 2 * t), coef(tape.coef_N, 2 * t), image);
      const T *y_next = y_row(t), *increment = tape.increments + t * n;
      grad_tau -= dot(image, y_next, n) / T(j + 1);
      T* r_next = j + 1 < order ? r_row(t + 1) : last;
      for (int64_t i = 0; i < n; ++i) {
        const T x = -c * image[i];
        series_b[i] += r[i] * increment[i] + x * y_next[i];
        grad_u[i] += x;
        r_next[i] = x;
      }
      r = r_next;
    }
    for (int64_t j = 0; j < n; ++j) {
      grad_e[j] += grad_u[j] * input[j];
      grad_h[j] = flow.e[j] * grad_u[j];
    }
  }
  return grad_tau;
}

// R rows and P vectors of columns of out = 1 row^T + coef^T vectors
template <class T, int R, int P>
inline void outer_tile(const T* coef, const T* vectors, const T* row, int64_t terms, int64_t m, int64_t n, T* out) {
  constexpr int L = lanes<T>;
  Vec<T> sum[R][P];
  for (int c = 0; c < R; ++c) {
    for (int p = 0; p < P; ++p) sum[c][p] = row ? load(row + p * L) : Vec<T>{};
  }
  for (int64_t t = 0; t < terms; ++t) {
    Vec<T> x[P];
    for (int p = 0; p < P; ++p) x[p] = load(vectors + t * n + p * L);
    for (int c = 0; c < R; ++c) {
      for (int p = 0; p < P; ++p) sum[c][p] += coef[t * m + c] * x[p];
    }
  }
  for (int c = 0; c < R; ++c) {
    for (int p = 0; p < P; ++p) store<T>(out + c * n + p * L, sum[c][p]);
  }
}

template <class T, int R>
inline void outer_rows(const T* coef, const T* vectors, const T* row, int64_t terms, int64_t m, int64_t n, T* out) {
  constexpr int L = lanes<T>;
  int64_t j = 0;
  for (; j + 2 * L <= n; j += 2 * L) {
    outer_tile<T, R, 2>(coef, vectors + j, row ? row + j : nullptr, terms, m, n, out + j);
  }
  for (; j + L <= n; j += L) {
    outer_tile<T, R, 1>(coef, vectors + j, row ? row + j : nullptr, terms, m, n, out + j);
  }
  for (; j < n; ++j) {
    for (int c = 0; c < R; ++c) {
      T sum = row ? row[j] : T(0);
      for (int64_t t = 0; t < terms; ++t) sum += coef[t * m + c] * vectors[t * n + j];
      out[c * n + j] = sum;
    }
  }
}

template <class T>
void outer_products(const T* coef, const T* vectors, const T* row, int64_t terms, int64_t m, int64_t n, T* out) {
  int64_t c = 0;
  StopCheck stop(4.0 * double(terms) * double(n));
  for (; c + 4 <= m && !stop.asked(); c += 4) outer_rows<T, 4>(coef + c, vectors, row, terms, m, n, out + c * n);
  for (; c < m && !stop.asked(); ++c) outer_rows<T, 1>(coef + c, vectors, row, terms, m, n, out + c * n);
}

template <class T>
void divergence(const T* C, const T* half_w, const T* r, int64_t m, int64_t n, T* out) {
  for (int64_t j = 0; j < n; ++j) out[j] = 0;
  for (int64_t c = 0; c < m; ++c) add(out, -2 * half_w[c], C + c * n, n);
  for (int64_t j = 0; j < n; ++j) out[j] *= r[j];
}

template <class T>
constexpr FieldFlowKernels<T> table{divergence<T>, forward<T>, backward<T>, outer_products<T>};

}  // namespace

}  // namespace VFRNN_ISA

template <>
const FieldFlowKernels<float> IsaTable<FieldFlowKernels<float>>::VFRNN_ISA = VFRNN_ISA::table<float>;
template <>
const FieldFlowKernels<double> IsaTable<FieldFlowKernels<double>>::VFRNN_ISA = VFRNN_ISA::table<double>;

}  // namespace vfrnn
