// How far the series of field_flow is exact (vfrnn_kernels/field_flow/reference_plan.py is the same in Python).
#pragma once

#include <cmath>
#include <cstdint>

namespace vfrnn {

// The degree of a series for which nobody chose another.
inline constexpr int64_t default_order = 8;

// The series of that degree is exact to rounding up to x = |dt| ||S|| / substeps = 0.6 in float32 and 0.1 in float64.
// Another degree has the limit with the same first neglected term x^(order + 1) / (order + 1)!.
template <class T>
double series_limit(int64_t order) {
  const double log_remainder = 9 * std::log(sizeof(T) == 4 ? 0.6 : 0.1) - std::lgamma(10.0);
  return std::exp((log_remainder + std::lgamma(double(order) + 2)) / double(order + 1));
}

}  // namespace vfrnn
