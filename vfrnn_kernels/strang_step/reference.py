"""strang_step in plain PyTorch: the definition of right. Equations: README.md beside this file."""

from __future__ import annotations

import torch
from torch import Tensor

from vfrnn_kernels.reference_values import check_scales, values_readable
from vfrnn_kernels.skew_expm.reference import exponential, exponential_gradient, generator


def strang_step_reference(S: Tensor, delta: Tensor, dt: Tensor, substeps: int) -> tuple[Tensor]:
    """M = (diag(e) Q diag(e))^k of S (K, n, n), delta (K, n), dt (K,); half precisions compute in float32 and round."""
    if values_readable(delta) and not bool(torch.isfinite(delta).all()):
        raise RuntimeError("delta must be finite, got NaN or infinity")
    e, A = _halves(S, delta, dt, substeps)
    check_scales(e, delta)
    return (_powers(e.unsqueeze(-1) * exponential(A).Q * e.unsqueeze(-2), substeps)[-1].to(S.dtype),)


def strang_step_backward_reference(
    grad_M: Tensor, S: Tensor, delta: Tensor, dt: Tensor, M: Tensor, substeps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of S, delta and dt by the hand-written rules of README.md."""
    e, A = _halves(S, delta, dt, substeps)
    x = exponential(A)
    M1 = e.unsqueeze(-1) * x.Q * e.unsqueeze(-2)
    grad_M1 = _powers_gradient(grad_M.to(A.dtype), _powers(M1, substeps), substeps)
    # M1_ij = e_i Q_ij e_j:  e_i dL/de_i is the i-th row sum plus the i-th column sum of grad_M1 * M1
    P = grad_M1 * M1
    grad_log_e = P.sum(-1) + P.sum(-2)
    grad_A = exponential_gradient(e.unsqueeze(-1) * grad_M1 * e.unsqueeze(-2), x)
    step = dt.to(A.dtype) / substeps
    grad_S = step[:, None, None] * grad_A
    grad_delta = -step[:, None] / 4 * grad_log_e
    grad_dt = ((grad_A * S).sum((-2, -1)) - (grad_log_e * delta).sum(-1) / 4) / substeps
    return grad_S.to(S.dtype), grad_delta.to(S.dtype), grad_dt.to(S.dtype)


def _halves(S: Tensor, delta: Tensor, dt: Tensor, substeps: int) -> tuple[Tensor, Tensor]:
    """e = exp(-dt delta / (4 k)) and the generator dt S / k, in the computing precision."""
    compute = torch.promote_types(S.dtype, torch.float32)
    step = dt.to(compute) / substeps
    return torch.exp(-step[:, None] * delta.to(compute) / 4), generator(S, step)


def _digits(k: int) -> list[int]:
    """The binary digits of k after the first one."""
    return [(k >> place) & 1 for place in reversed(range(k.bit_length() - 1))]


def _powers(M1: Tensor, k: int) -> list[Tensor]:
    """M1, ..., M1^k by the binary digits of k, first to last: a squaring each, and a factor M1 where the digit is 1."""
    powers = [M1]
    for digit in _digits(k):
        powers.append(powers[-1] @ powers[-1])
        if digit:
            powers.append(powers[-1] @ M1)
    return powers


def _powers_gradient(G: Tensor, powers: list[Tensor], k: int) -> Tensor:
    """The gradient of M1, with G that of M1^k."""
    M1, grad_M1 = powers[0], torch.zeros_like(G)
    X = iter(reversed(powers[:-1]))
    for digit in reversed(_digits(k)):
        if digit:
            grad_M1, G = grad_M1 + next(X).mT @ G, G @ M1.mT
        root = next(X)
        G = G @ root.mT + root.mT @ G
    return grad_M1 + G
