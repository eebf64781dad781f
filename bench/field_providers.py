"""Who computes the ops of fields: ours, and the same formulas in PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from vfrnn_bench.providers import STEP, Provider, Providers, Results, Setting, differentiated, ours
from vfrnn_bench.workloads import InputField, Irregular, Mesh

from vfrnn_kernels import field_flow, field_generator, flow_recurrence, spectral_recurrence


def _generator(b: Tensor, w: Tensor, N: Tensor, G: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    flux = torch.bmm((w[:, None] * v).unsqueeze(1), G).squeeze(1)
    H = N.mT @ flux
    r = b.rsqrt()
    return (H - H.mT) * (0.5 * r[:, None] * r), -flux.sum(0) / b


def _flow(h: Tensor, v: Tensor, b: Tensor, w: Tensor, N: Tensor, G: Tensor, dt: float, order: int) -> Tensor:
    """Two GEMMs a term: the gradient and the average stacked into one matrix."""
    m, d, n = G.shape
    r = b.rsqrt()
    stacked, wv = torch.cat([(G * r).reshape(m * d, n), N * r]), w[:, None] * v
    e = torch.exp(dt / 4 * (wv.flatten(1) @ G.reshape(m * d, n)) / b)
    u = e * h
    y = u
    for j in range(order - 1, -1, -1):
        z = y @ stacked.mT
        g, a = z[:, : m * d].unflatten(1, (m, d)), z[:, m * d :]
        p, q = (wv * g).sum(-1), (a.unsqueeze(-1) * wv).flatten(1)
        y = u + dt / (2 * (j + 1)) * (torch.cat([-q, p], 1) @ stacked)
    return e * y


def _flow_loop(
    x: Tensor, U: Tensor, c: Tensor, v: Tensor, V: Tensor, b: Tensor, w: Tensor, N: Tensor, G: Tensor, **constants: Any
) -> Tensor:
    """field_flow's formulas in a Python loop; the products with the input hoisted."""
    fields = (v.flatten() + x @ V.flatten(0, 1).mT).unflatten(-1, v.shape)
    z = nn.functional.linear(x, U, c).unbind(0)
    h, hs = torch.zeros_like(z[0]), []
    for z_t, v_t in zip(z, fields.unbind(0), strict=True):
        h = torch.tanh(_flow(h, v_t, b, w, N, G, **constants) + z_t)
        hs.append(h)
    return torch.stack(hs)


def _exponential_loop(x: Tensor, U: Tensor, c: Tensor, S: Tensor, delta: Tensor, dt: Tensor) -> Tensor:
    """A matrix exponential for every step and sample, those of a step in one batch; the input's product hoisted."""
    S = (S - S.mT) / 2
    z = nn.functional.linear(x, U, c).unbind(0)
    h, hs = torch.zeros_like(z[0]), []
    for z_t, times in zip(z, dt.unbind(0), strict=True):
        e = torch.exp(times[:, None] * delta / -4)
        Q = torch.matrix_exp(times[:, None, None] * S)
        h = torch.tanh(e * (Q @ (e * h).unsqueeze(-1)).squeeze(-1) + z_t)
        hs.append(h)
    return torch.stack(hs)


# ---- each workload, with what computes it ----------------------------------------------------------------------------

Field = Mesh | InputField | Irregular


def eager_function(w: Field) -> Callable[..., Any]:
    """The workload's formulas in PyTorch."""
    if isinstance(w, Irregular):
        return _exponential_loop
    if isinstance(w, InputField):
        return functools.partial(_flow_loop, dt=w.dt, order=w.order)
    return _generator if w.B == 0 else functools.partial(_flow, dt=w.dt, order=w.order)


def our_function(w: Field) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Our op and its constants; one substep, which the formulas do not check."""
    if isinstance(w, Irregular):
        return spectral_recurrence, {}
    if isinstance(w, Mesh) and w.B == 0:
        return field_generator, {}
    return flow_recurrence if isinstance(w, InputField) else field_flow, {"dt": w.dt, "order": w.order, "substeps": 1}


def field_providers(w: Field, on: Setting) -> Providers:
    """Our op and the same formulas in PyTorch: of a mesh eager and compiled, of a sequence in an eager Python loop."""
    tensors, grads = ({name: on.place(t) for name, t in given.items()} for given in w.inputs())
    op, constants = our_function(w)
    eager = eager_function(w)

    def made(function: Callable[..., Any]) -> Provider:
        return differentiated(function, tensors, w.learned, grads, on.limit)

    name = op.__name__
    found = ours(f"vfrnn.{name}", name, on, lambda b: made(functools.partial(op, backend=b, **constants)))
    found["eager" if isinstance(w, Mesh) else "eager loop"] = lambda: made(eager)
    if isinstance(w, Mesh):
        found["compiled"] = lambda: made(torch.compile(eager, dynamic=False))
    return found


def field_exact(w: Field, on: Setting) -> Results:
    tensors, grads = ({name: on.exact(t) for name, t in given.items()} for given in w.inputs())
    return differentiated(eager_function(w), tensors, w.learned, grads, 0.0).runs[STEP]()
