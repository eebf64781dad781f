// libFuzzer: products of matrices and mesh passes for any sizes and strides read and write their buffers alone
// (AddressSanitizer: every buffer is as large as it must be and no larger), and give the sums of a plain loop.
#include <fuzzer/FuzzedDataProvider.h>

#include <cmath>
#include <memory>
#include <vector>

#include "common/interruption.h"
#include "common/isa.h"
#include "common/matmul_kernels.h"
#include "common/panel_products.h"
#include "field_flow/kernels.h"
#include "holds.h"

// No loop here has threads, and no signal ends one.
bool vfrnn::stop_asked() {
  return false;
}
bool vfrnn::stopped() {
  return false;
}

using namespace vfrnn;

// `count` numbers in memory of their own, between two poisoned zones.
template <class T>
struct Numbers {
  explicit Numbers(int64_t count, uint32_t seed = 1) : p(new T[count]), count(count) {
    for (int64_t k = 0; k < count; ++k) {
      seed = seed * 1664525u + 1013904223u;
      p[k] = T(int32_t(seed) >> 8) / T(1 << 23);
    }
  }
  std::unique_ptr<T[]> p;
  int64_t count;
};

template <class T>
static void product(FuzzedDataProvider& data) {
  const MatmulKernels<T>& kernel = IsaTable<MatmulKernels<T>>::VFRNN_ISA;
  const int64_t W = kernel.panel_width, most = data.ConsumeBool() ? 9 : 70;
  const int64_t rows = data.ConsumeIntegralInRange<int64_t>(0, most),
                depth = data.ConsumeIntegralInRange<int64_t>(0, most);
  const int64_t width = data.ConsumeIntegralInRange<int64_t>(1, W), extra = data.ConsumeIntegralInRange<int64_t>(0, 5);
  const bool a_across = data.ConsumeBool(), b_across = data.ConsumeBool(), accumulate = data.ConsumeBool();
  // a (rows, depth) and b (depth, width), by rows or by columns; the last entry is the last of its memory
  const int64_t a_row = a_across ? 1 : depth + extra, a_column = a_across ? rows + extra : 1;
  const int64_t b_row = b_across ? 1 : width + extra, b_column = b_across ? depth + extra : 1;
  const auto size = [](int64_t x, int64_t row, int64_t y, int64_t column) {
    return x && y ? (x - 1) * row + (y - 1) * column + 1 : 0;
  };
  const Numbers<T> a(size(rows, a_row, depth, a_column), 2), b(size(depth, b_row, width, b_column), 3);
  const int64_t out_row = width + extra;
  Numbers<T> panel(depth * W, 4), out(size(rows, out_row, width, 1), 5);
  std::vector<T> before(out.p.get(), out.p.get() + out.count);
  kernel.pack(b.p.get(), b_row, b_column, depth, width, panel.p.get());
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t j = 0; j < W; ++j) {
      HOLDS(panel.p[k * W + j] == (j < width ? b.p[k * b_row + j * b_column] : T(0)));
    }
  }
  kernel.multiply(out.p.get(), out_row, width, accumulate, a.p.get(), a_row, a_column, panel.p.get(), rows, depth);
  const double eps = sizeof(T) == 4 ? 1.2e-7 : 2.3e-16;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < width; ++j) {
      double sum = accumulate ? double(before[i * out_row + j]) : 0;
      for (int64_t k = 0; k < depth; ++k) {
        sum += double(a.p[i * a_row + k * a_column]) * double(b.p[k * b_row + j * b_column]);
      }
      HOLDS(std::abs(double(out.p[i * out_row + j]) - sum) <= 2 * eps * double(depth + 1) * double(depth + 1));
    }
    for (int64_t j = width; j < out_row && i * out_row + j < out.count; ++j) {
      HOLDS(out.p[i * out_row + j] == before[i * out_row + j]);
    }
  }
}

// The tiles of a panel cover its rows once, and are no higher than the registers allow.
static void tiles(FuzzedDataProvider& data) {
  const int64_t rows = data.ConsumeIntegralInRange<int64_t>(0, 1 << 20);
  int64_t next = 0;
  VFRNN_ISA::for_tiles(rows, [&](int64_t row, int height) {
    HOLDS(row == next && height >= 1 && height <= VFRNN_ISA::tile_rows);
    next = row + height;
  });
  HOLDS(next == rows);
}

// The flow of one sample forwards and backwards: memory, and that a zero field leaves the state.
template <class T>
static void flow(FuzzedDataProvider& data) {
  const FieldFlowKernels<T>& kernel = IsaTable<FieldFlowKernels<T>>::VFRNN_ISA;
  const int64_t m = data.ConsumeIntegralInRange<int64_t>(1, 40), n = data.ConsumeIntegralInRange<int64_t>(1, 70);
  const int64_t order = data.ConsumeIntegralInRange<int64_t>(1, 10), k = data.ConsumeIntegralInRange<int64_t>(1, 4);
  const bool zero = data.ConsumeBool(), on_C = data.ConsumeBool(), on_N = data.ConsumeBool();
  const Numbers<T> N(m * n, 6), C(m * n, 7), half_w(m, 8), h(n, 9), grad(n, 10);
  Numbers<T> e(n, 11), out(n), scratch(3 * n), div(n);
  for (int64_t j = 0; j < n; ++j) e.p[j] = 1;
  Flow<T> f{};
  f.N = N.p.get(), f.C = C.p.get(), f.half_w = half_w.p.get(), f.e = e.p.get();
  f.m = m, f.n = n, f.order = order, f.substeps = k, f.tau = zero ? T(0) : T(0.01);
  kernel.divergence(C.p.get(), half_w.p.get(), h.p.get(), m, n, div.p.get());
  kernel.forward(f, h.p.get(), out.p.get(), scratch.p.get());
  for (int64_t j = 0; zero && j < n; ++j) HOLDS(out.p[j] == h.p[j]);
  const int64_t terms = 2 * order * k;
  Numbers<T> vectors(terms * n), coef_C(on_C ? terms * m : 0), coef_N(on_N ? terms * m : 0), inputs((k + 1) * n);
  Numbers<T> sums(k * n), increments(terms / 2 * n), memory(3 * n), grad_h(n), grad_e(n), series_b(n), X(m * n);
  const FlowTape<T> tape{vectors.p.get(),
                         on_C ? coef_C.p.get() : nullptr,
                         on_N ? coef_N.p.get() : nullptr,
                         inputs.p.get(),
                         sums.p.get(),
                         increments.p.get(),
                         memory.p.get()};
  kernel.backward(f, h.p.get(), grad.p.get(), tape, grad_h.p.get(), grad_e.p.get(), series_b.p.get());
  for (int64_t j = 0; j < n; ++j) {
    HOLDS(!zero || grad_h.p[j] == grad.p[j]);
    HOLDS(tape.inputs[k * n + j] == out.p[j]);
  }
  if (on_C) kernel.outer_products(tape.coef_C, tape.vectors, nullptr, terms, m, n, X.p.get());
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  FuzzedDataProvider data(bytes, size);
  switch (data.ConsumeIntegralInRange<int>(0, 4)) {
    case 0:
      product<float>(data);
      break;
    case 1:
      product<double>(data);
      break;
    case 2:
      flow<float>(data);
      break;
    case 3:
      flow<double>(data);
      break;
    default:
      tiles(data);
  }
  return 0;
}
