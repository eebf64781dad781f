// Products of the batched matrices of strang_step's powers (tiled.h).
#include "skew_expm/tiled.h"

namespace vfrnn {
namespace {

__global__ void __launch_bounds__(T::threads)
    matrix_product_kernel(BatchedMatrix result, BatchedMatrix a, BatchedMatrix b, BatchedMatrix c, BatchedMatrix d,
                          int64_t K, int n) {
  const Share share = share_of(K);
  const int64_t k = share.matrix;
  const Place p = any_tile(share.block, n);
  Sums<T> sums;
  add_product<T>(sums, plain(a[k]), transpose_of(b[k]), p.first_row, p.first_column, n);
  if (c.first != nullptr) {
    add_product<T>(sums, plain(c[k]), transpose_of(d[k]), p.first_row, p.first_column, n);
  }
  store_plain<T>(result[k], p, shared_result<T>(sums));
}

}  // namespace

int launch_product(const BatchedProduct& p, cudaStream_t stream) {
  return gpu::launch(launch_per_tile(false, p.K, p.n, stream), matrix_product_kernel, p.result, p.a, p.b, p.c, p.d,
                     int64_t(p.K), p.n);
}

}  // namespace vfrnn
