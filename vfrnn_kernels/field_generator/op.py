"""field_generator: contract, fakes and autograd. (b, w, N, G, v) -> generator S and divergence delta (model.md 2)."""

from __future__ import annotations

from torch import Tensor

from vfrnn_kernels.autocast import in_float32
from vfrnn_kernels.autograd import differentiable
from vfrnn_kernels.checks import as_batch, check_mesh, check_rank, check_shape, check_tensor, from_batch
from vfrnn_kernels.dispatch import select_backend
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
    check_tensor("v", v, b, "b")
    m, d = w.shape[0], 1 if G is None else G.shape[1]
    check_rank("v", v, "(..., m, d)", 2, batched=True)
    check_shape("v", v, "(..., m, d)", (*v.shape[:-2], m, d), m=m, d=d)
    function = _functions[select_backend("field_generator", backend, (v,))]
    batch = v.shape[:-2]
    S, delta = function(b, w, N, G, as_batch(v, batch, m, d))
    return from_batch(S, batch), from_batch(delta, batch)


def _fake(b: Tensor, w: Tensor, N: Tensor | None, G: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
    K, n = v.shape[0], b.shape[0]
    return v.new_empty(K, n, n), v.new_empty(K, n)


_functions = differentiable(
    "field_generator",
    arguments="Tensor b, Tensor w, Tensor? N, Tensor? G, Tensor v",
    reference=field_generator_reference,
    reference_backward=field_generator_backward_reference,
    fake=_fake,
    inputs=5,
    outputs=2,
)
