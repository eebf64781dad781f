// The substeps of field_flow: planned from an upper bound on |dt| ||S||, or checked against a lower bound
// (vfrnn_kernels/field_flow/reference_plan.py is the same in Python).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "common/matmul.h"
#include "common/scratch.h"
#include "common/tensors.h"
#include "field_flow/series_limit.h"

namespace vfrnn {

// sqrt(||A||_1 ||A||_inf) >= ||A||_2
template <class T>
double column_row_norm(const T* A, int64_t rows, int64_t cols) {
  std::vector<double> columns(cols, 0.0);
  double largest_row = 0;
  for (int64_t i = 0; i < rows; ++i) {
    double row = 0;
    for (int64_t j = 0; j < cols; ++j) {
      const double x = std::abs(double(A[i * cols + j]));
      row += x;
      columns[j] += x;
    }
    largest_row = std::max(largest_row, row);
  }
  return std::sqrt(largest_row * *std::max_element(columns.begin(), columns.end()));
}

// ||A||_2^2 = ||(A^T A)^2||_2^(1/2) <= ||(A^T A)^2||_F^(1/2), with the smaller of A^T A and A A^T
template <class T>
double gram_norm(const T* A, int64_t rows, int64_t columns) {
  const bool wide = rows < columns;
  const int64_t size = wide ? rows : columns;
  const Operand<T> plain{A, columns, 1}, transposed{A, 1, columns};
  const Scratch<T> gram(size * size), square(size * size);
  matmul<T>(gram.get(), wide ? plain : transposed, wide ? transposed : plain, size, wide ? columns : rows, size);
  matmul<T>(square.get(), {gram.get(), size, 1}, {gram.get(), size, 1}, size, size, size);
  double sum = 0;
  for (int64_t j = 0; j < size * size; ++j) sum += double(square.get()[j]) * double(square.get()[j]);
  return std::sqrt(std::sqrt(std::sqrt(sum)));
}

// Substeps that suffice where |dt| ||S|| is at most `bound`, and may be `limit` in each.
inline int64_t substeps_within(double bound, double limit) {
  constexpr double most = 10000;
  require(std::isfinite(bound), "v, N and G must be finite and of moderate size: the bound on |dt| ||S|| is ", bound);
  require(bound <= most * limit, "v is too large: |dt| ||S|| may reach ", bound,
          ", which needs more than 10000 substeps");
  return std::max<int64_t>(1, int64_t(std::ceil(bound / limit)));
}

// A mesh and the fields on it, as the plan reads them.
template <class T>
struct FieldsOnMesh {
  const T *N, *G, *w;  // (m, n), (m, d, n), (m,)
  const T* r;          // (n,) b^-1/2
  const T* v;          // (fields, m, d)
  int64_t fields, m, d, n;
};

// Substeps that certainly suffice, from ||S|| <= ||W^1/2 N B^-1/2|| speed ||W^1/2 G B^-1/2|| with speed = max_c |v_c|.
template <class T>
int64_t plan_substeps(const FieldsOnMesh<T>& mesh, double dt, int64_t order) {
  const int64_t m = mesh.m, d = mesh.d, n = mesh.n;
  double speed = 0;
  for (int64_t c = 0; c < mesh.fields * m; ++c) {
    double square = 0;
    for (int64_t k = 0; k < d; ++k) square += double(mesh.v[c * d + k]) * double(mesh.v[c * d + k]);
    speed = std::max(speed, square);
  }
  speed = std::sqrt(speed);
  if (speed == 0 || dt == 0) return 1;
  const Scratch<T> averages(m * n), gradients(m * d * n);
  T *A = averages.get(), *D = gradients.get();
  for (int64_t c = 0; c < m; ++c) {
    const T root = std::sqrt(mesh.w[c]);
    for (int64_t j = 0; j < n; ++j) A[c * n + j] = mesh.N[c * n + j] * root * mesh.r[j];
    for (int64_t k = c * d; k < (c + 1) * d; ++k) {
      for (int64_t j = 0; j < n; ++j) D[k * n + j] = mesh.G[k * n + j] * root * mesh.r[j];
    }
  }
  const double limit = series_limit<T>(order);
  const double rest = std::abs(dt) * speed * column_row_norm(A, m, n);
  const double norm_G = column_row_norm(D, m * d, n);
  double bound = rest * norm_G;
  if (bound > limit && std::isfinite(norm_G)) {
    for (int64_t k = 0; k < m * d * n; ++k) D[k] = T(D[k] / norm_G);  // so that no power overflows
    bound *= std::min(1.0, gram_norm(D, m * d, n));
  }
  return substeps_within(bound, limit);
}

// `reached`, a lower bound on |dt| ||S|| / substeps, is within the limit of the series, up to a slack of 0.1 %.
template <class T>
void check_substeps(double reached, int64_t order, int64_t substeps) {
  const double limit = series_limit<T>(order);
  require(!(reached > 1.001 * limit), "substeps must be at least ",
          int64_t(std::ceil(reached * double(substeps) / limit)), ", got ", substeps,
          ": |dt| ||S|| / substeps is at least ", reached, ", and the series of order ", order, " is exact to ", limit);
}

}  // namespace vfrnn
