"""skew_expm in plain PyTorch: the definition of right. Derivation: README.md beside this file.

Scaling and squaring of one minimax polynomial: exp(A) = p(A / 2^s)^(2^s), p and s by `reference_coefficients.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vfrnn_kernels.reference_values import check_skew, values_readable
from vfrnn_kernels.skew_expm.reference_coefficients import MAX_SQUARINGS, POLISH_FROM, Scheme, scheme


def skew_expm_reference(S: Tensor, dt: Tensor) -> tuple[Tensor]:
    """Q = exp(dt S) of the generators S (K, n, n), dt (K,); half precisions compute in float32 and round."""
    A = generator(S, dt)
    return (exponential(A).Q.to(S.dtype),)


def skew_expm_backward_reference(grad_Q: Tensor, S: Tensor, dt: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of S and dt: A = dt skew(S), so grad_S = dt grad_A and grad_dt = <grad_A, S>."""
    A = generator(S, dt)
    grad_A = exponential_gradient(grad_Q.to(A.dtype), exponential(A))
    grad_S = dt.to(A.dtype)[:, None, None] * grad_A
    return grad_S.to(S.dtype), (grad_A * S).sum((-2, -1)).to(dt.dtype)


def generator(S: Tensor, dt: Tensor) -> Tensor:
    """A = dt (S - S^T) / 2 in the computing precision; raises RuntimeError where it can be seen not to be one."""
    if values_readable(S):
        check_skew(S)
    if values_readable(dt) and not bool(torch.isfinite(dt).all()):
        raise RuntimeError("dt must be finite")
    compute = torch.promote_types(S.dtype, torch.float32)
    S, dt = S.to(compute), dt.to(compute)
    return dt[:, None, None] * skew(S)


@dataclass(frozen=True)
class Exponential:
    """Q = exp(A) and what its derivative is made of: scaled powers, factors, and the matrices that were squared."""

    Q: Tensor
    powers: list[Tensor]  # P, P^2, ..., P^r with P = A / 2^s
    W: Tensor
    Y: Tensor
    left: Tensor
    right: Tensor
    levels: list[Tensor]
    s: Tensor  # (K, 1, 1)
    scale: Tensor  # 2^-s, NaN where A is beyond every scaling


def exponential(A: Tensor) -> Exponential:
    """exp(A) of skew-symmetric matrices A (K, n, n)."""
    c = scheme(A.dtype)
    powers = [A, A @ A]
    powers.append(A @ powers[1])
    if c.r == 4:
        powers.append(powers[1] @ powers[1])
    s = squarings(powers, c)[:, None, None]
    refused = ~(s <= MAX_SQUARINGS)
    if values_readable(s) and bool(refused.any()):
        raise RuntimeError(f"dt * S must have a spectral norm below {c.theta * 2**MAX_SQUARINGS:.3g}")
    s = s.masked_fill(refused, 0)
    scale = torch.exp2(-s).masked_fill(refused, math.nan)
    powers = [scale ** (j + 1) * power for j, power in enumerate(powers)]
    W = combine(c.shape, reversed(powers))
    Y = powers[-1] @ W
    left = Y + combine(c.p, powers)
    right = c.al * Y + combine(c.q, powers)
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    Q = left @ right + c.e * Y + c.f[0] * identity + combine(c.f[1:], powers)
    levels = []
    for k in range(count(s)):
        levels.append(Q)
        Q = torch.where(s > k, Q @ Q, Q)
    # One Newton-Schulz step back to the orthogonal matrices. Its derivative differs from the identity below rounding.
    drift = Q @ (identity - Q.mT @ Q) / 2
    Q = Q + torch.where(s >= POLISH_FROM, drift, 0).detach()
    return Exponential(Q, powers, W, Y, left, right, levels, s, scale)


def exponential_gradient(G: Tensor, x: Exponential) -> Tensor:
    """The skew-symmetric gradient of <G, exp(A)>.

    Tangents of A and A^3 are skew-symmetric, those of A^2 and A^4 symmetric. Their gradients are projected onto that
    space, which changes nothing and makes the reverse of a square one product: dX = dP P + P dP gives M + M^T or
    M - M^T with M = P grad_X.
    """
    c = scheme(G.dtype)
    P, P2 = x.powers[:2]
    for k in reversed(range(len(x.levels))):  # Q = X X
        X = x.levels[k]
        G = torch.where(x.s > k, G @ X.mT + X.mT @ G, G)
    grad_left, grad_right = G @ x.right.mT, x.left.mT @ G
    grad_Y = grad_left + c.al * grad_right + c.e * G
    grad_W = x.powers[-1].mT @ grad_Y
    grads = [
        c.p[j] * grad_left + c.q[j] * grad_right + c.f[j + 1] * G + c.shape[c.r - 1 - j] * grad_W for j in range(c.r)
    ]
    grads[-1] = grads[-1] + grad_Y @ x.W.mT
    if c.r == 4:  # P^4 = P^2 P^2
        grads[1] = grads[1] + 2 * symmetric(P2 @ symmetric(grads[3]))
    grad_P3 = skew(grads[2])  # P^3 = P P^2, P^T = -P
    grad_P2 = symmetric(grads[1] - P @ grad_P3)
    grad_P = skew(grads[0] + grad_P3 @ P2 - 2 * P @ grad_P2)
    return x.scale * grad_P


def squarings(powers: list[Tensor], c: Scheme) -> Tensor:
    """s (K,), the least with ||A||_2 <= theta 2^s that is seen from the powers of A; not finite where they are not."""
    of_rows = [powers[j - 1].detach().abs().sum(-1).amax(-1).double() ** (1 / j) for j in (c.r - 1, c.r)]
    A2, A3 = powers[1].detach(), powers[2].detach()
    bound = torch.minimum(torch.minimum(*of_rows), moment_bound(A2, A3, A2 @ A2))
    s = torch.log2(bound / c.theta).ceil().clamp_min(0)
    polished = torch.log2(bound / c.theta_polished).ceil().clamp_min(POLISH_FROM)
    return torch.where((s < POLISH_FROM) | ~(s <= MAX_SQUARINGS), s, polished).to(powers[0].dtype)


def moment_bound(A2: Tensor, A3: Tensor, A4: Tensor) -> Tensor:
    """An upper bound on ||A||_2 (K,), in float64, from the Frobenius norms of A^2, A^3 and A^4.

    The eigenvalues of A come in pairs +-i omega. The largest of the x = omega^2, each with weight x^2, is where the
    Christoffel function of these weights is at least its weight: with the moments m_j = sum of x^j over the pairs,

        x^2 (m_4 - 2 m_3 x + m_2 x^2) <= D = m_2 m_4 - m_3^2.
    """
    lower, middle, upper = (power.double().square().sum((-2, -1)) / 2 for power in (A2, A3, A4))
    D = (lower * upper - middle * middle).clamp_min(0) + 1e-6 * lower * upper  # rounding in A^j must not lower it
    x = upper**0.25  # beyond the root, where the quartic is convex: Newton's method falls towards it
    for _ in range(8):
        offset = x - middle / lower
        quadratic = lower * offset * offset + D / lower
        value, slope = x * x * quadratic - D, 2 * x * quadratic + 2 * x * x * lower * offset
        x = x - torch.where(slope > 0, value / slope, 0.0)
    return x.sqrt()


def count(s: Tensor) -> int:
    """How many squarings the loop makes: what the batch needs where that can be read, else the most there may be."""
    if not values_readable(s):
        return MAX_SQUARINGS
    return int(s.max()) if s.numel() else 0


def combine(coefficients: Iterable[float], matrices: Iterable[Tensor]) -> Tensor:
    terms = [c * matrix for c, matrix in zip(coefficients, matrices, strict=True)]
    return sum(terms[1:], terms[0])


def skew(X: Tensor) -> Tensor:
    return (X - X.mT) / 2


def symmetric(X: Tensor) -> Tensor:
    return (X + X.mT) / 2
