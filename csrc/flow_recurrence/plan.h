// The substeps and the degree of the series of flow_recurrence, planned from an upper bound on |dt| ||S(v + V x)|| over
// all steps and samples (vfrnn_kernels/flow_recurrence/reference_plan.py is the same in Python), and the rows of x that
// repeat.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/matmul.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "field_flow/problem.h"
#include "flow_recurrence/layer.h"
#include "skew_expm/norm_bound.h"

namespace vfrnn {

// The rows (i,) of x that differ from each other, in the order in which they appear.
struct DistinctRows {
  std::vector<int64_t> first;  // where each appears first
  std::vector<int64_t> which;  // which of them a row is
  bool all;                    // false: there are more than were looked for, and `which` ends early
};

template <class T>
DistinctRows distinct_rows(const T* x, int64_t rows, int64_t i, int64_t most) {
  DistinctRows found{{}, {}, true};
  std::unordered_map<std::string, int64_t> numbers;
  std::vector<T> values(i);
  std::string bytes;
  for (int64_t row = 0; row < rows; ++row) {
    if (row % 4096 == 0) throw_if_stopped();
    for (int64_t k = 0; k < i; ++k) values[k] = x[row * i + k] + T(0);  // -0 is 0
    bytes.assign(reinterpret_cast<const char*>(values.data()), sizeof(T) * i);
    const auto [place, is_new] = numbers.try_emplace(bytes, int64_t(found.first.size()));
    if (is_new && int64_t(found.first.size()) == most) return {found.first, found.which, false};
    if (is_new) found.first.push_back(row);
    found.which.push_back(place->second);
  }
  return found;
}

// S (n, n) of fields contracted with the gradient, C (m, n): sum_c (w_c / 2) (N_c C_c^T - C_c N_c^T).
template <class T>
class Generators {
 public:
  explicit Generators(const FlowProblem<T>& problem) : problem_(problem), weighted_N_(problem.m * problem.n) {
    const int64_t n = problem.n;
    T* out = weighted_N_.get();
    for (int64_t c = 0; c < problem.m; ++c) {
      for (int64_t j = 0; j < n; ++j) out[c * n + j] = problem.half_w[c] * problem.scaled_N.get()[c * n + j];
    }
  }
  void of(const T* C, T* S) const {
    const int64_t n = problem_.n;
    matmul<T>(S, {weighted_N_.get(), 1, n}, {C, n, 1}, n, problem_.m, n);
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t j = 0; j <= r; ++j) {
        const T entry = S[r * n + j] - S[j * n + r];
        S[r * n + j] = entry, S[j * n + r] = -entry;
      }
    }
  }

 private:
  const FlowProblem<T>& problem_;
  Scratch<T> weighted_N_;
};

// Upper bounds on ||S|| for fields (m, d), by the moments of S S^T.
template <class T>
class GeneratorBounds {
 public:
  explicit GeneratorBounds(const FlowProblem<T>& problem)
      : problem_(problem),
        generators_(problem),
        memory_({problem.m * problem.n, nn(), nn(), nn()}),
        C_(memory_.take(problem.m * problem.n)),
        S_(memory_.take(nn())),
        P_(memory_.take(nn())),
        square_(memory_.take(nn())) {}

  // Of S(field). It is added up in `sum` (n, n), if that is given, as S S^T.
  double of(const T* field, T* sum = nullptr) {
    const int64_t n = problem_.n, d = problem_.d;
    for (int64_t c = 0; c < problem_.m; ++c) {
      problem_.rows.contract(problem_.G + c * d * n, field + c * d, d, problem_.root.data(), d, n, 1, C_ + c * n, n);
    }
    generators_.of(C_, S_);
    matmul<T>(P_, {S_, n, 1}, {S_, 1, n}, n, n, n);
    if (sum) problem_.rows.add(sum, T(1), P_, nn());
    return of_square(P_, 2);
  }
  // Of S for sums of fields with factors of length 1, where the sum of all S S^T is P, which is overwritten.
  double of_sums(T* P) { return of_square(P, 1); }

 private:
  int64_t nn() const { return problem_.n * problem_.n; }

  // sqrt(||P||) for a positive P each of whose eigenvalues is there `multiplicity` times.
  double of_square(T* P, int multiplicity) {
    const double size = std::sqrt(product(P, P));
    if (!std::isfinite(size)) return std::numeric_limits<double>::infinity();
    if (size == 0) return 0;
    const int64_t n = problem_.n;
    for (int64_t j = 0; j < nn(); ++j) P[j] = T(P[j] / size);  // so that no power overflows
    matmul<T>(square_, {P, n, 1}, {P, n, 1}, n, n, n);
    const double second = product(P, P), third = product(P, square_), fourth = product(square_, square_);
    constexpr double rounding = 1.001;
    return rounding * std::sqrt(size) *
           moment_bound(2, second / multiplicity, third / multiplicity, fourth / multiplicity);
  }
  double product(const T* x, const T* y) const {
    double sum = 0;
    for (int64_t j = 0; j < nn(); ++j) sum += double(x[j]) * double(y[j]);
    return sum;
  }

  const FlowProblem<T>& problem_;
  Generators<T> generators_;
  Pieces<T> memory_;
  T *C_, *S_, *P_, *square_;
};

// An upper bound on ||S(v + V x)|| over all rows of x: of the fields themselves where they are no more than v and the
// columns of V, which are bounded otherwise, each and, for unit vectors x, together.
template <class T>
double largest_generator(const Layer<T>& layer, const FlowProblem<T>& problem, const DistinctRows& rows) {
  if (layer.steps * layer.B == 0) return 0;
  const int64_t n = problem.n, i = layer.i;
  GeneratorBounds<T> bounds(problem);
  std::vector<T> field(layer.cells);
  double largest = 0;
  if (rows.all && int64_t(rows.first.size()) <= i + 1) {
    for (const int64_t row : rows.first) {
      layer.field(row, field.data());
      largest = std::max(largest, bounds.of(field.data()));
    }
    return largest;
  }
  std::vector<T> sum(n * n, T(0));
  std::vector<double> columns(i);
  for (int64_t k = 0; k < i; ++k) {
    for (int64_t l = 0; l < layer.cells; ++l) field[l] = layer.V[l * i + k];
    columns[k] = bounds.of(field.data(), sum.data());
  }
  const double together = bounds.of_sums(sum.data());
  for (int64_t row = 0; row < layer.steps * layer.B; ++row) {
    if (row % 4096 == 0) throw_if_stopped();
    const T* x = layer.x + row * i;
    double apart = 0, square = 0;
    for (int64_t k = 0; k < i; ++k) apart += std::abs(double(x[k])) * columns[k], square += double(x[k]) * double(x[k]);
    const double bound = std::min(apart, std::sqrt(square) * together);
    if (!(bound <= largest)) largest = bound;  // NaN stays
    if (std::isnan(largest)) break;
  }
  return largest + bounds.of(layer.v);
}

// The largest |dt| ||S|| of a substep where the degree is planned too: up to there a series in T loses less than a
// digit to the terms that cancel.
inline constexpr double largest_argument = 3;

struct SeriesPlan {
  int64_t order, substeps;
};

// Where |dt| ||S|| is at most `bound`: the substeps for a given degree, or (0) both with the fewest products.
template <class T>
SeriesPlan planned_series(double bound, int64_t order) {
  if (order > 0) return {order, substeps_within(bound, series_limit<T>(order))};
  constexpr int64_t largest_order = 40;  // beyond that of `largest_argument` in float64
  SeriesPlan best{largest_order, substeps_within(bound, largest_argument)};
  for (int64_t degree = default_order; degree < largest_order; ++degree) {
    const double limit = std::min(series_limit<T>(degree), largest_argument);
    const int64_t substeps = std::max<int64_t>(1, int64_t(std::ceil(bound / limit)));
    if (degree * substeps < best.order * best.substeps) best = {degree, substeps};
  }
  return best;
}

}  // namespace vfrnn
