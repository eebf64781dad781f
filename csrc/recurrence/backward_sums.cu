// Sums over all steps and samples, of grad_z and of sign(h) grad_z, in a fixed order.
#include "common/mma.h"
#include "recurrence/cuda.h"

namespace vfrnn {
namespace {

using namespace gpu;

constexpr int columns = 32, row_threads = 8, threads = columns * row_threads;

VFRNN_DEVICE float number(uint16_t bits, Bf16) {
  return float_of_bf16(bits);
}
VFRNN_DEVICE float number(uint16_t bits, F16) {
  return float_of_f16(bits);
}
template <class T, class Type>
VFRNN_DEVICE T number(T x, Type) {
  return x;
}

// Block (x, y): 32 columns of the rows of part y; thread (column, k) takes rows k, k + 8, ...
template <class Number, class Type, class Gradient, class State>
__global__ void __launch_bounds__(threads)
    add_columns(const Gradient* grad_z, const State* hs, Number* sums, int64_t rows, int64_t rows_per_part, int n) {
  const int column = int(blockIdx.x) * columns + lane();
  const int64_t first = int64_t(blockIdx.y) * rows_per_part;
  const int64_t end = first + rows_per_part < rows ? first + rows_per_part : rows;
  Number sum_c = 0, sum_beta = 0;
  if (column < n) {
#pragma unroll 4
    for (int64_t row = first + warp(); row < end; row += row_threads) {
      const Number d = number(grad_z[row * n + column], Type{}), h = number(hs[row * n + column], Type{});
      sum_c += d;
      sum_beta += h > 0 ? d : h < 0 ? -d : Number(0);
    }
  }
  auto* parts = reinterpret_cast<Number*>(shared_memory());  // [row thread][2][column]
  parts[2 * warp() * columns + lane()] = sum_c;
  parts[(2 * warp() + 1) * columns + lane()] = sum_beta;
  sync_threads();
  if (warp() < 2 && column < n) {
    Number sum = 0;
    for (int k = 0; k < row_threads; ++k) sum += parts[(2 * k + warp()) * columns + lane()];
    sums[(int64_t(blockIdx.y) * 2 + warp()) * n + column] = sum;
  }
}

}  // namespace

int recurrence_backward_sums(const RecurrenceSums& p, void* stream) {
  const Launch l{uint32_t((p.n + columns - 1) / columns),
                 uint32_t((p.rows + p.rows_per_part - 1) / p.rows_per_part),
                 1,
                 threads,
                 2 * threads * int64_t(p.type == CudaType::f64 ? sizeof(double) : sizeof(float)),
                 1,
                 false,
                 static_cast<cudaStream_t>(stream)};
  const auto run = [&](auto kernel, auto gradient, auto state, auto number) {
    return int(launch(l, kernel, static_cast<const decltype(gradient)*>(p.grad_z),
                      static_cast<const decltype(state)*>(p.hs), static_cast<decltype(number)*>(p.sums), p.rows,
                      p.rows_per_part, p.n));
  };
  const uint16_t half = 0;
  switch (p.type) {
    case CudaType::bf16:
      return p.wide ? run(add_columns<float, Bf16, uint16_t, float>, half, 0.f, 0.f)
                    : run(add_columns<float, Bf16, uint16_t, uint16_t>, half, half, 0.f);
    case CudaType::f16:
      return p.wide ? run(add_columns<float, F16, uint16_t, float>, half, 0.f, 0.f)
                    : run(add_columns<float, F16, uint16_t, uint16_t>, half, half, 0.f);
    case CudaType::f32:
      return run(add_columns<float, F32, float, float>, 0.f, 0.f, 0.f);
    case CudaType::f64:
      return run(add_columns<double, F32, double, double>, 0., 0., 0.);
  }
  return -1;
}

}  // namespace vfrnn
