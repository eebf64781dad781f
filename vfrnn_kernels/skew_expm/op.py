"""skew_expm: contract, fakes and autograd. S, dt -> Q = exp(dt S), orthogonal (model.md 2 and 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vfrnn_kernels.autocast import in_float32
from vfrnn_kernels.autograd import differentiable
from vfrnn_kernels.checks import as_batch, as_number_tensor, check_broadcast, check_entries, check_tensor, from_batch
from vfrnn_kernels.declaration import REAL, Op, Sample, Saved, Sizes, T, declare
from vfrnn_kernels.dispatch import select_backend
from vfrnn_kernels.loader import CUDA_SIMULATED
from vfrnn_kernels.skew_expm.flops import FLOPS
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
    n = OP.check(S=S)["n"]
    dt = as_times("dt", dt, S)
    batch = torch.broadcast_shapes(S.shape[:-2], dt.shape) if dt.dim() else S.shape[:-2]
    check_entries("S and dt", *batch, n, n)
    function = _functions[select_backend("skew_expm", backend, (S,))]
    return from_batch(function(as_batch(S, batch, n, n), as_batch(dt, batch))[0], batch)


def as_times(name: str, value: float | Tensor, S: Tensor) -> Tensor:
    """`value` as a tensor of the dtype and device of S that broadcasts with the batch shape of S.

    Raises:
        TypeError, ValueError: it is none.
    """
    if not isinstance(value, Tensor):
        return as_number_tensor(name, value, S)
    check_tensor(name, value, S, "S")
    check_broadcast(name, value.shape, "S", S.shape[:-2])
    return value


#: Matrices that the kernels keep of a generator for the backward: in csrc/skew_expm/cuda.h saved_slots, in
#: csrc/skew_expm/exponential.h the powers and six more, and none to n = small_size of csrc/skew_expm/small.h.
_SAVED_BY_CUDA, _SAVED_BY_CPU = 11, {torch.float32: 9, torch.float64: 10}
_SMALL = 16


def saved_sizes(sizes: Sizes, arguments: Sequence[Any]) -> Sizes:
    """L, the number of matrices that the kernel of the device keeps for its backward."""
    S = arguments[0]
    on_cuda = S.device.type == "cuda" or CUDA_SIMULATED is not None
    if on_cuda:
        return {"L": _SAVED_BY_CUDA}
    return {"L": 0 if S.shape[-1] <= _SMALL else _SAVED_BY_CPU[S.dtype]}


def saved_sizes_of_triton(sizes: Sizes, arguments: Sequence[Any]) -> Sizes:
    """The number of generators of which the Triton kernels keep something: half precisions keep nothing."""
    return {"generators": sizes["K"] if arguments[0].dtype == torch.float32 else 0}


#: What the Triton kernels keep: matrices, and numbers of squarings.
SAVED_BY_TRITON = (T("matrices", "generators 9 n n"), T("squarings", "generators", like=torch.int32))


def generators(n: int, K: int, norm: float) -> Tensor:
    """Random skew-symmetric matrices (K, n, n) in float32 of that spectral norm."""
    A = torch.randn(K, n, n, dtype=torch.float64)
    S = A - A.mT
    if n > 1:
        S = S * (norm / torch.linalg.matrix_norm(S, 2)[:, None, None])
    return ((S - S.mT) / 2).float()


def _sample(n: int, K: int = 2, norm: float = 1.0) -> Sample:
    return Sample({"S": generators(n, K, norm), "dt": torch.linspace(0.5, 1, K)})


OP = declare(
    Op(
        "skew_expm",
        inputs=(T("S", "K n n", given="... n n", at_least_one="row"), T("dt", "K")),
        constants=(),
        outputs=(T("Q", "K n n"),),
        saved=Saved((T("saved", "K L n n"),), saved_sizes),
        saved_by_triton=Saved(SAVED_BY_TRITON, saved_sizes_of_triton),
        reference=skew_expm_reference,
        reference_backward=skew_expm_backward_reference,
        flops=FLOPS,
        serves={"cpu": REAL, "cuda": (torch.float32,), "triton": (torch.float32,)},
        sample=_sample,
        samples=("K", "generators"),
        route_sizes=(17, 150),
    )
)
_functions = differentiable(OP)
