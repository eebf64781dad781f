// The exponential for n <= 3 and its gradient in closed form (README.md): rotations by an angle theta, each in a lane.
// Float generators compute in double too: the angle is then known to the rounding of the generator at every norm.
#pragma once

#include "common/elementary.h"
#include "common/interruption.h"
#include "skew_expm/lane_matrices.h"
#include "skew_expm/small.h"

namespace vfrnn {
namespace VFRNN_ISA {

using Lanes = Vec<double>;

// With x = theta^2: sin(theta) / theta and (1 - cos theta) / x are sums over m of (-x)^m / (2 m + k)! for k = 1, 2.
// Their derivatives by theta, over theta, (cos theta - sinc) / x and (sinc - 2 versine) / x, are sums of
// (-1)^m 2 m x^(m - 1) / (2 m + k)! from m = 1. For theta <= pi / 4 what is left out is below the rounding.
inline constexpr int series_terms = 9;
struct Series {
  double of[series_terms];
};
constexpr Series series(int k, bool derivative) {
  Series found{};
  double sign = derivative ? -1 : 1;
  for (int m = 0; m < series_terms; ++m, sign = -sign) {
    found.of[m] = derivative ? sign * 2 * (m + 1) * inverse_factorial<double>(2 * (m + 1) + k)
                             : sign * inverse_factorial<double>(2 * m + k);
  }
  return found;
}
inline constexpr Series sinc_series = series(1, false), versine_series = series(2, false),
                        sinc_slope_series = series(1, true), versine_slope_series = series(2, true);

inline Lanes sum_of(const Series& series, Lanes x) {
  Lanes sum = broadcast(series.of[series_terms - 1]);
#pragma GCC unroll 8
  for (int m = series_terms - 2; m >= 0; --m) sum = sum * x + series.of[m];
  return sum;
}

// An angle theta = k pi / 2 + r. `near` where k = 0: sinc and versine of r are then those of theta.
struct Angle {
  Lanes cosine, sine, square, sinc, versine;
  IntVec<double> near;
};

// pi / 2 in three parts, of 31, 32 and 53 bits: the multiples of the first two by k < 2^21 are exact, and no norm that
// is served has a larger k.
inline Angle angle(Lanes theta) {
  constexpr double first = 0x1.921fb544p0, second = 0x1.0b4611a6p-34, third = 0x1.3198a2e037073p-69;
  constexpr double quarters = 0x1.45f306dc9c883p-1;                    // 2 / pi
  const Lanes shifted = theta * quarters + ExpTable<double>::rounder;  // its low bits are k
  const Lanes k = shifted - ExpTable<double>::rounder;
  const Lanes r = ((theta - k * first) - k * second) - k * third;
  Angle found;
  found.square = r * r;
  found.sinc = sum_of(sinc_series, found.square), found.versine = sum_of(versine_series, found.square);
  const Lanes s = r * found.sinc, c = 1 - found.square * found.versine;
  const IntVec<double> turn = (IntVec<double>)shifted, none{};
  const Lanes across = (turn & 1) != none ? s : c, along = (turn & 1) != none ? c : s;
  found.cosine = ((turn + 1) & 2) != none ? -across : across;
  found.sine = (turn & 2) != none ? -along : along;
  found.near = k == Lanes{};
  return found;
}

// Where S_ij and S_ji are in a generator's coordinate c: of n = 2 the angle, of n = 3 the axis (x, y, z) times the
// angle, A = ((0, -z, y), (z, 0, -x), (-y, x, 0)).
template <int n>
inline constexpr int coordinates = n * (n - 1) / 2;
template <int n>
constexpr int positive_entry(int c) {
  return n == 2 ? 2 : c == 0 ? 7 : c == 1 ? 2 : 3;
}
template <int n>
constexpr int negative_entry(int c) {
  return n == 2 ? 1 : c == 0 ? 5 : c == 1 ? 6 : 1;
}

// A generator's coordinates and its angle, which is not a number where an entry on the diagonal is none.
template <int n>
struct Coordinates {
  Lanes of[coordinates<n> + 1], square, angle;
};
template <class T, int n>
inline Coordinates<n> coordinates_of(const Lanes* S, Lanes dt) {
  Coordinates<n> found{};
  for (int c = 0; c < coordinates<n>; ++c) {
    found.of[c] = dt / 2 * (S[positive_entry<n>(c)] - S[negative_entry<n>(c)]);
    found.square += found.of[c] * found.of[c];
  }
  Lanes diagonal{};
  for (int i = 0; i < n; ++i) diagonal += S[i * (n + 1)] * 0;
  found.angle = (n == 3 ? square_root<double>(found.square) : n == 2 ? found.of[0] : dt * 0) + diagonal;
  return found;
}

// Lanes whose generator is skew-symmetric up to the square root of T's precision, and of a norm that is served.
template <class T, int n>
inline IntVec<double> served(const Lanes* S, const Coordinates<n>& generator) {
  Lanes large{}, wrong{};
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j <= i; ++j) {
      const Lanes a = S[i * n + j], b = S[j * n + i];
      large = larger(large, larger(magnitude(a), magnitude(b)));
      wrong = larger(wrong, magnitude(a + b));
    }
  }
  return (wrong <= skew_tolerance<T> * large) & (magnitude(generator.angle) <= largest_norm<T>);
}

template <int n>
inline void rotation(const Coordinates<n>& generator, Lanes* Q) {
  if constexpr (n == 1) {
    Q[0] = broadcast(1.0);
  } else if constexpr (n == 2) {
    const Angle a = angle(generator.angle);
    Q[0] = Q[3] = a.cosine, Q[1] = -a.sine, Q[2] = a.sine;
  } else {
    // Q = I + sinc A + versine A^2
    const Angle a = angle(generator.angle);
    const Lanes x = generator.of[0], y = generator.of[1], z = generator.of[2], inverse = 1 / generator.angle;
    const Lanes sinc = a.near ? a.sinc : a.sine * inverse,
                versine = a.near ? a.versine : (1 - a.cosine) * inverse * inverse;
    Q[0] = 1 - versine * (y * y + z * z), Q[4] = 1 - versine * (x * x + z * z), Q[8] = 1 - versine * (x * x + y * y);
    Q[1] = versine * x * y - sinc * z, Q[3] = versine * x * y + sinc * z;
    Q[2] = versine * x * z + sinc * y, Q[6] = versine * x * z - sinc * y;
    Q[5] = versine * y * z - sinc * x, Q[7] = versine * y * z + sinc * x;
  }
}

// The derivatives of <G, Q> by the coordinates.
template <int n>
inline void rotation_gradient(const Coordinates<n>& generator, const Lanes* G, Lanes* grad) {
  if constexpr (n == 2) {
    const Angle a = angle(generator.angle);
    grad[0] = a.cosine * (G[2] - G[1]) - a.sine * (G[0] + G[3]);
  } else if constexpr (n == 3) {
    // <G, Q> = cos theta tr G + sinc g w + versine w^T G w with the axial vector g of G and the coordinates w
    const Angle a = angle(generator.angle);
    const Lanes* const w = generator.of;
    const Lanes g[3] = {G[7] - G[5], G[2] - G[6], G[3] - G[1]}, inverse = 1 / generator.angle;
    const Lanes sinc = a.near ? a.sinc : a.sine * inverse,
                versine = a.near ? a.versine : (1 - a.cosine) * inverse * inverse;
    const Lanes sinc_slope = a.near ? sum_of(sinc_slope_series, a.square) : (a.cosine - sinc) * inverse * inverse,
                versine_slope =
                    a.near ? sum_of(versine_slope_series, a.square) : (sinc - 2 * versine) * inverse * inverse;
    Lanes symmetric[3], linear{}, quadratic{};
    for (int i = 0; i < 3; ++i) {
      symmetric[i] = (G[3 * i] + G[i]) * w[0] + (G[3 * i + 1] + G[3 + i]) * w[1] + (G[3 * i + 2] + G[6 + i]) * w[2];
      linear += g[i] * w[i], quadratic += symmetric[i] * w[i];
    }
    const Lanes radial = sinc_slope * linear + versine_slope * (quadratic / 2) - sinc * (G[0] + G[4] + G[8]);
    for (int i = 0; i < 3; ++i) grad[i] = sinc * g[i] + versine * symmetric[i] + radial * w[i];
  }
}

template <class T, int n>
int64_t rotations(const SmallGenerators<T>& of, int64_t begin, int64_t end, T* Q) {
  constexpr int area = n * n, width = lanes<double>;
  StopCheck stop(40.0 * width);
  for (int64_t k = begin; k < end && !stop.asked(); k += width) {
    const int64_t count = end - k < width ? end - k : width;
    Lanes S[area], exponential[area], dt;
    read_lanes<T, double, area>(of.S + k * area, area, count, S);
    read_lanes<T, double, 1>(of.dt + k * of.dt_stride, of.dt_stride, count, &dt);
    const Coordinates<n> generator = coordinates_of<T, n>(S, dt);
    const int64_t first = first_zero<double>(served<T, n>(S, generator), count);
    if (first < count) return k + first;
    rotation<n>(generator, exponential);
    write_lanes<T, double, area>(exponential, area, count, Q + k * area);
  }
  return end;
}

template <class T, int n>
void rotation_gradients(const SmallGenerators<T>& of, const T* grad_Q, bool of_S, int64_t begin, int64_t end, T* grad) {
  constexpr int area = n * n, width = lanes<double>;
  StopCheck stop(40.0 * width);
  for (int64_t k = begin; k < end && !stop.asked(); k += width) {
    const int64_t count = end - k < width ? end - k : width;
    Lanes S[area], G[area], result[area] = {}, dt, slopes[3] = {};
    read_lanes<T, double, area>(of.S + k * area, area, count, S);
    read_lanes<T, double, area>(grad_Q + k * area, area, count, G);
    read_lanes<T, double, 1>(of.dt + k * of.dt_stride, of.dt_stride, count, &dt);
    rotation_gradient<n>(coordinates_of<T, n>(S, dt), G, slopes);
    // A coordinate stands twice in A: each of the two has half of its derivative.
    for (int c = 0; c < coordinates<n>; ++c) {
      result[positive_entry<n>(c)] = slopes[c] / 2, result[negative_entry<n>(c)] = -slopes[c] / 2;
    }
    write_lanes<T, double, area>(result, area, count, grad + k * area);
    // In T, as where the gradient of A is asked for first: the bits do not tell which gradients were.
    for (int64_t l = k; of_S && l < k + count; ++l) {
      for (int e = 0; e < area; ++e) grad[l * area + e] *= of.dt[l * of.dt_stride];
    }
  }
}

}  // namespace VFRNN_ISA
}  // namespace vfrnn
