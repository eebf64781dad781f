"""flow_recurrence in plain PyTorch, a loop of field_flow: the definition of right. Equations: README.md beside this
file."""

from __future__ import annotations

import torch
from torch import Tensor

from vfrnn_kernels.field_flow.reference import computed, field_flow_backward_reference, field_flow_reference
from vfrnn_kernels.field_flow.reference_plan import ORDER
from vfrnn_kernels.flow_recurrence.reference_plan import planned_series
from vfrnn_kernels.recurrence.reference import activate, multiply_by_derivative, stack
from vfrnn_kernels.reference_values import check_mesh_values


def flow_recurrence_reference(
    x: Tensor,
    U: Tensor,
    c: Tensor | None,
    v: Tensor,
    V: Tensor,
    b: Tensor,
    w: Tensor,
    N: Tensor,
    G: Tensor,
    h0: Tensor,
    beta: Tensor | None,
    dt: Tensor,
    divergence_scale: Tensor,
    activation: str,
    volume_preserving: bool,
    order: int,
    substeps: int,
) -> tuple[Tensor]:
    """The states hs (T, B, n) of the inputs x (T, B, i), as a tuple of one; substeps 0, and order 0 too: planned."""
    dtype = h0.dtype
    x, U, v, V, b, w, N, G, h0, dt, divergence_scale = computed(x, U, v, V, b, w, N, G, h0, dt, divergence_scale)
    c, beta = (None if t is None else t.to(h0.dtype) for t in (c, beta))
    fields = _fields(x, v, V)
    check_mesh_values(b, w, fields)
    order, k = (order or ORDER, substeps) if substeps else planned_series(x, v, V, b, w, N, G, dt, order)
    h, hs = h0, []
    for x_t, v_t in zip(x.unbind(0), fields.unbind(0), strict=True):
        moved = field_flow_reference(h, v_t, b, w, N, G, dt, divergence_scale, volume_preserving, order, k)[0]
        z = moved + x_t @ U.mT
        h = activate(z if c is None else z + c, beta, activation)
        hs.append(h)
    return (stack(hs, h0).to(dtype),)


def _fields(x: Tensor, v: Tensor, V: Tensor) -> Tensor:
    return v + torch.einsum("tbi,cdi->tbcd", x, V)


def flow_recurrence_backward_reference(
    grad_hs: Tensor,
    x: Tensor,
    U: Tensor,
    c: Tensor | None,
    v: Tensor,
    V: Tensor,
    b: Tensor,
    w: Tensor,
    N: Tensor,
    G: Tensor,
    h0: Tensor,
    beta: Tensor | None,
    dt: Tensor,
    divergence_scale: Tensor,
    hs: Tensor,
    activation: str,
    volume_preserving: bool,
    order: int,
    substeps: int,
) -> tuple[Tensor | None, ...]:
    """Gradients of x, U, c, v, V, b, w, N, G, h0, beta, dt, divergence_scale by the rules of README.md."""
    dtype = h0.dtype
    grad_hs, x, U, v, V, b, w, N, G, h0, dt, divergence_scale, hs = computed(
        grad_hs, x, U, v, V, b, w, N, G, h0, dt, divergence_scale, hs
    )
    fields = _fields(x, v, V)
    order, k = (order or ORDER, substeps) if substeps else planned_series(x, v, V, b, w, N, G, dt, order)
    previous = torch.cat([h0.unsqueeze(0), hs])[:-1]
    carried, grads_z, grads_v = torch.zeros_like(h0), [], []
    sums = [torch.zeros_like(t) for t in (b, w, N, G, dt, divergence_scale)]
    for t in reversed(range(x.shape[0])):
        grad_z = multiply_by_derivative(grad_hs[t] + carried, hs[t], activation)
        carried, grad_v, *terms = field_flow_backward_reference(
            grad_z, previous[t], fields[t], b, w, N, G, dt, divergence_scale, hs[t], volume_preserving, order, k
        )
        sums = [total + term for total, term in zip(sums, terms, strict=True)]
        grads_z.append(grad_z)
        grads_v.append(grad_v)
    grad_z, grad_fields = stack(grads_z[::-1], h0), stack(grads_v[::-1], fields.new_zeros(fields.shape[1:]))
    gradients = (
        grad_z @ U + torch.einsum("tbcd,cdi->tbi", grad_fields, V),
        torch.einsum("tbj,tbi->ji", grad_z, x),
        None if c is None else grad_z.sum((0, 1)),
        grad_fields.sum((0, 1)),
        torch.einsum("tbcd,tbi->cdi", grad_fields, x),
        *sums[:4],
        carried,
        None if beta is None else (hs.sign() * grad_z).sum((0, 1)),
        *sums[4:],
    )
    return tuple(None if gradient is None else gradient.to(dtype) for gradient in gradients)
