"""The latent calculus: gradient, divergence, directional derivative and inner products on a mesh (model.md 1).

Plain differentiable PyTorch on any device and dtype. `f` are values of functions at the n nodes, `v` fields on the m
cells with d components. Without N and G the mesh is the complete one: a cell for every pair i < j in the order of
`torch.triu_indices`, d = 1, the midpoint average and the difference f_j - f_i; its dense N and G are never formed.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vfrnn_kernels.checks import (
    check_broadcast,
    check_choice,
    check_mesh,
    check_mesh_gradient,
    check_rank,
    check_shape,
    check_tensor,
)


def gradient(G: Tensor | None, f: Tensor) -> Tensor:
    r"""The latent gradient of functions.

    .. math:: (\nabla f)_{ck} = \sum_j G_{ckj} f_j

    Args:
        G: (m, d, n), or None for the complete mesh.
        f: (..., n).

    Returns:
        A field (..., m, d).

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device or shape.

    Example:
        >>> gradient(None, torch.tensor([1.0, 4.0, 9.0])).tolist()
        [[3.0], [8.0], [5.0]]
    """
    check_tensor("f", f)
    check_rank("f", f, "(..., n)", 1, batched=True)
    if G is None:
        i, j = pairs(f.shape[-1], f.device)
        return (f[..., j] - f[..., i]).unsqueeze(-1)
    check_tensor("G", G, f, "f")
    check_rank("G", G, "(m, d, n)", 3)
    n = G.shape[2]
    check_shape("f", f, "(..., n)", (*f.shape[:-1], n), n=n)
    return torch.einsum("cdj,...j->...cd", G, f)


def divergence(b: Tensor, w: Tensor, G: Tensor | None, v: Tensor) -> Tensor:
    r"""The latent divergence of fields, the negative adjoint of the gradient.

    .. math:: \operatorname{div} v = -B^{-1} G^T W v, \quad \sum_i b_i (\operatorname{div} v)_i = 0

    Args:
        b: (n,), positive.
        w: (m,), positive.
        G: (m, d, n), or None for the complete mesh.
        v: (..., m, d).

    Returns:
        A function (..., n).

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device or shape.

    Example:
        >>> divergence(torch.ones(3), torch.ones(3), None, torch.tensor([[1.0], [2.0], [3.0]])).tolist()
        [3.0, 2.0, -5.0]
    """
    check_mesh_gradient(b, w, G)
    _check_field(v, b, w, G)
    if G is None:
        flux = upper_triangle(w * v[..., 0], b.shape[0])
        return (flux - flux.mT).sum(-1) / b
    return -torch.einsum("cdj,c,...cd->...j", G, w, v) / b


def directional_derivative(b: Tensor, w: Tensor, N: Tensor | None, G: Tensor | None, v: Tensor, f: Tensor) -> Tensor:
    r"""The derivative of functions along fields; of a constant it is 0.

    .. math:: D_v f = P ([v] G f), \quad ([v] G f)_c = v_c \cdot (G f)_c, \quad P = B^{-1} N^T W

    Args:
        b: (n,), positive.
        w: (m,), positive.
        N: (m, n), or None, with G, for the complete mesh.
        G: (m, d, n), or None.
        v: (..., m, d).
        f: (..., n); its leading dimensions broadcast against those of v.

    Returns:
        A function (..., n).

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device or shape.

    Example:
        >>> v = torch.tensor([[1.0], [2.0], [3.0]])
        >>> directional_derivative(torch.ones(3), torch.ones(3), None, None, v, torch.tensor([0.0, 0.0, 1.0])).tolist()
        [1.0, 1.5, 2.5]
    """
    check_mesh(b, w, N, G)
    _check_field(v, b, w, G)
    check_tensor("f", f, b, "b")
    check_rank("f", f, "(..., n)", 1, batched=True)
    n = b.shape[0]
    check_shape("f", f, "(..., n)", (*f.shape[:-1], n), n=n)
    check_broadcast("f", f.shape[:-1], "v", v.shape[:-2])
    flux = w * (v * gradient(G, f)).sum(-1)  # (..., m)
    if N is None:
        halves = upper_triangle(flux / 2, n)
        return (halves + halves.mT).sum(-1) / b
    return flux @ N / b


def inner_product(weights: Tensor, x: Tensor, y: Tensor, *, of: Literal["functions", "fields"] = "functions") -> Tensor:
    r"""The latent inner product of functions or of fields.

    .. math:: \langle f, g \rangle = \sum_i b_i f_i g_i, \qquad \langle u, v \rangle = \sum_c w_c \, u_c \cdot v_c

    Args:
        weights: b (n,) for functions, w (m,) for fields.
        x: (..., n) for functions, (..., m, d) for fields.
        y: as x; leading dimensions broadcast.
        of: "functions" or "fields".

    Returns:
        The inner products (...).

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device or shape.

    Example:
        >>> inner_product(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]), torch.tensor([3.0, 4.0])).item()
        11.0
    """
    check_choice("of", of, ("functions", "fields"))
    check_tensor("weights", weights)
    check_rank("weights", weights, "(n,)" if of == "functions" else "(m,)", 1)
    size = weights.shape[0]
    for name, value in (("x", x), ("y", y)):
        check_tensor(name, value, weights, "weights")
        if of == "functions":
            check_rank(name, value, "(..., n)", 1, batched=True)
            check_shape(name, value, "(..., n)", (*value.shape[:-1], size), n=size)
        else:
            check_rank(name, value, "(..., m, d)", 2, batched=True)
            d = x.shape[-1]
            check_shape(name, value, "(..., m, d)", (*value.shape[:-2], size, d), m=size, d=d)
    trailing = 1 if of == "functions" else 2
    check_broadcast("y", y.shape[:-trailing], "x", x.shape[:-trailing])
    if of == "functions":
        return (weights * x * y).sum(-1)
    return (weights.unsqueeze(-1) * x * y).sum((-2, -1))


def _check_field(v: Tensor, b: Tensor, w: Tensor, G: Tensor | None) -> None:
    check_tensor("v", v, b, "b")
    check_rank("v", v, "(..., m, d)", 2, batched=True)
    m, d = w.shape[0], 1 if G is None else G.shape[1]
    check_shape("v", v, "(..., m, d)", (*v.shape[:-2], m, d), m=m, d=d)


def pairs(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The nodes i < j of the cells of the complete mesh, in their order."""
    i, j = torch.triu_indices(n, n, 1, device=device)
    return i, j


def upper_triangle(values: Tensor, n: int) -> Tensor:
    """Values (..., n (n - 1) / 2) of the cells of the complete mesh as strictly upper triangular (..., n, n)."""
    i, j = pairs(n, values.device)
    return values.new_zeros(*values.shape[:-1], n * n).index_copy(-1, i * n + j, values).unflatten(-1, (n, n))
