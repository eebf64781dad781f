"""flow_recurrence from the kernels of field_flow, a launch for every step: the route on a GPU.

What does not depend on the state is done for all steps together: U x_t + c and v + V x_t before, and the gradients of
x, U, c, v, V and beta after. Memory grows with T by a row of states and a row of fields. Where substeps are planned,
every step plans its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vfrnn_kernels.recurrence.reference import activate, multiply_by_derivative

Flow = Callable[..., tuple[Any, ...]]
#: Where field_flow's tensors after h and v, which are b, w, N, G, dt and divergence_scale, are among those of this op.
SHARED = (5, 6, 7, 8, 11, 12)


def forward(flow: Flow, *args: Any) -> tuple[Tensor, Tensor]:
    """hs (T, B, n), and the library's second result, which is not used here."""
    tensors, (activation, *constants) = args[:13], args[13:]
    x, U, c, h, beta = (tensors[k] for k in (0, 1, 2, 9, 10))
    fields = _fields(*tensors)
    rows = x.flatten(0, 1)
    hs = (rows @ U.mT if c is None else torch.addmm(c, rows, U.mT)).unflatten(0, x.shape[:2])
    for h_t, v_t in zip(hs, fields, strict=True):
        moved = flow(h, v_t, *(tensors[k] for k in SHARED), *constants)[0]
        h = h_t.copy_(activate(moved + h_t, beta, activation))
    return hs, hs.new_zeros(())


def backward(flow: Flow, flow_backward: Flow, grad_hs: Tensor, *args: Any) -> tuple[Tensor | None, ...]:
    """Gradients of the 13 tensors; those that `needs` does not ask for may be None."""
    tensors, (hs, _, activation, *constants, needs) = args[:13], args[13:]
    x, U, c, v, V, h0, beta = (tensors[k] for k in (0, 1, 2, 3, 4, 9, 10))
    shared = [tensors[k] for k in SHARED]
    asked = [needs >> k & 1 for k in range(13)]
    # of field_flow: h always, its field for x, v and V
    flow_needs = 1 | (asked[0] | asked[3] | asked[4]) << 1 | sum(asked[k] << 2 + j for j, k in enumerate(SHARED))
    fields, deltas = _fields(*tensors), torch.empty_like(hs)
    sums: list[Tensor | None] = [torch.zeros_like(t) if asked[k] else None for k, t in zip(SHARED, shared, strict=True)]
    carried = torch.zeros_like(h0)
    for t in reversed(range(hs.shape[0])):
        before = hs[t - 1] if t else h0
        delta = deltas[t].copy_(multiply_by_derivative(grad_hs[t] + carried, hs[t], activation))
        results = flow(before, fields[t], *shared, *constants)
        gradients = flow_backward(delta, before, fields[t], *shared, *results, *constants, flow_needs)
        carried = gradients[0]
        if flow_needs >> 1 & 1:
            fields[t] = gradients[1]  # the field itself is not needed any more
        for total, part in zip(sums, gradients[2:], strict=True):
            if total is not None:
                total += part
    rows, inputs, grad_fields = deltas.flatten(0, 1), x.flatten(0, 1), fields.flatten(2).flatten(0, 1)
    found: dict[int, Tensor | None] = dict(zip(SHARED, sums, strict=True)) | {9: carried}
    if asked[0]:
        found[0] = (rows @ U + grad_fields @ V.flatten(0, 1)).view_as(x)
    if asked[1]:
        found[1] = rows.mT @ inputs
    if asked[2] and c is not None:
        found[2] = rows.sum(0)
    if asked[3]:
        found[3] = grad_fields.sum(0).view_as(v)
    if asked[4]:
        found[4] = (grad_fields.mT @ inputs).view_as(V)
    if asked[10] and beta is not None:
        found[10] = (hs.sign() * deltas).sum((0, 1))
    return tuple(found.get(k) for k in range(13))


class OnCuda:
    """The op on the CUDA kernels of field_flow."""

    @staticmethod
    def flow_recurrence(*args: Any) -> tuple[Tensor, Tensor]:
        return forward(torch.ops.vfrnn_kernels.field_flow, *args)

    @staticmethod
    def flow_recurrence_backward(*args: Any) -> tuple[Tensor | None, ...]:
        library = torch.ops.vfrnn_kernels
        return backward(library.field_flow, library.field_flow_backward, *args)


def _fields(*tensors: Tensor) -> Tensor:
    """v + V x_t of all steps and samples, (T, B, m, d)."""
    x, v, V = tensors[0], tensors[3], tensors[4]
    fields = torch.addmm(v.flatten(), x.flatten(0, 1), V.flatten(0, 1).mT)
    return fields.view(*x.shape[:2], *v.shape)
