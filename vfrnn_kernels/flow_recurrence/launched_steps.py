"""flow_recurrence from the kernels of field_flow, a launch for every step: the route on a GPU.

What does not depend on the state is done for all steps together: U x_t + c and v + V x_t before, and the gradients of
x, U, c, v, V and beta after. Memory grows with T by a row of states and a row of fields. Where substeps are planned,
every step plans its own.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from vfrnn_kernels.activations import activate, grad_z_of
from vfrnn_kernels.field_flow.op import OP as FIELD_FLOW

#: field_flow and its backward, by keyword.
Flow = Callable[..., tuple[Tensor, ...]]
FlowBackward = Callable[..., dict[str, Tensor]]
#: What all steps give to field_flow as it is.
SHARED = ("b", "w", "N", "G", "dt", "divergence_scale")
#: Of the series, where none is asked for.
ORDER: int = signature(FIELD_FLOW.function).parameters["order"].default


def forward(
    flow: Flow,
    *,
    x: Tensor,
    U: Tensor,
    c: Tensor | None,
    v: Tensor,
    V: Tensor,
    h0: Tensor,
    beta: Tensor | None,
    activation: str,
    order: int,
    **of_all_steps: Any,
) -> tuple[Tensor, Tensor]:
    """hs (T, B, n), and the library's second result, which is not used here."""
    rows = x.flatten(0, 1)
    hs = (rows @ U.mT if c is None else torch.addmm(c, rows, U.mT)).unflatten(0, x.shape[:2])
    h = h0
    for h_t, v_t in zip(hs, _fields(x, v, V), strict=True):
        moved = flow(h=h, v=v_t, order=order or ORDER, **of_all_steps)[0]
        h = h_t.copy_(activate(moved + h_t, beta, activation))
    return hs, hs.new_zeros(2)


def backward(
    flow: Flow,
    flow_backward: FlowBackward,
    *,
    grad_hs: Tensor,
    x: Tensor,
    U: Tensor,
    c: Tensor | None,
    v: Tensor,
    V: Tensor,
    h0: Tensor,
    beta: Tensor | None,
    hs: Tensor,
    taken: Tensor,
    activation: str,
    order: int,
    wanted: frozenset[str],
    **of_all_steps: Any,
) -> dict[str, Tensor]:
    """The gradients that are wanted, by name."""
    field_wanted = bool(wanted & {"x", "v", "V"})
    # of field_flow: h always
    flow_wanted = {"h"} | ({"v"} if field_wanted else set()) | wanted.intersection(SHARED)
    fields, grads_z = _fields(x, v, V), torch.empty_like(hs)
    sums = {name: torch.zeros_like(of_all_steps[name]) for name in SHARED if name in wanted}
    carried = torch.zeros_like(h0)
    for t in reversed(range(hs.shape[0])):
        step = {"h": hs[t - 1] if t else h0, "v": fields[t], "order": order or ORDER, **of_all_steps}
        grad_z = grads_z[t].copy_(grad_z_of(grad_hs[t] + carried, hs[t], activation))
        moved, count = flow(**step)
        found = flow_backward(grad_moved=grad_z, **step, moved=moved, taken=count, wanted=frozenset(flow_wanted))
        carried = found["h"]
        if field_wanted:
            fields[t] = found["v"]  # the field itself is not needed any more
        for name, total in sums.items():
            total += found[name]
    rows, inputs, grad_fields = grads_z.flatten(0, 1), x.flatten(0, 1), fields.flatten(2).flatten(0, 1)
    gradients: dict[str, Callable[[], Tensor]] = {
        "x": lambda: (rows @ U + grad_fields @ V.flatten(0, 1)).view_as(x),
        "U": lambda: rows.mT @ inputs,
        "c": lambda: rows.sum(0),
        "v": lambda: grad_fields.sum(0).view_as(v),
        "V": lambda: (grad_fields.mT @ inputs).view_as(V),
        "h0": lambda: carried,
        "beta": lambda: (hs.sign() * grads_z).sum((0, 1)),
    }
    return sums | {name: of() for name, of in gradients.items() if name in wanted}


class OnCuda:
    """The op on the CUDA kernels of field_flow."""

    @staticmethod
    def flow_recurrence(**named: Any) -> tuple[Tensor, Tensor]:
        return forward(torch.ops.vfrnn_kernels.field_flow, **named)

    @staticmethod
    def flow_recurrence_backward(**named: Any) -> dict[str, Tensor]:
        return backward(torch.ops.vfrnn_kernels.field_flow, _field_flow_backward, **named)


def _field_flow_backward(*, wanted: frozenset[str], **named: Any) -> dict[str, Tensor]:
    needs = FIELD_FLOW.needs([name in wanted for name in FIELD_FLOW.input_names])
    found = torch.ops.vfrnn_kernels.field_flow_backward(**named, needs=needs)
    return dict(zip(FIELD_FLOW.input_names, found, strict=True))


def _fields(x: Tensor, v: Tensor, V: Tensor) -> Tensor:
    """v + V x_t of all steps and samples, (T, B, m, d)."""
    fields = torch.addmm(v.flatten(), x.flatten(0, 1), V.flatten(0, 1).mT)
    return fields.view(*x.shape[:2], *v.shape)
