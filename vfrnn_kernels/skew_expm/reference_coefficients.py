"""Minimax polynomials of exp on an interval of the imaginary axis, factored for few matrix products.

With the powers S, ..., S^r and W = S^r + s_1 S^(r-1) + ... + s_(r-1) S,  Y = S^r W:

    p(S) = (Y + sum_j p_j S^j) (al Y + sum_j q_j S^j) + e Y + sum_(j >= 0) f_j S^j

of degree 4 r, in r + 1 products. f_0 = 1, so that p(0) = I exactly. Source: this project's fit of the factored form of
Bader, Blanes and Casas 2019 (doi 10.3390/math7121174) in the sense of Bader, Blanes, Casas and Seydaoglu 2022
(doi 10.1016/j.matcom.2021.12.002). The same numbers, for C++: csrc/skew_expm/coefficients.h.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: More squarings than this are refused: the norm of the generator is beyond theta 2^20, its rotation angles are noise.
MAX_SQUARINGS = 20
#: From this many squarings on, the drift from orthogonality is worth one Newton-Schulz step.
POLISH_FROM = 2


@dataclass(frozen=True)
class Scheme:
    """One polynomial; `theta` is the largest spectral norm it serves, `theta_polished` where polishing follows."""

    theta: float
    theta_polished: float
    shape: tuple[float, ...]  # 1, s_1, ..., s_(r-1)
    al: float
    e: float
    p: tuple[float, ...]
    q: tuple[float, ...]
    f: tuple[float, ...]

    @property
    def r(self) -> int:
        return len(self.shape)


#: Degree 12, maximal error 9.5e-8. Fitted up to 3.1417; there the factors amplify rounding (|Q^T Q - I| of 4e-6 and a
#: gradient to 6e-6 on flat spectra), at 2.5 less than half as much. Polishing restores the orthogonality, and norms
#: that large have a gradient of that accuracy anyway.
F12 = Scheme(
    theta=2.5,
    theta_polished=3.1417,
    shape=(
        1.0,
        5.88940670445074986194,
        61.0058907047110013813,
    ),
    al=1.72903307062861382447e-9,
    e=0.000212716863484804916408,
    p=(
        29239.9753176267597721,
        3226.37368890570004913,
        554.793700274468752482,
    ),
    q=(
        1.17921242195228355808e-6,
        4.17509398396037371071e-6,
        4.98116123830491761644e-7,
    ),
    f=(
        1.0,
        0.999999603782609018213,
        0.465519782840928926299,
        0.0407813091838929864086,
    ),
)

#: Degree 16, maximal error 1.1e-16 up to theta.
F16 = Scheme(
    theta=1.591,
    theta_polished=1.591,
    shape=(
        1.0,
        7.97908208758208766697,
        92.5991517528228355800,
        1003.00564562937135136,
    ),
    al=4.60598435796950641586e-14,
    e=1.59756795204443155483e-6,
    p=(
        7791636.98426075927695,
        1464631.88077285289466,
        148491.875109227568386,
        13534.3343981753700273,
    ),
    q=(
        5.86675380385163054465e-8,
        2.50768603878989713154e-9,
        2.03266752879431565602e-9,
        3.32081296569404563831e-10,
    ),
    f=(
        1.0,
        0.999999999999998811774,
        0.0428838408435712189657,
        0.0612013408042293782414,
        0.0134443695218423160613,
    ),
)


def scheme(dtype: torch.dtype) -> Scheme:
    """The polynomial for computing in float32 or float64."""
    return F16 if dtype == torch.float64 else F12
