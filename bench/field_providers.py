"""Who computes the ops of fields: ours, and the same formulas in PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from vfrnn_bench.providers import Provider, Providers, Results, differentiated, our_backends, title
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


def _mesh_function(w: Mesh) -> Callable[..., Any]:
    return _generator if w.B == 0 else functools.partial(_flow, dt=w.dt, order=w.order)


def mesh_providers(w: Mesh, device: torch.device) -> Providers:
    """The field ops and the same formulas in PyTorch, eager and compiled; one substep, which they do not check."""
    tensors, grads = _mesh_inputs(w, device, torch.float32)
    name, op = ("vfrnn.field_generator", field_generator) if w.B == 0 else ("vfrnn.field_flow", field_flow)
    constants = {} if w.B == 0 else {"dt": w.dt, "order": w.order, "substeps": 1}
    backends = our_backends(op.__name__, device)
    peer = _mesh_function(w)

    def made(function: Callable[..., Any]) -> Provider:
        return differentiated(function, tensors, w.learned, grads)

    found: Providers = {}
    for backend in backends:
        ours = functools.partial(op, backend=backend, **constants)
        found[title(name, backend, backends)] = functools.partial(made, ours)
    found["eager"] = lambda: made(peer)
    found["compiled"] = lambda: made(torch.compile(peer, dynamic=False))
    return found


def mesh_exact(w: Mesh, device: torch.device) -> Results:
    tensors, grads = _mesh_inputs(w, device, torch.float64)
    return differentiated(_mesh_function(w), tensors, w.learned, grads).results()


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


def input_field_providers(w: InputField, device: torch.device) -> Providers:
    """A tanh layer along fields that read the input, and the same formulas in a Python loop of eager PyTorch."""
    tensors, grads = _mesh_inputs(w, device, torch.float32)

    def ours(backend: str) -> Provider:
        op = functools.partial(flow_recurrence, dt=w.dt, order=w.order, substeps=1, backend=backend)
        return differentiated(op, tensors, w.learned, grads)

    backends = our_backends("flow_recurrence", device)
    found: Providers = {title("vfrnn.flow_recurrence", b, backends): functools.partial(ours, b) for b in backends}
    loop = functools.partial(_flow_loop, dt=w.dt, order=w.order)
    found["eager loop"] = lambda: differentiated(loop, tensors, w.learned, grads)
    return found


def input_field_exact(w: InputField, device: torch.device) -> Results:
    tensors, grads = _mesh_inputs(w, device, torch.float64)
    loop = functools.partial(_flow_loop, dt=w.dt, order=w.order)
    return differentiated(loop, tensors, w.learned, grads).results()


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


def irregular_providers(w: Irregular, device: torch.device) -> Providers:
    """A tanh layer with a time for every step and sample, and a Python loop over torch.matrix_exp."""
    tensors, grads = _mesh_inputs(w, device, torch.float32)

    def ours(backend: str) -> Provider:
        return differentiated(functools.partial(spectral_recurrence, backend=backend), tensors, w.learned, grads)

    backends = our_backends("spectral_recurrence", device)
    found: Providers = {title("vfrnn.spectral_recurrence", b, backends): functools.partial(ours, b) for b in backends}
    found["eager loop"] = lambda: differentiated(_exponential_loop, tensors, w.learned, grads)
    return found


def irregular_exact(w: Irregular, device: torch.device) -> Results:
    tensors, grads = _mesh_inputs(w, device, torch.float64)
    return differentiated(_exponential_loop, tensors, w.learned, grads).results()


def _mesh_inputs(
    w: Mesh | InputField | Irregular, device: torch.device, dtype: torch.dtype
) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    tensors, grads = w.inputs()
    return {k: t.to(device, dtype) for k, t in tensors.items()}, tuple(t.to(device, dtype) for t in grads)
