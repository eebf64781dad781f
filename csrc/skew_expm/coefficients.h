// The polynomials of vfrnn_kernels/skew_expm/reference_coefficients.py (form, derivation and source there), for C++.
#pragma once

namespace vfrnn {

inline constexpr int max_squarings = 20;
inline constexpr int polish_from = 2;

// r powers; `shape` is 1, s_1, ..., s_(r-1); p, q belong to the powers 1..r and f to the powers 0..r.
struct SkewExpmScheme {
  int r;
  double theta, theta_polished, al, e;
  double shape[4], p[4], q[4], f[5];
};

inline constexpr SkewExpmScheme scheme_f12 = {
    3,
    2.5,
    3.1417,
    1.72903307062861382447e-9,
    0.000212716863484804916408,
    {1.0, 5.88940670445074986194, 61.0058907047110013813},
    {29239.9753176267597721, 3226.37368890570004913, 554.793700274468752482},
    {1.17921242195228355808e-6, 4.17509398396037371071e-6, 4.98116123830491761644e-7},
    {1.0, 0.999999603782609018213, 0.465519782840928926299, 0.0407813091838929864086}};

inline constexpr SkewExpmScheme scheme_f16 = {
    4,
    1.591,
    1.591,
    4.60598435796950641586e-14,
    1.59756795204443155483e-6,
    {1.0, 7.97908208758208766697, 92.5991517528228355800, 1003.00564562937135136},
    {7791636.98426075927695, 1464631.88077285289466, 148491.875109227568386, 13534.3343981753700273},
    {5.86675380385163054465e-8, 2.50768603878989713154e-9, 2.03266752879431565602e-9, 3.32081296569404563831e-10},
    {1.0, 0.999999999999998811774, 0.0428838408435712189657, 0.0612013408042293782414, 0.0134443695218423160613}};

template <class T>
inline constexpr const SkewExpmScheme& skew_expm_scheme = scheme_f12;
template <>
inline constexpr const SkewExpmScheme& skew_expm_scheme<double> = scheme_f16;

}  // namespace vfrnn
