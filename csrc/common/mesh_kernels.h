// Kernels that the ops on a mesh share, compiled once per instruction set (common/isa.h). Every row has n numbers.
#pragma once

#include <stdint.h>

namespace vfrnn {

template <class T>
struct MeshKernels {
  // out_fj = r_j sum_k v_fk G_kj: one cell of `fields` fields, v_f (d,) at v + f v_row, contracted with the gradient
  // (d, n), to rows out + f out_row; r null: 1
  void (*contract)(const T* G, const T* v, int64_t v_row, const T* r, int64_t d, int64_t n, int64_t fields, T* out,
                   int64_t out_row);
  // out_k = a sum_j G_kj x_j, the adjoint for one field
  void (*contract_adjoint)(const T* G, const T* x, T a, int64_t d, int64_t n, T* out);
  T (*dot)(const T* x, const T* y, int64_t n);
  void (*scale)(T* x, T a, const T* y, int64_t n);  // x *= a y
  void (*add)(T* x, T a, const T* y, int64_t n);    // x += a y
  void (*set)(T* x, T a, const T* y, int64_t n);    // x = a y
};

}  // namespace vfrnn
