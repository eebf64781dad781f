// libFuzzer: how often the exponential is squared, and the substeps and degrees of the series, for any bounds and
// moments: enough for them, and no more than are allowed.
#include <fuzzer/FuzzedDataProvider.h>

#include <cmath>
#include <exception>
#include <vector>

#include "flow_recurrence/plan.h"
#include "holds.h"
#include "skew_expm/norm_bound.h"

using namespace vfrnn;

// The bound from three moments of eigenvalues +-i omega: not below the largest, nor above that of the highest moment
// alone, but for what it gives to rounding.
static void moments(FuzzedDataProvider& data) {
  const int k = data.ConsumeIntegralInRange<int>(1, 2), count = data.ConsumeIntegralInRange<int>(1, 40);
  // much less, whose twelfth power is no normal number, is much less than any threshold
  const double largest = std::pow(10.0, data.ConsumeFloatingPointInRange<double>(-20, 20));
  double sums[3] = {};
  for (int j = 0; j < count; ++j) {
    const double omega = j ? largest * std::pow(10.0, data.ConsumeFloatingPointInRange<double>(-12, 0)) : largest;
    for (int p = 0; p < 3; ++p) sums[p] += std::pow(omega, 2 * (k + p));
  }
  const double bound = moment_bound(k, sums[0], sums[1], sums[2]);
  HOLDS(bound >= largest * (1 - 1e-9));
  HOLDS(bound <= std::pow(sums[2], 0.5 / (k + 2)) * (1 + 1e-3));
}

template <class T>
static void squared(double bound) {
  const int s = squarings<T>(bound);
  const double limit = s < polish_from ? skew_expm_scheme<T>.theta : skew_expm_scheme<T>.theta_polished;
  HOLDS(s >= 0 && bound <= limit * std::exp2(s) * (1 + 1e-9));
  HOLDS(s == 0 || s == polish_from || bound > limit * std::exp2(s - 1) * (1 - 1e-9));
}

template <class T>
static void series(FuzzedDataProvider& data, double bound) {
  const int64_t order = data.ConsumeIntegralInRange<int64_t>(0, 170);
  SeriesPlan plan{};
  try {
    plan = planned_series<T>(bound, order);
  } catch (const std::exception&) {
    HOLDS(!(bound <= 10000 * std::min(series_limit<T>(order > 0 ? order : 40), order > 0 ? INFINITY : 3.0)));
    return;
  }
  HOLDS(plan.order >= 1 && plan.substeps >= 1 && (order == 0 || plan.order == order));
  const double limit = series_limit<T>(plan.order);
  HOLDS(bound <= limit * double(plan.substeps) * (1 + 1e-9));
  if (order > 0) {
    HOLDS(plan.substeps == 1 || bound > limit * double(plan.substeps - 1) * (1 - 1e-9));
    return;
  }
  // no degree that may be chosen has fewer products
  for (int64_t degree = default_order; degree <= 40; ++degree) {
    const double most = std::min(series_limit<T>(degree), largest_argument);
    HOLDS(plan.order * plan.substeps <= degree * std::max<int64_t>(1, int64_t(std::ceil(bound / most))));
  }
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  FuzzedDataProvider data(bytes, size);
  // an ordinary number, or any pattern of bits
  const double bound = data.ConsumeBool() ? std::pow(10.0, data.ConsumeFloatingPointInRange<double>(-30, 12))
                                          : std::abs(data.ConsumeFloatingPoint<double>());
  switch (data.ConsumeIntegralInRange<int>(0, 4)) {
    case 0:
      squared<float>(bound < 1e100 ? bound : 1e100);
      break;
    case 1:
      squared<double>(bound < 1e100 ? bound : 1e100);
      break;
    case 2:
      series<float>(data, bound);
      break;
    case 3:
      series<double>(data, bound);
      break;
    default:
      moments(data);
  }
  return 0;
}
