// Steps of a triangular factorization on registers, compiled once per instruction set (common/isa.h). Matrices have
// `stride` numbers a row, a multiple of `width`; what is beyond the k columns is 0.
#pragma once

#include <stdint.h>

namespace vfrnn {

struct FactorKernels {
  // Doubles of a vector.
  int64_t width;
  // C (k, k), symmetric, becomes R, upper triangular with R^T R = C and 0 below the diagonal. A pivot that is not above
  // `least` counts as `instead`.
  void (*cholesky)(double* C, int64_t k, int64_t stride, double least, double instead);
  // x (rows, k) becomes x R^-1, a row at a time by substitution: each solves (R + dR) with a dR of a few roundings.
  void (*solve)(const double* R, int64_t k, int64_t stride, double* x, int64_t rows);
};

}  // namespace vfrnn
