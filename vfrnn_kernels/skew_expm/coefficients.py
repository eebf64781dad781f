"""The polynomial of the kernels that compute one triangle of a symmetric product: Triton's and CUDA's.

Source: this project's fit in the sense of Bader, Blanes, Casas and Seydaoglu 2022 (doi 10.1016/j.matcom.2021.12.002).
The polynomials of the reference and of the CPU: reference_coefficients.py.
"""

from __future__ import annotations

from dataclasses import dataclass

#: More squarings than this are refused: the norm of the generator is beyond theta 2^20, its rotation angles are noise.
MAX_SQUARINGS = 20
#: From this many squarings on, the drift from orthogonality is worth one Newton-Schulz step.
POLISH_FROM = 2


@dataclass(frozen=True)
class EvenOddScheme:
    """exp(S) = C + S K with even polynomials C and K of degree 8: four products, each symmetric or skew-symmetric.

    With X = S^2:   Y = X^2 (X^2 + a X),   C = I + c_1 X + c_2 X^2 + c_4 Y,   K = I + k_1 X + k_2 X^2 + k_4 Y
    """

    theta: float
    a: float
    c: tuple[float, float, float]
    k: tuple[float, float, float]


#: Maximal error 6e-8: for float32 kernels that compute one triangle of a symmetric product. The same form fits up to
#: 1.5709 with an error of 2.3e-7, but there its gradient is wrong by 1.4e-5 on flat spectra.
E4 = EvenOddScheme(
    theta=1.347,
    a=60.12045606305529441573,
    c=(
        0.499999236970455358172,
        0.041663615136389115283,
        0.000023039518855839867,
    ),
    k=(
        0.166667692604186080573,
        0.008336227696832649714,
        0.000003340483523854946,
    ),
)
