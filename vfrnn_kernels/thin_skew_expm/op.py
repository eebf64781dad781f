"""thin_skew_expm: contract, fakes and autograd. S, dt -> Y, a frame: the first columns of a rotation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vfrnn_kernels.autocast import in_float32
from vfrnn_kernels.autograd import differentiable
from vfrnn_kernels.checks import as_batch, check_entries, from_batch
from vfrnn_kernels.declaration import REAL, Op, Sample, Saved, Sizes, T, declare
from vfrnn_kernels.dispatch import select_backend
from vfrnn_kernels.skew_expm.op import as_times, generators, saved_sizes
from vfrnn_kernels.thin_skew_expm import composed
from vfrnn_kernels.thin_skew_expm.flops import FLOPS
from vfrnn_kernels.thin_skew_expm.reference import thin_skew_expm_backward_reference, thin_skew_expm_reference


def thin_skew_expm(S: Tensor, dt: float | Tensor = 1.0, *, backend: str | None = None) -> Tensor:
    r"""First k columns of a rotation whose generator has only k: a frame, at the cost of products n x k.

    .. math:: Y = \exp\left(dt \begin{pmatrix} A & -B^T \\ B & 0 \end{pmatrix}\right)
        \begin{pmatrix} I_k \\ 0 \end{pmatrix}, \qquad S = \begin{pmatrix} A \\ B \end{pmatrix}, \quad A^T = -A

    Args:
        S: (..., n, k), n >= k >= 1. Its first k rows are skew-symmetric up to rounding (their skew part is used).
        dt: a number, or a tensor that broadcasts with the batch shape of S: one S (n, k) at many times (T,) gives
            (T, n, k). Of any sign.
        backend: "cpu", "cuda", "triton", "reference" or None (the first that serves the call).

    Returns:
        Y (..., n, k), of the batch shape that S and dt broadcast to, Y^T Y = I to rounding. Its gradient with respect
        to the first k rows of S is skew-symmetric. Nothing of size n x n is made, but by the reference backend, which
        second derivatives differentiate: they are right, but not optimised.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device or shape.
        RuntimeError: the backend cannot serve the call; on the CPU also: S is not finite, its first k rows are not
            skew-symmetric, or dt S has a norm of more than about a million. Other devices return NaN instead.

    Source: such a generator has rank 2 k (Celledoni, Iserles 2001, doi 10.1093/imanum/21.2.463); the factorization
    is shifted Cholesky QR (Fukaya and others 2020, doi 10.1137/18M1218212).

    Example:
        >>> import math, torch
        >>> S = torch.tensor([[0.0], [math.pi / 6], [0.0], [0.0]])
        >>> [round(y, 4) for y in thin_skew_expm(S)[:, 0].tolist()]
        [0.866, 0.5, 0.0, 0.0]
    """
    S, dt = in_float32(S, dt)
    sizes = OP.check(S=S)
    n, k = sizes["n"], sizes["k"]
    if not 1 <= k <= n:
        raise ValueError(f"S must have at least one column and no more columns than rows, got shape {tuple(S.shape)}")
    dt = as_times("dt", dt, S)
    batch = torch.broadcast_shapes(S.shape[:-2], dt.shape) if dt.dim() else S.shape[:-2]
    check_entries("S and dt", *batch, n, k)
    function = _functions[select_backend("thin_skew_expm", backend, (S,))]
    return from_batch(function(as_batch(S, batch, n, k), as_batch(dt, batch))[0], batch)


def _saved_sizes(sizes: Sizes, arguments: Sequence[Any]) -> Sizes:
    """q, r: rows of Q and R; N, L: of the whole exponential and of how many such matrices it keeps for its backward."""
    n, k = sizes["n"], sizes["k"]
    compressed = composed.is_compressed(n, k)
    found = {"q": n - k, "r": k, "N": 0} if compressed else {"q": 0, "r": 0, "N": n}
    return found | saved_sizes(sizes, arguments) | {"generators": sizes["K"]}


_FACTORS = (T("Q", "K q k"), T("R", "K r k"), T("rotation", "K N N"))
_SAVED_BY_TRITON = (T("matrices", "generators 9 N N"), T("squarings", "generators", like=torch.int32))


def _sample(n: int, K: int = 2, norm: float = 1.0, k: int | None = None) -> Sample:
    columns = max(1, n // 4) if k is None else k
    return Sample({"S": generators(n, K, norm)[..., :columns].clone(), "dt": torch.linspace(0.5, 1, K)})


OP = declare(
    Op(
        "thin_skew_expm",
        inputs=(T("S", "K n k", given="... n k", at_least_one="row"), T("dt", "K")),
        constants=(),
        outputs=(T("Y", "K n k"),),
        saved=Saved((*_FACTORS, T("saved", "K L N N")), _saved_sizes),
        saved_by_triton=Saved((*_FACTORS, *_SAVED_BY_TRITON), _saved_sizes),
        reference=thin_skew_expm_reference,
        reference_backward=thin_skew_expm_backward_reference,
        flops=FLOPS,
        serves={"cpu": REAL, "cuda": (torch.float32,), "triton": (torch.float32,)},
        sample=_sample,
        variations=lambda n, dtypes: iter([{"K": 1}, {"K": 1, "k": n}]),
        route_sizes=(17, 150),
        composed=composed,
        capturable=False,  # the framework's Cholesky factorization may ask for the host
    )
)
_functions = differentiable(OP)
