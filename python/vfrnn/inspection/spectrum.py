r"""What a step matrix does to a state: rotations, memory per plane, singular values, departure from normality.

Every function takes tensors in float64 and returns such; the equations are in the docstrings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def generator_angles(S: Tensor, dt: float) -> Tensor:
    r"""By how much `exp(dt S)` turns each of its planes in one step.

    .. math:: S \text{ has the eigenvalues } \pm i \omega_j, \quad
        \theta_j = |dt\, \omega_j| \text{ brought to } [0, \pi] \text{ by whole turns}

    Args:
        S: (n, n), skew-symmetric.
        dt: the time of the step.

    Returns:
        theta (n // 2,) in radians, ascending. An odd n leaves one axis that no rotation moves.

    Example:
        >>> S = torch.tensor([[0.0, -0.3], [0.3, 0.0]], dtype=torch.float64)
        >>> round(generator_angles(S, 2.0).item(), 12)
        0.6
    """
    n = S.shape[-1]
    omega = torch.linalg.eigvalsh(1j * S)[(n + 1) // 2 :]  # of +omega and -omega the upper half
    turns = (dt * omega + math.pi).remainder(2 * math.pi) - math.pi
    return turns.abs().sort().values


def orthogonal_part(M: Tensor) -> Tensor:
    """The orthogonal factor Q of the polar decomposition `M = Q P`, P positive semidefinite: the orthogonal matrix
    next to M (n, n)."""
    left, _, right = torch.linalg.svd(M)
    return left @ right


def orthogonal_angles(Q: Tensor) -> Tensor:
    r"""By how much an orthogonal Q (n, n) turns each of its planes.

    .. math:: Q \text{ has the eigenvalues } e^{\pm i \theta_j}, \quad \theta_j \in [0, \pi]

    Two eigenvalues 1 are a plane that rests, two eigenvalues -1 one that turns by pi; a single one of either is an axis
    (kept, or reflected) and no plane.

    Returns:
        theta in radians, ascending: n // 2 of them where det Q = 1.
    """
    eigenvalues = torch.linalg.eigvals(Q)
    turning = eigenvalues[eigenvalues.imag > 0].angle()
    real = eigenvalues.real[eigenvalues.imag == 0]
    resting, half_turns = int((real > 0).sum()) // 2, int((real < 0).sum()) // 2
    return torch.cat([turning.new_zeros(resting), turning, turning.new_full((half_turns,), math.pi)]).sort().values


def plane_eigenvalues(eigenvalues: Tensor) -> Tensor:
    r"""One eigenvalue for each plane (or axis) that a real matrix maps into itself, the one kept longest first.

    A pair of conjugate eigenvalues :math:`\lambda, \bar\lambda` is a plane, in which a step turns by arg(lambda) and
    scales by \|lambda\|; it is given once, by the one with a positive imaginary part. A real eigenvalue is an axis.

    Args:
        eigenvalues: all n of the matrix.
    """
    planes = eigenvalues[eigenvalues.imag >= 0]
    return planes[planes.abs().argsort(descending=True)]


def half_lives(eigenvalues: Tensor, tolerance: float) -> Tensor:
    r"""After how many steps half of what was in a plane is left.

    .. math:: |\lambda|^k = 1/2 \iff k = \frac{\ln 2}{-\ln |\lambda|}

    It is infinite where \|lambda\| = 1, and 0 where lambda = 0. Where \|lambda\| > 1 the plane grows: the number is
    negative, and minus it is the number of steps in which it doubles.

    Args:
        eigenvalues: of the step matrix.
        tolerance: a modulus that is nearer to 1 than this counts as 1, since eigenvalues are known to rounding only.

    Example:
        >>> half_lives(torch.tensor([1.0, 0.5, 2.0], dtype=torch.complex128), 1e-12).tolist()
        [inf, 1.0, -1.0]
    """
    moduli = eigenvalues.abs()
    found = math.log(2) / -moduli.log()
    return torch.where((moduli - 1).abs() <= tolerance, math.inf, found)


def departure_from_normality(M: Tensor, eigenvalues: Tensor) -> float:
    r"""Henrici's number of M (n, n): how far M is from having orthogonal eigenvectors.

    .. math:: \operatorname{dep}(M) = \sqrt{\|M\|_F^2 - \sum_j |\lambda_j|^2}

    It is 0 exactly for normal matrices, for which the eigenvalues tell all: `\|M^k\|_2 = max \|lambda\|^k`. The larger
    it is, the more M^k may grow for a while before the eigenvalues decide. What the difference of the two sums cannot
    tell from 0 in float64 is 0.

    Args:
        eigenvalues: all n of them.

    Source: Henrici 1962, Bounds for iterates, inverses, spectral variation and fields of values of non-normal matrices.

    Example:
        >>> M = torch.tensor([[0.5, 3.0], [0.0, 0.5]], dtype=torch.float64)
        >>> departure_from_normality(M, torch.linalg.eigvals(M))
        3.0
    """
    square = float(M.square().sum())
    difference = square - float(eigenvalues.abs().square().sum())
    rounding = 4 * M.shape[-1] * torch.finfo(M.dtype).eps * square
    return math.sqrt(difference) if difference > rounding else 0.0


def power_norms(M: Tensor, lags: Sequence[int]) -> Tensor:
    r"""The spectral norms :math:`\|M^k\|_2`, by which a linear recurrence multiplies a gradient at most, over k steps.

    Args:
        M: (n, n).
        lags: the numbers k, ascending, at least 1.

    Returns:
        (len(lags),), infinite where float64 ends.
    """
    power, logarithm = torch.eye(M.shape[-1], dtype=M.dtype), 0.0
    norms, before = [], 0
    for lag in lags:
        factor, factor_logarithm = _scaled_power(M, lag - before)
        power, logarithm = _scaled(power @ factor, logarithm + factor_logarithm)
        norms.append(torch.linalg.matrix_norm(power, ord=2).log() + logarithm)
        before = lag
    return torch.stack(norms).exp()


def _scaled_power(M: Tensor, k: int) -> tuple[Tensor, float]:
    """A matrix and a logarithm: M^k is that matrix times the exponential, whatever their size."""
    power, logarithm = torch.eye(M.shape[-1], dtype=M.dtype), 0.0
    square, square_logarithm = _scaled(M, 0.0)
    while k:
        if k & 1:
            power, logarithm = _scaled(power @ square, logarithm + square_logarithm)
        square, square_logarithm = _scaled(square @ square, 2 * square_logarithm)
        k >>= 1
    return power, logarithm


def _scaled(M: Tensor, logarithm: float) -> tuple[Tensor, float]:
    size = float(M.abs().max())
    return (M / size, logarithm + math.log(size)) if size > 0 else (M, logarithm)
