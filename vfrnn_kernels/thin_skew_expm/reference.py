"""thin_skew_expm in plain PyTorch: the definition of right. Derivation: README.md beside this file.

It forms the n x n generator and takes columns of its exponential, which is what the op is there to avoid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vfrnn_kernels.skew_expm.reference import exponential, exponential_gradient, generator


def thin_skew_expm_reference(S: Tensor, dt: Tensor) -> tuple[Tensor]:
    """Y = exp(dt A) E of S (K, n, k), dt (K,), where A has the columns S E = S and nothing beyond them."""
    return (exponential(generator(whole(S), dt)).Q[..., : S.shape[-1]].to(S.dtype),)


def thin_skew_expm_backward_reference(grad_Y: Tensor, S: Tensor, dt: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of S and dt. An entry below the square block stands in A twice, with both signs: its gradient is the
    sum of two that are equal."""
    n, k = S.shape[-2:]
    A = generator(whole(S), dt)
    grad_Q = torch.cat([grad_Y.to(A.dtype), A.new_zeros(*S.shape[:-1], n - k)], -1)
    grad_A = exponential_gradient(grad_Q, exponential(A))[..., :k]
    grad_A = torch.cat([grad_A[..., :k, :], 2 * grad_A[..., k:, :]], -2)
    grad_S = dt.to(A.dtype)[:, None, None] * grad_A
    return grad_S.to(S.dtype), (grad_A * S).sum((-2, -1)).to(dt.dtype)


def whole(S: Tensor) -> Tensor:
    """The matrix (K, n, n) whose first k columns are S (K, n, k), whose first k rows are skew to them, else 0."""
    n, k = S.shape[-2:]
    right = torch.cat([-S[..., k:, :].mT, S.new_zeros(*S.shape[:-2], n - k, n - k)], -2)
    return torch.cat([S, right], -1)
