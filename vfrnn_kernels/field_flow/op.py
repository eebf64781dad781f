"""field_flow: contract, fakes and autograd. h moved along the field v for a time dt, matrix-free (model.md 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from vfrnn_kernels.autocast import in_float32
from vfrnn_kernels.autograd import differentiable
from vfrnn_kernels.checks import as_scalar_tensor, check_bool, check_positive_int, check_series
from vfrnn_kernels.declaration import REAL, Constant, Op, Sample, Saved, T, declare
from vfrnn_kernels.dispatch import select_backend
from vfrnn_kernels.field_flow.flops import FLOPS
from vfrnn_kernels.field_flow.reference import field_flow_backward_reference, field_flow_reference
from vfrnn_kernels.field_generator.op import random_mesh


def field_flow(
    h: Tensor,
    v: Tensor,
    b: Tensor,
    w: Tensor,
    N: Tensor,
    G: Tensor,
    dt: float | Tensor = 1.0,
    divergence_scale: float | Tensor = 1.0,
    *,
    volume_preserving: bool = False,
    order: int = 8,
    substeps: int | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Moves a state along a vector field on a latent mesh, without ever forming an n x n matrix.

    .. math::
        h \leftarrow e * p(\tau S)\,(e * h) \text{ repeated } k \text{ times}, \quad
        e = \exp(-\tau \delta / 4), \quad \tau = dt / k,

        S h = B^{-1/2} \tfrac12 \bigl( N^T (w * v \cdot (G \tilde h)) - G^T (w * v * (N \tilde h)) \bigr), \quad
        \tilde h = B^{-1/2} h,

    p the Taylor polynomial of exp, and delta = divergence_scale div v. Within rounding, `M h` of `strang_step`.

    Args:
        h: (B, n), in the symmetric coordinates B^1/2 f.
        v: (m, d), one field for all samples, or (B, m, d), one per sample.
        b: (n,), positive: inner product of functions.
        w: (m,), positive: inner product of fields.
        N: (m, n), rows sum to 1: average from nodes to cells.
        G: (m, d, n): gradient, `G 1 = 0`.
        dt: the time step, a number or a zero-dimensional tensor; may be negative.
        divergence_scale: a number or a tensor of shape () or (1,).
        volume_preserving: removes the mean of delta over the nodes.
        order: degree of p, at most 170.
        substeps: k. None plans it from an upper bound on `|dt| ||S||`: on a GPU the Triton kernels do so on the device,
            and the reference, which would have to wait for it, refuses. A number that is certainly too small is an
            error on the CPU.
        backend: "cpu", "cuda", "triton" (n up to 1024 on a GPU), "reference" or None (the first that serves the call).

    Returns:
        h' (B, n), of the dtype of h.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device or shape.
        RuntimeError: the backend cannot serve the call; on the CPU also: a value is out of range (b, w, v), or substeps
            is too small. Triton's kernels return NaN where no number of substeps can be planned.

    Source: model.md 3, this project's discrete form of Azencot et al. 2021 (arXiv 2102.09589).

    Example:
        >>> import torch
        >>> b, w = torch.ones(2, dtype=torch.float64), 2 * torch.ones(1, dtype=torch.float64)
        >>> N, G = torch.full((1, 2), 0.5, dtype=torch.float64), torch.tensor([[[-1.0, 1.0]]], dtype=torch.float64)
        >>> h, v = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([[torch.pi / 2]], dtype=torch.float64)
        >>> h = field_flow(h, v, b, w, N, G, divergence_scale=0.0)  # a quarter turn
        >>> [[round(x, 6) + 0.0 for x in row] for row in h.tolist()]
        [[0.0, -1.0]]
    """
    h, v, b, w, N, G, dt, divergence_scale = in_float32(h, v, b, w, N, G, dt, divergence_scale)
    if N is None or G is None:
        raise ValueError("N and G must be given: on the complete mesh use strang_step, or pass its dense N and G")
    n = OP.check(like="h", b=b, w=w, G=G, N=N, h=h, v=v)["n"]
    if v.dim() == 2:
        v = v.unsqueeze(0)
    dt = as_scalar_tensor("dt", dt, h)
    if isinstance(divergence_scale, Tensor) and not divergence_scale.is_nested and divergence_scale.shape == (1,):
        divergence_scale = divergence_scale.reshape(())
    divergence_scale = as_scalar_tensor("divergence_scale", divergence_scale, h)
    check_bool("volume_preserving", volume_preserving)
    check_positive_int("order", order)
    check_series(order, substeps)
    function = _functions[select_backend("field_flow", backend, (h,), n=n)]
    return function(h, v, b, w, N, G, dt, divergence_scale, volume_preserving, order, substeps or 0)[0]


def _sample(
    n: int,
    B: int = 3,
    m: int = 9,
    d: int = 2,
    per_sample: bool = False,
    substeps: int | None = 2,
    volume_preserving: bool = False,
    mesh_learned: bool = True,
) -> Sample:
    arguments = {"h": torch.randn(B, n), "v": torch.randn(*([B] if per_sample else []), m, d), **random_mesh(n, m, d)}
    arguments |= {"dt": torch.tensor(0.2 / n), "divergence_scale": torch.tensor(0.7)}
    options = {"volume_preserving": volume_preserving, "substeps": substeps}
    return Sample(arguments | options, None if mesh_learned else ("h", "v"))


def _variations(n: int, dtypes: Sequence[torch.dtype]) -> Iterator[dict[str, Any]]:
    width = max(64, 1 << (n - 1).bit_length())
    # meshes that stay on the chip in both passes, in the forward and in none
    for entries in (4096, 8192, 16384):
        mesh = {"B": 2, "m": entries // width, "substeps": None}
        yield mesh
        for per_sample in (False, True):
            yield mesh | {"per_sample": per_sample, "mesh_learned": False}


#: Largest n of the GPU kernels, which keep all nodes on the chip.
GPU_LARGEST_N = 1024
OP = declare(
    Op(
        "field_flow",
        inputs=(
            T("h", "B n"),
            T("v", "fields m d", given="m d | B m d"),
            T("b", "n", at_least_one="node"),
            T("w", "m"),
            T("N", "m n"),
            T("G", "m d n"),
            T("dt", ""),
            T("divergence_scale", ""),
        ),
        constants=(Constant("volume_preserving", "bool"), Constant("order", "int"), Constant("substeps", "int")),
        outputs=(T("moved", "B n"),),
        saved=Saved((T("taken", ""),)),
        saved_by_triton=Saved((T("taken", "1", like=torch.int32),)),
        reference=field_flow_reference,
        reference_backward=field_flow_backward_reference,
        flops=FLOPS,
        serves={"cpu": REAL, "cuda": (torch.float32,), "triton": (torch.float32,)},
        largest_n={"cuda": GPU_LARGEST_N, "triton": GPU_LARGEST_N},
        sample=_sample,
        variations=_variations,
    )
)
_functions = differentiable(OP)
