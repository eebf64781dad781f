"""field_generator: contract, fakes and autograd. (b, w, N, G, v) -> generator S and divergence delta (model.md 2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from vfrnn_kernels.autocast import in_float32
from vfrnn_kernels.autograd import differentiable
from vfrnn_kernels.checks import as_batch, check_mesh, from_batch
from vfrnn_kernels.declaration import REAL, Op, Sample, T, declare
from vfrnn_kernels.dispatch import select_backend
from vfrnn_kernels.field_generator.flops import FLOPS
from vfrnn_kernels.field_generator.reference import field_generator_backward_reference, field_generator_reference


def field_generator(
    b: Tensor, w: Tensor, N: Tensor | None, G: Tensor | None, v: Tensor, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    r"""Skew-symmetric generator and divergence of a vector field on a latent mesh.

    .. math:: S = B^{-1/2} \tfrac12 (H - H^T) B^{-1/2}, \quad H = N^T W [v] G, \quad \delta = -B^{-1} G^T W v

    Args:
        b: (n,), positive: inner product of functions.
        w: (m,), positive: inner product of fields.
        N: (m, n), rows sum to 1: average from nodes to cells. None, with G None, is the complete mesh: one cell for
            every pair i < j in the order of ``torch.triu_indices``, m = n (n - 1) / 2, d = 1.
        G: (m, d, n): gradient, `G 1 = 0`.
        v: (..., m, d): one field or a batch of fields.
        backend: "cpu", "cuda", "triton", "reference" or None (the first that serves the call).

    Returns:
        S (..., n, n), exactly skew-symmetric, and delta (..., n), both of the dtype of v.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device or shape.
        RuntimeError: the backend cannot serve the call; on the CPU also: b or w is not positive, v is not finite.

    Source: Azencot et al. 2021 (arXiv 2102.09589); the discrete form is this project's.

    Example:
        >>> import torch
        >>> b, w, v = torch.ones(3), 2 * torch.ones(3), torch.tensor([[1.0], [2.0], [3.0]])
        >>> field_generator(b, w, None, None, v)[0].tolist()
        [[0.0, 1.0, 2.0], [-1.0, 0.0, 3.0], [-2.0, -3.0, 0.0]]
    """
    b, w, N, G, v = in_float32(b, w, N, G, v)
    check_mesh(b, w, N, G)
    m, d = w.shape[0], 1 if G is None else G.shape[1]
    OP.check({"m": m, "d": d}, b=b, v=v)
    function = _functions[select_backend("field_generator", backend, (v,))]
    batch = v.shape[:-2]
    S, delta = function(b, w, N, G, as_batch(v, batch, m, d))
    return from_batch(S, batch), from_batch(delta, batch)


def random_mesh(n: int, m: int, d: int) -> dict[str, Tensor]:
    """A dense mesh in float32 with varying weights; rows of N sum to 1, and G 1 = 0."""
    N, G = torch.rand(m, n) + 0.1, torch.randn(m, d, n)
    return {
        "b": torch.rand(n) + 0.5,
        "w": torch.rand(m) + 0.5,
        "N": N / N.sum(-1, keepdim=True),
        "G": G - G.mean(-1, keepdim=True),
    }


def _sample(n: int, K: int = 2, m: int = 9, d: int = 2, complete: bool = False, mesh_learned: bool = True) -> Sample:
    mesh: dict[str, Any] = random_mesh(n, m, d)
    if complete:
        m, d = n * (n - 1) // 2, 1
        mesh |= {"w": torch.rand(m) + 0.5, "N": None, "G": None}
    return Sample(mesh | {"v": torch.randn(K, m, d)}, None if mesh_learned else ("v",))


def _variations(n: int, dtypes: Sequence[torch.dtype]) -> Iterator[dict[str, Any]]:
    yield {"K": 1, "complete": True}
    for mesh_learned in (True, False):
        yield {"K": 1, "m": n, "mesh_learned": mesh_learned}


OP = declare(
    Op(
        "field_generator",
        inputs=(
            T("b", "n", at_least_one="node"),
            T("w", "m"),
            T("N", "m n", optional=True),
            T("G", "m d n", optional=True),
            T("v", "K m d", given="... m d"),
        ),
        constants=(),
        outputs=(T("S", "K n n"), T("delta", "K n")),
        reference=field_generator_reference,
        reference_backward=field_generator_backward_reference,
        flops=FLOPS,
        serves={"cpu": REAL, "cuda": (torch.float32,), "triton": (torch.float32,)},
        sample=_sample,
        samples=("K",),
        variations=_variations,
    )
)
_functions = differentiable(OP)
