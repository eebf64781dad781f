"""field_flow: contract, fakes and autograd. h moved along the field v for a time dt, matrix-free (model.md 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from vfrnn_kernels.autocast import in_float32
from vfrnn_kernels.autograd import differentiable
from vfrnn_kernels.checks import as_scalar_tensor, check_mesh, check_positive_int, check_rank, check_shape, check_tensor
from vfrnn_kernels.dispatch import select_backend
from vfrnn_kernels.field_flow.reference import field_flow_backward_reference, field_flow_reference


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
        order: degree of p.
        substeps: k. None plans it from an upper bound on |dt| ||S||: on a GPU the Triton kernels do so on the device,
            and the reference, which would have to wait for it, refuses. A number that is certainly too small is an
            error on the CPU.
        backend: "cpu", "triton" (n up to 1024), "reference" or None (the first that serves the call).

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
    check_tensor("h", h)
    check_rank("h", h, "(B, n)", 2)
    check_tensor("b", b, h, "h")
    check_mesh(b, w, N, G)
    B, n, (m, d) = h.shape[0], b.shape[0], G.shape[:2]
    check_shape("h", h, "(B, n)", (B, n), n=n)
    check_tensor("v", v, h, "h")
    if v.dim() == 2:
        check_shape("v", v, "(m, d) or (B, m, d)", (m, d), B=B, m=m, d=d)
        v = v.unsqueeze(0)
    else:
        check_shape("v", v, "(m, d) or (B, m, d)", (B, m, d), B=B, m=m, d=d)
    dt = as_scalar_tensor("dt", dt, h)
    if isinstance(divergence_scale, Tensor) and divergence_scale.shape == (1,):
        divergence_scale = divergence_scale.reshape(())
    divergence_scale = as_scalar_tensor("divergence_scale", divergence_scale, h)
    check_positive_int("order", order)
    if substeps is not None:
        check_positive_int("substeps", substeps)
    function = _functions[select_backend("field_flow", backend, (h,), n=n)]
    return function(h, v, b, w, N, G, dt, divergence_scale, bool(volume_preserving), order, substeps or 0)[0]


def _fake(h: Tensor, *args: object) -> tuple[Tensor, Tensor]:
    return h.new_empty(h.shape), h.new_empty(())  # h' and the number of substeps


def _triton_fake(h: Tensor, *args: object) -> tuple[Tensor, Tensor]:
    return h.new_empty(h.shape), h.new_empty(1, dtype=torch.int32)


_functions = differentiable(
    "field_flow",
    arguments="Tensor h, Tensor v, Tensor b, Tensor w, Tensor N, Tensor G, "
    "Tensor dt, Tensor divergence_scale, bool volume_preserving, int order, int substeps",
    reference=field_flow_reference,
    reference_backward=field_flow_backward_reference,
    fake=_fake,
    inputs=8,
    outputs=1,
    saved=1,
    triton_saved=1,
    triton_fake=_triton_fake,
)
