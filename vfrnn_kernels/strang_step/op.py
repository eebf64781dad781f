"""strang_step: contract, fakes and autograd. S, delta, dt -> M, one Strang-split time step (model.md 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from vfrnn_kernels.autocast import in_float32
from vfrnn_kernels.autograd import differentiable
from vfrnn_kernels.checks import (
    LARGEST_SUBSTEPS,
    as_batch,
    check_broadcast,
    check_entries,
    check_positive_int,
    from_batch,
)
from vfrnn_kernels.declaration import REAL, Constant, Op, Sample, Saved, T, declare
from vfrnn_kernels.dispatch import select_backend
from vfrnn_kernels.skew_expm.op import (
    SAVED_BY_TRITON,
    as_times,
    generators,
    saved_sizes,
    saved_sizes_of_triton,
)
from vfrnn_kernels.strang_step.flops import FLOPS
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
        >>> [round(y, 4) for y in M.log().diagonal().tolist()]
        [-1.0, 1.0]
    """
    S, delta, dt = in_float32(S, delta, dt)
    n = OP.check(S=S, delta=delta)["n"]
    check_broadcast("delta", delta.shape[:-1], "S", S.shape[:-2])
    dt = as_times("dt", dt, S)
    check_positive_int("substeps", substeps, LARGEST_SUBSTEPS)
    check_broadcast("dt", dt.shape, "delta", delta.shape[:-1])
    batch = torch.broadcast_shapes(S.shape[:-2], delta.shape[:-1], dt.shape)
    check_entries("S, delta and dt", *batch, n, n)
    function = _functions[select_backend("strang_step", backend, (S,))]
    M = function(as_batch(S, batch, n, n), as_batch(delta, batch, n), as_batch(dt, batch), substeps)[0]
    return from_batch(M, batch)


def _sample(n: int, K: int = 2, norm: float = 1.0, substeps: int = 2) -> Sample:
    S, dt, delta = generators(n, K, norm), torch.linspace(0.5, 1, K), 0.3 * torch.randn(K, n)
    return Sample({"S": S, "delta": delta, "dt": dt, "substeps": substeps})


def _variations(n: int, dtypes: Sequence[torch.dtype]) -> Iterator[dict[str, Any]]:
    for substeps in (1, 2):
        yield {"K": 1, "substeps": substeps}


OP = declare(
    Op(
        "strang_step",
        inputs=(
            T("S", "K n n", given="... n n", at_least_one="row"),
            T("delta", "K n", given="... n"),
            T("dt", "K"),
        ),
        constants=(Constant("substeps", "int"),),
        outputs=(T("M", "K n n"),),
        saved=Saved((T("Q", "K n n"), T("saved", "K L n n")), saved_sizes),
        saved_by_triton=Saved((T("Q", "K n n"), *SAVED_BY_TRITON), saved_sizes_of_triton),
        reference=strang_step_reference,
        reference_backward=strang_step_backward_reference,
        flops=FLOPS,
        serves={"cpu": REAL, "cuda": (torch.float32,), "triton": (torch.float32,)},
        sample=_sample,
        samples=("K", "generators"),
        variations=_variations,
        route_sizes=(17, 150),
    )
)
_functions = differentiable(OP)
