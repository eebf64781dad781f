// The kernels of field_flow, compiled once per instruction set (common/isa.h).
#pragma once

#include <stdint.h>

namespace vfrnn {

// One sample's flow. C_c = sum_k v_ck G_ck B^-1/2 is the field contracted with the gradient, so that
//   S y = sum_c (w_c / 2) ((C_c.y) N_c - (N_c.y) C_c)    with rows N_c of N B^-1/2.
template <class T>
struct Flow {
  int64_t m, n, order, substeps;
  const T *N, *C;   // (m, n)
  const T* half_w;  // (m,)
  const T* e;       // (n,) exp(-tau delta / 4)
  T tau;
};

// What the backward of one sample leaves for the products that follow. Term t = s * order + j of the series takes
// y_{j+1} of substep s, in row 2 t of `vectors`, and meets the gradient r_j, in row 2 t + 1. With c_j = tau / (j + 1):
//   sum_t c_j ((N_c.r) y - (N_c.y) r)  =  coef_C^T vectors   (m, n): the gradient of C, over w / 2
//   sum_t c_j ((C_c.y) r - (C_c.r) y)  =  coef_N^T vectors   (m, n): the gradient of N, over w / 2
template <class T>
struct FlowTape {
  T* vectors;          // (2 substeps order, n)
  T *coef_C, *coef_N;  // (2 substeps order, m), or null where those gradients are not needed
  T* inputs;           // (substeps + 1, n): the state before every substep
  T* sums;             // (substeps, n): y_0 of every substep
  T* increments;       // (substeps order, n): y_j - u, which their difference would lose where |tau| ||S|| is small
  T* scratch;          // (3, n)
};

template <class T>
struct FieldFlowKernels {
  // out_j = -2 r_j sum_c half_w_c C_cj: div v
  void (*divergence)(const T* C, const T* half_w, const T* r, int64_t m, int64_t n, T* out);
  // h' of one sample; scratch (3, n). Returns the largest (||S y|| / ||y||)^2 of the terms.
  T (*forward)(const Flow<T>& flow, const T* h, T* out, T* scratch);
  // Gradients of h, e (n,) and, returned, of tau through the series; series_b (n,) is -2 b times that of b through S.
  T (*backward)(const Flow<T>& flow, const T* h, const T* grad, const FlowTape<T>& tape, T* grad_h, T* grad_e,
                T* series_b);
  // out (m, n) = 1 row^T + coef^T vectors, coef (terms, m), vectors (terms, n); row null: 0
  void (*outer_products)(const T* coef, const T* vectors, const T* row, int64_t terms, int64_t m, int64_t n, T* out);
};

}  // namespace vfrnn
