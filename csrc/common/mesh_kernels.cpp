#include "common/mesh_kernels.h"

#include "common/rows.h"
#include "common/simd.h"

namespace vfrnn {
namespace VFRNN_ISA {
namespace {

template <class T, int P>
inline void contract_tile(const T* G, const T* v, const T* r, int64_t d, int64_t n, T* out) {
  constexpr int L = lanes<T>;
  Vec<T> sum[P] = {};
  for (int64_t k = 0; k < d; ++k) {
    for (int p = 0; p < P; ++p) sum[p] += v[k] * load(G + k * n + p * L);
  }
  for (int p = 0; p < P; ++p) store<T>(out + p * L, r ? sum[p] * load(r + p * L) : sum[p]);
}

template <class T>
void contract(const T* G, const T* v, const T* r, int64_t d, int64_t n, T* out) {
  constexpr int L = lanes<T>;
  int64_t j = 0;
  for (; j + 8 * L <= n; j += 8 * L) contract_tile<T, 8>(G + j, v, r ? r + j : nullptr, d, n, out + j);
  for (; j + L <= n; j += L) contract_tile<T, 1>(G + j, v, r ? r + j : nullptr, d, n, out + j);
  for (; j < n; ++j) {
    T sum = 0;
    for (int64_t k = 0; k < d; ++k) sum += v[k] * G[k * n + j];
    out[j] = r ? sum * r[j] : sum;
  }
}

template <class T>
void set(T* x, T a, const T* y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) x[j] = a * y[j];
}

template <class T>
constexpr MeshKernels<T> table{contract<T>, dot<T>, scale<T>, add<T>, set<T>};

}  // namespace

extern const MeshKernels<float> mesh_float = table<float>;
extern const MeshKernels<double> mesh_double = table<double>;

}  // namespace VFRNN_ISA
}  // namespace vfrnn
