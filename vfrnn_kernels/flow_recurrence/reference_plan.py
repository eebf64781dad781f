"""The substeps and the degree of flow_recurrence, planned from an upper bound on |dt| ||S(v + V x_t)|| over all steps
and samples.

S is linear in the field, and there are few fields to begin with, v and the i columns of V, or the distinct rows of x,
but many steps; so the matrices of the fewer are formed once, for a bound that is within some percent where
field_flow's, which forms none, loses a factor of 10 and more. Equations: README.md beside this file.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vfrnn_kernels.field_flow.reference_plan import ORDER, check_plannable, series_limit, substeps_within

#: The largest |dt| ||S|| of a substep where the degree is planned too: up to there a series loses less than a digit to
#: the terms that cancel.
LARGEST_ARGUMENT = 3.0
LARGEST_ORDER = 40  # beyond that of LARGEST_ARGUMENT in float64
ROUNDING = 1.001  # of the moments


def planned_series(
    x: Tensor, v: Tensor, V: Tensor, b: Tensor, w: Tensor, N: Tensor, G: Tensor, dt: Tensor, order: int
) -> tuple[int, int]:
    """Degree and substeps that certainly suffice for the fields v + V x_t, v (m, d), V (m, d, i), x (T, B, i): the
    substeps for a given degree, or (order 0) both with the fewest products.

    Raises:
        ValueError: the tensors are not on the CPU, or are being traced (their values would be needed).
        RuntimeError: the bound is not finite, or so large that more than 10 000 substeps are needed.
    """
    check_plannable(v)
    bound = abs(float(dt)) * largest_generator(*(t.detach() for t in (x, v, V, b, w, N, G)))
    if order > 0:
        return order, substeps_within(bound, series_limit(order, v.dtype))
    best = LARGEST_ORDER, substeps_within(bound, LARGEST_ARGUMENT)
    for degree in range(ORDER, LARGEST_ORDER):
        substeps = max(1, math.ceil(bound / min(series_limit(degree, v.dtype), LARGEST_ARGUMENT)))
        if degree * substeps < math.prod(best):
            best = degree, substeps
    return best


def largest_generator(x: Tensor, v: Tensor, V: Tensor, b: Tensor, w: Tensor, N: Tensor, G: Tensor) -> float:
    """An upper bound on ||S(v + V x)||_2 over all rows of x (T, B, i)."""
    rows = x.flatten(0, 1)
    if len(rows) == 0:
        return 0.0
    root = b.rsqrt()
    averages, gradients = (N * root * w[:, None]).mT, G * root

    def square(field: Tensor) -> Tensor:
        H = averages @ torch.einsum("cd,cdj->cj", field, gradients)
        S = (H - H.mT) / 2
        return S @ S.mT

    distinct = rows.unique(dim=0) if rows.shape[1] else rows[:1]
    if len(distinct) <= rows.shape[1] + 1:
        fields = v + torch.einsum("ri,cdi->rcd", distinct, V)
        return max(norm_bound(square(field), 2) for field in fields)
    squares = [square(field) for field in V.unbind(-1)]
    apart = rows.double().abs() @ torch.tensor([norm_bound(P, 2) for P in squares], dtype=torch.float64)
    together = rows.double().norm(dim=-1) * norm_bound(sum(squares, start=torch.zeros_like(squares[0])), 1)
    return float(torch.minimum(apart, together).max()) + norm_bound(square(v), 2)


def norm_bound(P: Tensor, multiplicity: int) -> float:
    """An upper bound on ||P||^1/2 for a positive P each of whose eigenvalues is there so many times: 2 for S S^T, S
    skew-symmetric, whose norm it then is; from the moments tr P^2, tr P^3, tr P^4."""
    size = float(P.double().norm())
    if not math.isfinite(size):
        return math.inf
    if size == 0:
        return 0.0
    P = P / size  # so that no power overflows
    square = P @ P
    moments = ((A.double() * B.double()).sum() for A, B in ((P, P), (P, square), (square, square)))
    lower, middle, upper = (float(moment) / multiplicity for moment in moments)
    return ROUNDING * math.sqrt(size * _largest_eigenvalue(lower, middle, upper))


def _largest_eigenvalue(lower: float, middle: float, upper: float) -> float:
    # The root beyond middle / lower of x^2 (lower x^2 - 2 middle x + upper) = D, by Newton's method from above
    mean, D = middle / lower, max(0.0, lower * upper - middle * middle) + 1e-6 * lower * upper
    x = upper**0.25
    for _ in range(8):
        offset = x - mean
        quadratic = lower * offset * offset + D / lower
        slope = 2 * x * quadratic + 2 * x * x * lower * offset
        if not slope > 0:
            break
        x -= (x * x * quadratic - D) / slope
    return x
