#include "common/mesh_kernels.h"

#include "common/isa.h"
#include "common/rows.h"
#include "common/simd.h"

namespace vfrnn {
namespace VFRNN_ISA {
namespace {

template <class T, int F, int P>
inline void contract_tile(const T* G, const T* v, int64_t v_row, const T* r, int64_t d, int64_t n, T* out,
                          int64_t out_row) {
  constexpr int L = lanes<T>;
  Vec<T> sum[F][P] = {};
  for (int64_t k = 0; k < d; ++k) {
    Vec<T> g[P];
    for (int p = 0; p < P; ++p) g[p] = load(G + k * n + p * L);
    for (int f = 0; f < F; ++f) {
      for (int p = 0; p < P; ++p) sum[f][p] += v[f * v_row + k] * g[p];
    }
  }
  for (int f = 0; f < F; ++f) {
    for (int p = 0; p < P; ++p) store<T>(out + f * out_row + p * L, r ? sum[f][p] * load(r + p * L) : sum[f][p]);
  }
}

template <class T, int F>
void contract_fields(const T* G, const T* v, int64_t v_row, const T* r, int64_t d, int64_t n, T* out, int64_t out_row) {
  constexpr int L = lanes<T>, P = vector_registers == 32 ? 4 : 2;
  const auto at = [&](int64_t j) { return r ? r + j : nullptr; };
  int64_t j = 0;
  for (; j + P * L <= n; j += P * L) contract_tile<T, F, P>(G + j, v, v_row, at(j), d, n, out + j, out_row);
  for (; j + L <= n; j += L) contract_tile<T, F, 1>(G + j, v, v_row, at(j), d, n, out + j, out_row);
  for (; j < n; ++j) {
    for (int f = 0; f < F; ++f) {
      T sum = 0;
      for (int64_t k = 0; k < d; ++k) sum += v[f * v_row + k] * G[k * n + j];
      out[f * out_row + j] = r ? sum * r[j] : sum;
    }
  }
}

template <class T>
void contract(const T* G, const T* v, int64_t v_row, const T* r, int64_t d, int64_t n, int64_t fields, T* out,
              int64_t out_row) {
  int64_t f = 0;
  for (; f + 4 <= fields; f += 4) contract_fields<T, 4>(G, v + f * v_row, v_row, r, d, n, out + f * out_row, out_row);
  for (; f < fields; ++f) contract_fields<T, 1>(G, v + f * v_row, v_row, r, d, n, out + f * out_row, out_row);
}

template <class T, int R>
inline void adjoint_rows(const T* G, const T* x, T a, int64_t n, T* out) {
  constexpr int L = lanes<T>;
  Vec<T> sum[R] = {};
  int64_t j = 0;
  for (; j + L <= n; j += L) {
    const Vec<T> xj = load(x + j);
    for (int k = 0; k < R; ++k) sum[k] += load(G + k * n + j) * xj;
  }
  T total[R];
  sum_each<T, R>(sum, total);
  for (; j < n; ++j) {
    for (int k = 0; k < R; ++k) total[k] += G[k * n + j] * x[j];
  }
  for (int k = 0; k < R; ++k) out[k] = a * total[k];
}

template <class T>
void contract_adjoint(const T* G, const T* x, T a, int64_t d, int64_t n, T* out) {
  int64_t k = 0;
  for (; k + 8 <= d; k += 8) adjoint_rows<T, 8>(G + k * n, x, a, n, out + k);
  for (; k + 2 <= d; k += 2) adjoint_rows<T, 2>(G + k * n, x, a, n, out + k);
  for (; k < d; ++k) adjoint_rows<T, 1>(G + k * n, x, a, n, out + k);
}

template <class T>
void set(T* x, T a, const T* y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) x[j] = a * y[j];
}

template <class T>
constexpr MeshKernels<T> table{contract<T>, contract_adjoint<T>, dot<T>, scale<T>, add<T>, set<T>};

}  // namespace

}  // namespace VFRNN_ISA

template <>
const MeshKernels<float> IsaTable<MeshKernels<float>>::VFRNN_ISA = VFRNN_ISA::table<float>;
template <>
const MeshKernels<double> IsaTable<MeshKernels<double>>::VFRNN_ISA = VFRNN_ISA::table<double>;

}  // namespace vfrnn
