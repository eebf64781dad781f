"""field_flow in plain PyTorch: the definition of right. Equations: README.md beside this file."""

from __future__ import annotations

import torch
from torch import Tensor

from vfrnn_kernels.field_flow.reference_plan import check_substeps, planned_substeps
from vfrnn_kernels.reference_values import check_mesh_values, check_scales, values_readable

Mesh = tuple[Tensor, Tensor, Tensor, Tensor]  # v (1 or B, m, d), w (m,), N B^-1/2 (m, n), G B^-1/2 (m, d, n)


def field_flow_reference(
    h: Tensor,
    v: Tensor,
    b: Tensor,
    w: Tensor,
    N: Tensor,
    G: Tensor,
    dt: Tensor,
    divergence_scale: Tensor,
    volume_preserving: bool,
    order: int,
    substeps: int,
) -> tuple[Tensor]:
    """h' (B, n) after k = substeps applications of h <- e * p(tau S) (e * h), tau = dt / k; substeps 0: planned."""
    dtype = h.dtype
    h, v, b, w, N, G, dt, divergence_scale = computed(h, v, b, w, N, G, dt, divergence_scale)
    check_mesh_values(b, w, v)
    given = substeps > 0
    k = substeps if given else planned_substeps(v, b, w, N, G, dt, order)
    tau = dt / k
    delta = divergence_scale * _divergence(v, b, w, G, volume_preserving)
    e = torch.exp(-tau * delta / 4)  # (1 or B, n)
    check_scales(e[: len(h)], delta[: len(h)])  # of no sample nothing is asked
    mesh = _symmetric_mesh(v, b, w, N, G)
    reached = 0.0
    for _ in range(k):
        u = e * h
        y = u
        for j in range(order - 1, -1, -1):
            Sy = _generator(mesh, y)
            if given and values_readable(y):
                reached = max(reached, _growth(tau, Sy, y))
            y = u + tau / (j + 1) * Sy
        h = e * y
    if given:
        check_substeps(reached, order, k, h.dtype)
    return (h.to(dtype),)


def computed(*tensors: Tensor) -> tuple[Tensor, ...]:
    # float16 and bfloat16 are computed in float32 and rounded at the end
    low = tensors[0].dtype in (torch.float16, torch.bfloat16)
    return tuple(t.float() for t in tensors) if low else tensors


def _symmetric_mesh(v: Tensor, b: Tensor, w: Tensor, N: Tensor, G: Tensor) -> Mesh:
    r = b.rsqrt()
    return v, w, N * r, G * r


def _divergence(v: Tensor, b: Tensor, w: Tensor, G: Tensor, volume_preserving: bool) -> Tensor:
    div = -torch.einsum("cdj,c,bcd->bj", G, w, v) / b
    return div - div.mean(-1, keepdim=True) if volume_preserving else div


def _generator(mesh: Mesh, y: Tensor) -> Tensor:
    v, w, N, G = mesh
    a = y @ N.mT  # (B, m)
    g = torch.einsum("cdj,bj->bcd", G, y)
    p = w * (v * g).sum(-1)
    q = (w * a).unsqueeze(-1) * v
    return (p @ N - torch.einsum("bcd,cdj->bj", q, G)) / 2


def _growth(tau: Tensor, Sy: Tensor, y: Tensor) -> float:
    # max over the samples of |tau| ||S y|| / ||y|| <= |tau| ||S||; a state that is 0 or NaN says nothing
    # in float64: squares of small or large states are no numbers of float32
    growth = (tau * Sy.detach()).double().norm(dim=-1) / y.detach().double().norm(dim=-1)
    return max((x for x in growth.tolist() if x == x), default=0.0)


def field_flow_backward_reference(
    grad: Tensor,
    h: Tensor,
    v: Tensor,
    b: Tensor,
    w: Tensor,
    N: Tensor,
    G: Tensor,
    dt: Tensor,
    divergence_scale: Tensor,
    result: Tensor,
    volume_preserving: bool,
    order: int,
    substeps: int,
) -> tuple[Tensor, ...]:
    """Gradients of h, v, b, w, N, G, dt, divergence_scale by the hand-written rules of README.md."""
    dtype = h.dtype
    grad, h, v, b, w, N, G, dt, divergence_scale = computed(grad, h, v, b, w, N, G, dt, divergence_scale)
    k = substeps or planned_substeps(v, b, w, N, G, dt, order)
    tau = dt / k
    div = _divergence(v, b, w, G, volume_preserving)
    delta = divergence_scale * div
    e = torch.exp(-tau * delta / 4)
    mesh = _symmetric_mesh(v, b, w, N, G)

    series = []  # of every substep: its input, and y_order = e h, ..., y_0
    for _ in range(k):
        y = [e * h]
        for j in range(order - 1, -1, -1):
            y.append(y[0] + tau / (j + 1) * _generator(mesh, y[-1]))
        series.append((h, y[::-1]))
        h = e * y[-1]

    # Products over samples and terms; grad_N and grad_G of the scaled N B^-1/2 and G B^-1/2
    grad_v = v.new_zeros(grad.shape[0], *v.shape[1:])
    grad_w, grad_N, grad_G = (torch.zeros_like(t) for t in (w, N, G))
    grad_e, grad_tau = torch.zeros_like(grad), torch.zeros_like(dt)
    for h, y in reversed(series):
        grad_e = grad_e + grad * y[0]
        r = e * grad  # the gradient of y_j
        grad_u = r
        for j in range(order):
            c = tau / (j + 1)
            terms = _generator_gradients(mesh, y[j + 1], c * r)
            grad_v, grad_w, grad_N, grad_G = (
                total + term for total, term in zip((grad_v, grad_w, grad_N, grad_G), terms, strict=True)
            )
            Sr = _generator(mesh, r)
            grad_tau = grad_tau - (Sr * y[j + 1]).sum() / (j + 1)
            r = -c * Sr
            grad_u = grad_u + r
        grad_e = grad_e + grad_u * h
        grad = e * grad_u

    # N B^-1/2 and G B^-1/2 -> N, G, b
    root = b.rsqrt()
    grad_b = -((grad_N * N).sum(0) + (grad_G * G).sum((0, 1))) * root / (2 * b)
    grad_N, grad_G = grad_N * root, grad_G * root

    # e = exp(-tau delta / 4), delta = divergence_scale * (div v, minus its mean)
    grad_exponent = grad_e * e
    grad_tau = grad_tau - (grad_exponent * delta).sum() / 4
    grad_delta = -tau / 4 * grad_exponent
    grad_scale = (grad_delta * div).sum()
    grad_div = divergence_scale * grad_delta
    if volume_preserving:
        grad_div = grad_div - grad_div.mean(-1, keepdim=True)
    q = -grad_div / b  # (B, n): div v = -B^-1 G^T W v
    raw_div = _divergence(v, b, w, G, False)
    grad_b = grad_b - (grad_div * raw_div).sum(0) / b
    Gq = torch.einsum("cdj,bj->bcd", G, q)
    grad_v = grad_v + w[:, None] * Gq
    grad_w = grad_w + (v * Gq).sum((0, 2))
    grad_G = grad_G + torch.einsum("c,bcd,bj->cdj", w, v.expand_as(grad_v), q)
    if v.shape[0] != grad_v.shape[0]:
        grad_v = grad_v.sum(0, keepdim=True)
    gradients = (grad, grad_v, grad_b, grad_w, grad_N, grad_G, grad_tau / k, grad_scale)
    return tuple(gradient.to(dtype) for gradient in gradients)


def _generator_gradients(mesh: Mesh, y: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of <r, S y> with respect to v (per sample), w and the scaled N and G."""
    v, w, N, G = mesh
    a, ra = y @ N.mT, r @ N.mT  # (B, m)
    g, rg = torch.einsum("cdj,bj->bcd", G, y), torch.einsum("cdj,bj->bcd", G, r)
    vg, vrg = (v * g).sum(-1), (v * rg).sum(-1)
    # <r, S y> = sum_c w_c (ra_c (v.g)_c - (v.rg)_c a_c) / 2
    grad_v = w[:, None] / 2 * (ra.unsqueeze(-1) * g - rg * a.unsqueeze(-1))
    grad_w = (ra * vg - vrg * a).sum(0) / 2
    grad_N = ((w / 2 * vg).mT @ r) - ((w / 2 * vrg).mT @ y)
    flow_y, flow_r = (w / 2 * a).unsqueeze(-1) * v, (w / 2 * ra).unsqueeze(-1) * v  # (B, m, d)
    grad_G = torch.einsum("bcd,bj->cdj", flow_r, y) - torch.einsum("bcd,bj->cdj", flow_y, r)
    return grad_v, grad_w, grad_N, grad_G
