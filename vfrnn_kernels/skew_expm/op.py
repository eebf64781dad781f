"""skew_expm: contract, fakes and autograd. S, dt -> Q = exp(dt S), orthogonal (model.md 2 and 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from vfrnn_kernels.autocast import in_float32
from vfrnn_kernels.autograd import differentiable
from vfrnn_kernels.checks import as_batch, as_number_tensor, check_rank, check_tensor, from_batch
from vfrnn_kernels.dispatch import select_backend
from vfrnn_kernels.loader import CUDA_EMULATED
from vfrnn_kernels.skew_expm.coefficients import scheme
from vfrnn_kernels.skew_expm.reference import skew_expm_backward_reference, skew_expm_reference


def skew_expm(S: Tensor, dt: float | Tensor = 1.0, *, backend: str | None = None) -> Tensor:
    r"""Exponential of a skew-symmetric matrix: a rotation.

    .. math:: Q = \exp(dt\, S), \qquad S^T = -S

    Args:
        S: (..., n, n), skew-symmetric up to rounding (its skew part is used), n >= 1.
        dt: a number, or a tensor that broadcasts with the batch shape of S: one generator (n, n) at many times (T,)
            gives (T, n, n). Of any sign.
        backend: "cpu", "cuda", "triton", "reference" or None (the first that serves the call).

    Returns:
        Q (..., n, n), of the batch shape that S and dt broadcast to, orthogonal to rounding. Its gradient with respect
        to S is skew-symmetric. Second derivatives are right, but not optimised.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device or shape.
        RuntimeError: the backend cannot serve the call; on the CPU also: S is not finite, not skew-symmetric, or
            dt S has a norm of more than about a million. Other devices return NaN instead.

    Source: scaling and squaring of a minimax polynomial, after Bader, Blanes, Casas and Seydaoglu 2022
    (doi 10.1016/j.matcom.2021.12.002).

    Example:
        >>> import math, torch
        >>> S = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
        >>> skew_expm(S, math.pi / 2).round(decimals=3).abs().tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    S, dt = in_float32(S, dt)
    check_generator_argument(S)
    dt = as_times("dt", dt, S)
    batch = torch.broadcast_shapes(S.shape[:-2], dt.shape) if dt.dim() else S.shape[:-2]
    function = _functions[select_backend("skew_expm", backend, (S,))]
    n = S.shape[-1]
    return from_batch(function(as_batch(S, batch, n, n), as_batch(dt, batch))[0], batch)


def check_generator_argument(S: Tensor) -> None:
    """S is a batch of square matrices.

    Raises:
        TypeError, ValueError: it is not.
    """
    check_tensor("S", S)
    check_rank("S", S, "(..., n, n)", 2, batched=True)
    if S.shape[-1] != S.shape[-2]:
        raise ValueError(f"S must have shape (..., n, n), got {tuple(S.shape)}")
    if S.shape[-1] < 1:
        raise ValueError(f"S must have shape (..., n, n) with n >= 1, got {tuple(S.shape)}")


def as_times(name: str, value: float | Tensor, S: Tensor) -> Tensor:
    """`value` as a tensor of the dtype and device of S that broadcasts with the batch shape of S.

    Raises:
        TypeError, ValueError: it is none.
    """
    if not isinstance(value, Tensor):
        return as_number_tensor(name, value, S)
    check_tensor(name, value, S, "S")
    check_broadcast(name, value.shape, S)
    return value


def check_broadcast(name: str, batch: torch.Size, S: Tensor) -> None:
    """`batch` broadcasts with the batch shape of S.

    Raises:
        ValueError: it does not.
    """
    expected = S.shape[:-2]
    if any(a != b and 1 not in (a, b) for a, b in zip(reversed(batch), reversed(expected), strict=False)):
        raise ValueError(f"{name} must broadcast with the batch shape of S, {tuple(expected)}, got {tuple(batch)}")


#: saved_slots of csrc/skew_expm/cuda.h.
_KEPT_BY_CUDA = 11


def saved_matrices(S: Tensor) -> int:
    """L, the number of matrices that the kernel of the device keeps for its backward (csrc/skew_expm/exponential.h)."""
    return _KEPT_BY_CUDA if S.device.type == "cuda" or CUDA_EMULATED is not None else scheme(S.dtype).r + 6


def _fake(S: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    K, n, _ = S.shape
    return S.new_empty(K, n, n), S.new_empty(K, saved_matrices(S), n, n)


def _triton_fake(S: Tensor, dt: Tensor) -> tuple[Tensor, ...]:
    from vfrnn_kernels.skew_expm.triton_kernels import saved_shapes

    K, n, _ = S.shape
    matrices, squarings = saved_shapes(K, n, S.dtype)
    return S.new_empty(K, n, n), S.new_empty(matrices), S.new_empty(squarings, dtype=torch.int32)


_functions = differentiable(
    "skew_expm",
    arguments="Tensor S, Tensor dt",
    reference=skew_expm_reference,
    reference_backward=skew_expm_backward_reference,
    fake=_fake,
    inputs=2,
    outputs=1,
    saved=1,
    triton_saved=2,
    triton_fake=_triton_fake,
)
