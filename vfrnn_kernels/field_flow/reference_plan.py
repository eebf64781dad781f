"""The substeps of field_flow: planned from an upper bound on |dt| ||S||, or given and checked against a lower one.

The series of degree `order` is exact to rounding while x = |dt| ||S|| / substeps stays below a limit. The table has it
for degree 8; for another degree the limit keeps the first neglected term, x^(order + 1) / (order + 1)!, the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ORDER = 8
LIMITS = {torch.float64: 0.1, torch.float32: 0.6}  # of x at degree 8: remainders 2.8e-15 and 2.8e-8
MOST_SUBSTEPS = 10_000
SLACK = 1 + 1e-3  # an explicit number of substeps may miss the limit by this factor


def series_limit(order: int, dtype: torch.dtype) -> float:
    """The largest |dt| ||S|| / substeps at which the series of that degree is exact to rounding."""
    log_remainder = (ORDER + 1) * math.log(LIMITS[dtype]) - math.lgamma(ORDER + 2)
    return math.exp((log_remainder + math.lgamma(order + 2)) / (order + 1))


def planned_substeps(v: Tensor, b: Tensor, w: Tensor, N: Tensor, G: Tensor, dt: Tensor, order: int) -> int:
    """Substeps that certainly suffice for the fields v (., m, d).

    Raises:
        ValueError: the tensors are not on the CPU, or are being traced (their values would be needed).
        RuntimeError: the bound is not finite, or so large that more than 10 000 substeps are needed.
    """
    check_plannable(v)
    bound = abs(float(dt)) * generator_bound(v.detach(), b.detach(), w.detach(), N.detach(), G.detach())
    return substeps_within(bound, series_limit(order, v.dtype))


def check_plannable(v: Tensor) -> None:
    """The values of v may be read.

    Raises:
        ValueError: they may not.
    """
    if v.device.type != "cpu" or torch.compiler.is_compiling():
        raise ValueError(
            f"substeps must be given here: planning them reads the values of v, which are on {v.device}"
            f"{' and being traced' if torch.compiler.is_compiling() else ''}"
        )


def substeps_within(bound: float, limit: float) -> int:
    """Substeps that suffice where |dt| ||S|| is at most `bound`, and may be `limit` in each.

    Raises:
        RuntimeError: the bound is not finite, or so large that more than 10 000 substeps are needed.
    """
    if not math.isfinite(bound):
        raise RuntimeError(f"v, N and G must be finite and of moderate size: the bound on |dt| ||S|| is {bound}")
    needed = bound / limit
    if needed > MOST_SUBSTEPS:
        raise RuntimeError(f"v is too large: |dt| ||S|| may reach {bound:.3g}, which needs more than 10000 substeps")
    return max(1, math.ceil(needed))


def generator_bound(v: Tensor, b: Tensor, w: Tensor, N: Tensor, G: Tensor) -> float:
    """An upper bound on ||S||_2: ||W^1/2 N B^-1/2|| max_c |v_c| ||W^1/2 G B^-1/2||, each factor bounded from above."""
    if v.numel() == 0:
        return 0.0
    scale = w.sqrt()[:, None] * b.rsqrt()  # (m, n)
    averages, gradients = N * scale, (G * scale[:, None]).flatten(0, 1)  # (m, n), (m d, n)
    gram = gradients.mT @ gradients
    gram_power = (gram @ gram).norm().sqrt()  # ||A||_2^2 = ||(A^T A)^2||_2^1/2 <= ||(A^T A)^2||_F^1/2
    speed = v.norm(dim=-1).max()
    return float(_column_row_norm(averages) * speed * torch.minimum(gram_power.sqrt(), _column_row_norm(gradients)))


def _column_row_norm(A: Tensor) -> Tensor:
    # ||A||_2 <= sqrt(||A||_1 ||A||_inf)
    return (A.abs().sum(0).max() * A.abs().sum(1).max()).sqrt()


def check_substeps(reached: float, order: int, substeps: int, dtype: torch.dtype) -> None:
    """`reached`, a lower bound on |dt| ||S|| / substeps, is within the limit of the series.

    Raises:
        RuntimeError: it is not.
    """
    limit = series_limit(order, dtype)
    if not math.isfinite(reached):
        raise RuntimeError(f"v, N and G must be finite and of moderate size: |dt| ||S|| / substeps is {reached}")
    if reached > limit * SLACK:
        raise RuntimeError(
            f"substeps must be at least {math.ceil(reached * substeps / limit)}, got {substeps}: "
            f"|dt| ||S|| / substeps is at least {reached:.3g}, and the series of order {order} is exact to {limit:.3g}"
        )
