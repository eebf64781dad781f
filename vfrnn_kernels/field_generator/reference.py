"""field_generator in plain PyTorch: the definition of right. Equations: README.md beside this file."""

from __future__ import annotations

import torch
from torch import Tensor

from vfrnn_kernels.reference_values import check_mesh_values


def field_generator_reference(
    b: Tensor, w: Tensor, N: Tensor | None, G: Tensor | None, v: Tensor
) -> tuple[Tensor, Tensor]:
    """S and delta of the fields v (K, m, d); without N and G on the complete mesh."""
    check_mesh_values(b, w, v)
    if N is None or G is None:
        return _complete_mesh(b, w, v)
    H = torch.einsum("ci,kcj->kij", N * w[:, None], torch.einsum("kcd,cdj->kcj", v, G))  # (K, n, n)
    r = b.rsqrt()
    S = (H - H.mT) / 2 * (r[:, None] * r)
    delta = -torch.einsum("cdj,kcd->kj", G, w[:, None] * v) / b
    return S, delta


def _complete_mesh(b: Tensor, w: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    n = b.shape[0]
    i, j = pairs(n, v.device)
    flux = w * v[..., 0]  # (K, m)
    scaled, flux_matrix = upper_triangle(flux / (2 * (b[i] * b[j]).sqrt()), n), upper_triangle(flux, n)
    return scaled - scaled.mT, (flux_matrix - flux_matrix.mT).sum(-1) / b


def pairs(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The nodes i < j of the cells of the complete mesh, in their order."""
    i, j = torch.triu_indices(n, n, 1, device=device)
    return i, j


def upper_triangle(values: Tensor, n: int) -> Tensor:
    """Values (..., n (n - 1) / 2) of the cells of the complete mesh as strictly upper triangular (..., n, n)."""
    i, j = pairs(n, values.device)
    flat = values.new_zeros(*values.shape[:-1], n * n)
    return flat.index_copy(-1, i * n + j, values).unflatten(-1, (n, n))


def field_generator_backward_reference(
    grad_S: Tensor,
    grad_delta: Tensor,
    b: Tensor,
    w: Tensor,
    N: Tensor | None,
    G: Tensor | None,
    v: Tensor,
    S: Tensor,
    delta: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor]:
    """Gradients of b, w, N, G, v by the hand-written rules of README.md."""
    # S_ij = A_ij / sqrt(b_i b_j):  dL/db_i = -(row and column sums of grad_S * S) / (2 b_i);  delta = (...) / b
    P = grad_S * S
    grad_b = (-(P.sum(-1) + P.sum(-2)) / (2 * b) - grad_delta * delta / b).sum(0)
    r = b.rsqrt()
    R = grad_S * (r[:, None] * r)
    R = (R - R.mT) / 2  # dL/dH, skew
    q = -grad_delta / b  # (K, n)
    if N is None or G is None:
        i, j = pairs(b.shape[0], v.device)
        # H_ij = w v / 2 + ...: both triangles give R_ij w v; the divergence gives (q_j - q_i) w v
        grad_flux = R[:, i, j] + q[:, j] - q[:, i]
        return grad_b, (grad_flux * v[..., 0]).sum(0), None, None, (grad_flux * w).unsqueeze(-1)
    vG = torch.einsum("kcd,cdj->kcj", v, G)
    A = torch.einsum("ci,kij->kcj", N, R) + q.unsqueeze(-2)  # dL/d(w_c vG_cj)
    grad_w = (A * vG).sum((0, 2))
    grad_N = torch.einsum("c,kcj,kij->ci", w, vG, R)
    grad_v = torch.einsum("c,kcj,cdj->kcd", w, A, G)
    grad_G = torch.einsum("c,kcd,kcj->cdj", w, v, A)
    return grad_b, grad_w, grad_N, grad_G, grad_v
