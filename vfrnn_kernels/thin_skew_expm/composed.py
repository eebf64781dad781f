"""The op from an exponential of 2 k or 3 k rows and products with tall matrices; the mathematics is in README.md.

A backend brings the four functions of `Parts`. From n = 3 k + 1 on nothing larger than n k numbers is made; up to 3 k
the whole n x n generator is no larger than the one that the backward would need instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vfrnn_kernels.loader import CPU_LIBRARY_MISSING
from vfrnn_kernels.skew_expm.op import OP as SKEW_EXPM


@dataclass(frozen=True)
class Parts:
    """What a backend computes.

    Attributes:
        exponential: `(S, dt) -> (Q, *kept)`, skew_expm.
        gradient: `(grad_Q, S, dt, Q, *kept, wanted) -> gradients by name`, its backward.
        factor: B (K, m, k) -> Q (K, m, k) and R (K, k, k) with Q R = B, R^T R = B^T B.
        product: `(out, a, b, accumulate)`: out = a b, or += a b.
    """

    exponential: Callable[..., tuple[Tensor, ...]]
    gradient: Callable[..., dict[str, Tensor]]
    factor: Callable[[Tensor], tuple[Tensor, Tensor]]
    product: Callable[[Tensor, Tensor, Tensor, bool], None]


def is_compressed(n: int, k: int) -> bool:
    """Whether n x k is thin enough for B = Q R to be worth it."""
    return n > 3 * k


def forward(parts: Parts, S: Tensor, dt: Tensor) -> tuple[Tensor, ...]:
    """Y, and for the backward Q and R, or the whole rotation and what skew_expm keeps."""
    K, n, k = S.shape
    if not is_compressed(n, k):
        rotation, *kept = parts.exponential(_whole(S), dt)
        return rotation[..., :k].clone(), S.new_empty(K, 0, k), S.new_empty(K, 0, k), rotation, *kept
    Q, R = parts.factor(S[:, k:])
    E, *kept = parts.exponential(_generator(S, R, 2 * k), dt)
    Y = torch.empty_like(S, memory_format=torch.contiguous_format)
    Y[:, :k] = E[:, :k, :k]
    parts.product(Y[:, k:], Q, E[:, k:, :k], False)
    nothing = (t.new_empty(*t.shape[:-2], 0, 0) if t.dim() > 2 else t for t in (E, *kept))
    return Y, Q, R, *nothing


def backward(
    parts: Parts,
    grad_Y: Tensor,
    S: Tensor,
    dt: Tensor,
    Q: Tensor,
    R: Tensor,
    rotation: Tensor,
    *kept: Tensor,
    wanted: frozenset[str],
) -> dict[str, Tensor]:
    """The gradients that are wanted, by name."""
    K, n, k = S.shape
    if not is_compressed(n, k):
        grad_rotation = S.new_zeros(K, n, n)
        grad_rotation[..., :k] = grad_Y
        found = parts.gradient(grad_rotation, _whole(S), dt, rotation, *kept, wanted=wanted)
        if "S" in wanted:
            found["S"] = found["S"][..., :k].contiguous()
            found["S"][:, k:] *= 2
        return found
    of_lower = grad_Y[:, k:]
    inner = S.new_empty(K, k, k)
    parts.product(inner, Q.mT, of_lower, False)
    # In the rows beyond 2 k the generator is 0, so that the identity in these columns comes back as phi_1.
    grad_E = S.new_zeros(K, 3 * k, 3 * k)
    grad_E[:, :k, :k], grad_E[:, k : 2 * k, :k] = grad_Y[:, :k], inner
    grad_E[:, :k, 2 * k :].diagonal(dim1=-2, dim2=-1).fill_(1)
    generator = _generator(S, R, 3 * k)
    found = parts.gradient(grad_E, generator, dt, *parts.exponential(generator, dt), wanted=wanted)
    if "S" not in wanted:
        return found
    small = found["S"]
    phi = 2 * small[:, :k, 2 * k :]
    of_Q = -2 * small[:, k : 2 * k, :k]
    parts.product(of_Q, inner, phi, True)
    grad_S = torch.empty_like(S, memory_format=torch.contiguous_format)
    grad_S[:, :k] = small[:, :k, :k]
    parts.product(grad_S[:, k:], Q, of_Q.neg_(), False)
    parts.product(grad_S[:, k:], of_lower, phi, True)
    found["S"] = grad_S
    return found


def _generator(S: Tensor, R: Tensor, size: int) -> Tensor:
    """[[A, -R^T], [R, 0]] with A the square block of S, and zeros up to `size` rows and columns."""
    K, _, k = S.shape
    found = S.new_zeros(K, size, size)
    found[:, :k, :k], found[:, k : 2 * k, :k], found[:, :k, k : 2 * k] = S[:, :k], R, -R.mT
    return found


def _whole(S: Tensor) -> Tensor:
    K, n, k = S.shape
    found = S.new_zeros(K, n, n)
    found[..., :k], found[:, :k, k:] = S, -S[:, k:].mT
    return found


def _library_gradient(*args: Any, wanted: frozenset[str]) -> dict[str, Tensor]:
    needs = SKEW_EXPM.needs([name in wanted for name in SKEW_EXPM.input_names])
    found = torch.ops.vfrnn_kernels.skew_expm_backward(*args, needs)
    return {name: t for name, t in zip(SKEW_EXPM.input_names, found, strict=True) if name in wanted}


def framework_factor(B: Tensor) -> tuple[Tensor, Tensor]:
    """One pass of shifted Cholesky QR in float64: what float32 needs."""
    X = B.double()
    gram = X.mT @ X
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
    shift = torch.where(trace == 0, 1.0, 64 * torch.finfo(torch.float64).eps * trace)
    R = torch.linalg.cholesky_ex(gram + shift * torch.eye(B.shape[-1], dtype=X.dtype, device=X.device), upper=True)[0]
    Q = torch.linalg.solve_triangular(R, X, upper=True, left=False)
    return Q.to(B.dtype), torch.where(trace == 0, 0.0, R).to(B.dtype)


def framework_product(out: Tensor, a: Tensor, b: Tensor, accumulate: bool) -> None:
    """By torch.bmm."""
    out.add_(a @ b) if accumulate else out.copy_(a @ b)


_ops = torch.ops.vfrnn_kernels
ON_CPU = Parts(
    lambda S, dt: _ops.skew_expm(S, dt),
    _library_gradient,
    lambda B: _ops.thin_factor(B),
    lambda *args: _ops.thin_product(*args),
)
ON_CUDA = Parts(ON_CPU.exponential, _library_gradient, framework_factor, framework_product)


def _parts(S: Tensor) -> Parts:
    return ON_CPU if S.device.type == "cpu" and CPU_LIBRARY_MISSING is None else ON_CUDA


def thin_skew_expm(*, S: Tensor, dt: Tensor) -> tuple[Tensor, ...]:
    """The op on the library's exponential."""
    return forward(_parts(S), S, dt)


def thin_skew_expm_backward(
    *,
    grad_Y: Tensor,
    S: Tensor,
    dt: Tensor,
    Y: Tensor,
    Q: Tensor,
    R: Tensor,
    rotation: Tensor,
    saved: Tensor,
    wanted: frozenset[str],
) -> dict[str, Tensor]:
    """Its backward on the library's exponential."""
    return backward(_parts(S), grad_Y, S, dt, Q, R, rotation, saved, wanted=wanted)
