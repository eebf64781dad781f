// What the exponential finds wrong with a generator; raised after the parallel region.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "common/tensors.h"
#include "skew_expm/coefficients.h"

namespace vfrnn {

template <class T>
struct Verdict {
  enum { fine, S_not_finite, not_skew, dt_not_finite, entries_too_large, too_large } what = fine;
  T value = 0;
};

template <class T>
void raise(const Verdict<T>& verdict) {
  using V = Verdict<T>;
  require(verdict.what != V::S_not_finite, "S must be finite, but it holds NaN or infinity");
  require(verdict.what != V::not_skew, "S must be skew-symmetric, S = -S^T, but max |S + S^T| = ", verdict.value);
  require(verdict.what != V::dt_not_finite, "dt must be finite");
  require(verdict.what != V::entries_too_large, "the entries of S must be at most ", std::numeric_limits<T>::max() / 2,
          ", got ", verdict.value);
  require(verdict.what != V::too_large, "dt * S must have a spectral norm below ",
          std::ldexp(skew_expm_scheme<T>.theta, max_squarings), ", but its norm may be ", verdict.value);
}

// Of a generator by its largest entry, that of S + S^T, and whether it is finite.
template <class T>
Verdict<T> verdict_of(T largest, T defect, bool finite, T dt) {
  // twice such an entry is none: what looks for NaN by differences finds it too
  if (largest > std::numeric_limits<T>::max() / 2 && std::isfinite(largest)) {
    return {Verdict<T>::entries_too_large, largest};
  }
  if (!finite) return {Verdict<T>::S_not_finite, 0};
  if (defect > std::sqrt(std::numeric_limits<T>::epsilon()) * largest) return {Verdict<T>::not_skew, defect};
  if (!std::isfinite(dt)) return {Verdict<T>::dt_not_finite, 0};
  return {};
}

// Why S (n, n) at dt was refused.
template <class T>
Verdict<T> verdict_of(const T* S, T dt, int64_t n) {
  T largest = 0, defect = 0;
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      const T a = S[i * n + j], b = S[j * n + i];
      largest = std::max(largest, std::abs(a)), defect = std::max(defect, std::abs(a + b));
      squares += (double(a) - b) * (double(a) - b) / 8;
    }
  }
  const Verdict<T> verdict = verdict_of(largest, defect, all_finite(S, n * n), dt);
  if (verdict.what != Verdict<T>::fine) return verdict;
  return {Verdict<T>::too_large, T(std::abs(dt) * std::sqrt(squares))};
}

}  // namespace vfrnn
