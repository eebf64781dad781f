// How often the exponential is squared: upper bounds on ||A||_2 from powers of A, and the squarings that a bound needs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "common/isa.h"
#include "common/team.h"
#include "skew_expm/coefficients.h"
#include "skew_expm/kernels.h"

namespace vfrnn {

// The least s with bound <= theta 2^s; theta is larger where the result is polished.
template <class T>
int squarings(double bound) {
  constexpr const SkewExpmScheme& c = skew_expm_scheme<T>;
  const auto least = [=](double theta) { return bound > theta ? int(std::ceil(std::log2(bound / theta))) : 0; };
  const int s = least(c.theta);
  return s < polish_from ? s : std::max(polish_from, least(c.theta_polished));
}

// The largest x = omega^2 that three moments sum x^j, j = k, k + 1, k + 2, of the eigenvalues +-i omega leave room
// for: x^k (upper - 2 middle x + lower x^2) <= D (README.md), by Newton's method from beyond the root; k is 1 or 2.
inline double moment_bound(int k, double lower, double middle, double upper) {
  const double mean = middle / lower, determinant = std::max(0.0, lower * upper - middle * middle);
  const double D = determinant + 1e-6 * lower * upper;  // rounding in A^j must not lower it
  double x = std::pow(upper, 1.0 / (k + 2));
  for (int step = 0; step < 8; ++step) {
    const double offset = x - mean, quadratic = lower * offset * offset + D / lower, power = k == 1 ? x : x * x;
    const double slope = (k == 1 ? 1 : 2 * x) * quadratic + 2 * power * lower * offset;
    if (!(slope > 0)) break;
    x -= (power * quadratic - D) / slope;
  }
  return lower > 0 ? std::sqrt(x) : 0;
}

// Of one matrix after the other, by one thread of a team.
template <class T>
class NormBound {
 public:
  // rows (6, n): scratch that the team shares.
  NormBound(const Team& team, int64_t n, T* rows) : team_(team), n_(n), rows_(rows) {}

  // An upper bound on ||A||_2, the least of ||A^j||_inf^(1/j), j = r - 1 and r, and of the bound from the Frobenius
  // norms of A^(r-2), A^(r-1), A^r. The squares of a row of A^j add up to at most ||A||_2^(2 j), which for every norm
  // that is served is below the largest float.
  double of_powers(const T* const* powers) {
    constexpr int first = c.r - 2;  // A^1 needs no pass: its moment is -tr A^2
    team_.split(n_, [&](int64_t begin, int64_t end) {
      for (int p = first == 1; p < 3; ++p) {
        kernels_.row_norms(powers[first - 1 + p], n_, begin, end, rows_ + 2 * p * n_, rows_ + (2 * p + 1) * n_);
      }
    });
    double largest[3] = {}, *moments = moments_;
    std::fill(moments, moments + 3, 0.0);
    for (int64_t i = 0; i < n_; ++i) {
      for (int p = first == 1; p < 3; ++p) {
        largest[p] = std::max<double>(largest[p], rows_[2 * p * n_ + i]);
        moments[p] += rows_[(2 * p + 1) * n_ + i] / 2;
      }
      if (first == 1) moments[0] -= powers[1][i * n_ + i] / 2;
    }
    if (!std::isfinite(moments[1]) || !std::isfinite(moments[2])) return std::numeric_limits<double>::infinity();
    const double of_rows = std::min(std::pow(largest[1], 1.0 / (c.r - 1)), std::pow(largest[2], 1.0 / c.r));
    return std::min(of_rows, moment_bound(first, moments[0], moments[1], moments[2]));
  }
  // The same from A^2, A^3 and A^4, after of_powers, for r = 3.
  double with_fourth_power(const T* fourth) {
    team_.split(n_, [&](int64_t begin, int64_t end) { kernels_.row_norms(fourth, n_, begin, end, rows_, rows_ + n_); });
    double moment = 0;
    for (int64_t i = 0; i < n_; ++i) moment += rows_[n_ + i] / 2;
    return moment_bound(2, moments_[1], moments_[2], moment);
  }

 private:
  static constexpr const SkewExpmScheme& c = skew_expm_scheme<T>;

  const SkewExpmKernels<T>& kernels_ = IsaTable<SkewExpmKernels<T>>::active();
  const Team& team_;
  int64_t n_;
  T* rows_;            // of three powers: the sums of magnitudes of their rows, then of squares
  double moments_[3];  // of A^(r-2), A^(r-1), A^r: half of the squared Frobenius norms
};

}  // namespace vfrnn
