"""strang_step: contract, fakes and autograd. S, delta, dt -> M, one Strang-split time step (model.md 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from vfrnn_kernels.autocast import in_float32
from vfrnn_kernels.autograd import differentiable
from vfrnn_kernels.checks import as_batch, check_positive_int, check_rank, check_tensor, from_batch
from vfrnn_kernels.dispatch import select_backend
from vfrnn_kernels.skew_expm.op import as_times, check_broadcast, check_generator_argument, saved_matrices
from vfrnn_kernels.strang_step.reference import strang_step_backward_reference, strang_step_reference


def strang_step(
    S: Tensor, delta: Tensor, dt: float | Tensor = 1.0, substeps: int = 1, *, backend: str | None = None
) -> Tensor:
    r"""Transition matrix of a time step along a field with generator S and divergence delta.

    .. math:: M = (\mathrm{diag}(e)\, Q\, \mathrm{diag}(e))^k, \quad e = \exp(-dt\, \delta / (4 k)), \quad
        Q = \exp(dt\, S / k)

    Strang splitting of exp(dt (S - diag(delta) / 2)): of second order in dt / k, exact for delta = 0.

    Args:
        S: (..., n, n), skew-symmetric up to rounding (its skew part is used), n >= 1.
        delta: (..., n).
        dt: a number, or a tensor. The batch shapes of S, delta and dt broadcast.
        substeps: k >= 1.
        backend: "cpu", "cuda", "triton", "reference" or None (the first that serves the call).

    Returns:
        M (..., n, n), of the broadcast batch shape; det M = exp(-dt sum(delta) / 2), ||M||_2 <= exp(-dt min(delta) / 2)
        for dt >= 0. Second derivatives are right, but not optimised.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device or shape.
        RuntimeError: the backend cannot serve the call; on the CPU also: S is not finite, not skew-symmetric, or
            dt S / k has a norm of more than about a million. Other devices return NaN instead.

    Source: Strang 1968 (doi 10.1137/0705041).

    Example:
        >>> import torch
        >>> M = strang_step(torch.zeros(2, 2), torch.tensor([1.0, -1.0]), 2.0)
        >>> M.log().diagonal().tolist()
        [-1.0, 1.0]
    """
    S, delta, dt = in_float32(S, delta, dt)
    check_generator_argument(S)
    check_tensor("delta", delta, S, "S")
    n = S.shape[-1]
    check_rank("delta", delta, "(..., n)", 1, batched=True)
    if delta.shape[-1] != n:
        raise ValueError(f"delta must have shape (..., n) with n = {n}, got {tuple(delta.shape)}")
    check_broadcast("delta", delta.shape[:-1], S)
    dt = as_times("dt", dt, S)
    check_positive_int("substeps", substeps)
    try:
        batch = torch.broadcast_shapes(S.shape[:-2], delta.shape[:-1], dt.shape)
    except RuntimeError:
        raise ValueError(
            f"dt must broadcast with the batch shape of delta, {tuple(delta.shape[:-1])}, got {tuple(dt.shape)}"
        ) from None
    function = _functions[select_backend("strang_step", backend, (S,))]
    M = function(as_batch(S, batch, n, n), as_batch(delta, batch, n), as_batch(dt, batch), substeps)[0]
    return from_batch(M, batch)


def _fake(S: Tensor, delta: Tensor, dt: Tensor, substeps: int) -> tuple[Tensor, Tensor, Tensor]:
    K, n, _ = S.shape
    return S.new_empty(K, n, n), S.new_empty(K, n, n), S.new_empty(K, saved_matrices(S), n, n)


def _triton_fake(S: Tensor, delta: Tensor, dt: Tensor, substeps: int) -> tuple[Tensor, ...]:
    from vfrnn_kernels.skew_expm.triton_kernels import saved_shapes

    K, n, _ = S.shape
    matrices, squarings = saved_shapes(K, n, S.dtype)
    return S.new_empty(K, n, n), S.new_empty(K, n, n), S.new_empty(matrices), S.new_empty(squarings, dtype=torch.int32)


_functions = differentiable(
    "strang_step",
    arguments="Tensor S, Tensor delta, Tensor dt, int substeps",
    reference=strang_step_reference,
    reference_backward=strang_step_backward_reference,
    fake=_fake,
    inputs=3,
    outputs=1,
    saved=2,
    triton_saved=3,
    triton_fake=_triton_fake,
)
