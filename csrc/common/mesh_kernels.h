// Kernels that the ops on a mesh share, compiled once per instruction set (common/isa.h). Every row has n numbers.
#pragma once

#include <stdint.h>

namespace vfrnn {

template <class T>
struct MeshKernels {
  // out_j = r_j sum_k v_k G_kj: one cell of a field (d,) contracted with the gradient (d, n); r null: 1
  void (*contract)(const T* G, const T* v, const T* r, int64_t d, int64_t n, T* out);
  T (*dot)(const T* x, const T* y, int64_t n);
  void (*scale)(T* x, T a, const T* y, int64_t n);  // x *= a y
  void (*add)(T* x, T a, const T* y, int64_t n);    // x += a y
  void (*set)(T* x, T a, const T* y, int64_t n);    // x = a y
};

namespace baseline {
extern const MeshKernels<float> mesh_float;
extern const MeshKernels<double> mesh_double;
}  // namespace baseline
namespace avx2 {
extern const MeshKernels<float> mesh_float;
extern const MeshKernels<double> mesh_double;
}  // namespace avx2
namespace avx512 {
extern const MeshKernels<float> mesh_float;
extern const MeshKernels<double> mesh_double;
}  // namespace avx512

}  // namespace vfrnn
