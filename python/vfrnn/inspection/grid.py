"""A field on a regular grid: the velocities with which it carries the values of a state, as arrows for the cells."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vfrnn.functional import divergence
from vfrnn.mesh import LatentMesh


@dataclass(frozen=True)
class GridField:
    r"""How a field on `LatentMesh.grid(p, q)` carries the values of a state.

    A step is the flow of the directional derivative :math:`D_v`, :math:`f(x) \to f(x + dt\, v)`: values move against v,

    .. math:: u = -dt\, v, \quad \operatorname{div} u = -dt \operatorname{div} v

    Cells are squares with the nodes at their corners, and v has one vector for each: the arrows need no averaging.

    Attributes:
        velocity: u, (p - 1, q - 1, 2): in nodes per step along the first and the second axis, at the cells' centres.
        divergence: of u, (p, q): per step, at the nodes, by the mesh's own calculus. What acts on the state is
            `divergence_scale` times it.
    """

    velocity: Tensor
    divergence: Tensor


def grid_shape(mesh: LatentMesh) -> tuple[int, int] | None:
    """The shape (p, q) of a mesh that is `LatentMesh.grid(p, q)`, None of any other.

    `p q = n` and `(p - 1)(q - 1) = m` leave two candidates, which are compared with the mesh. Node and cell weights may
    be others than the grid's; averages and gradients may not.
    """
    N, G = mesh.N, mesh.G
    total = mesh.n - mesh.m + 1  # p + q
    root = total * total - 4 * mesh.n
    if N is None or G is None or mesh.d != 2 or root < 0 or math.isqrt(root) ** 2 != root:
        return None
    p = (total - math.isqrt(root)) // 2
    for shape in ((p, total - p), (total - p, p)):
        if min(shape) >= 2 and shape[0] * shape[1] == mesh.n:
            grid = LatentMesh.grid(*shape, dtype=torch.float64)
            if torch.equal(G.double().cpu(), grid.dense_tensors()[3]) and torch.equal(
                N.double().cpu(), grid.dense_tensors()[2]
            ):
                return shape
    return None


def velocity_divergence(mesh: LatentMesh, velocity: Tensor) -> Tensor:
    """The divergence (p, q) at the nodes of a grid mesh of velocities (p - 1, q - 1, 2) at its cells."""
    rows, columns, _ = velocity.shape
    return divergence(mesh, velocity.reshape(mesh.m, 2)).view(rows + 1, columns + 1)


def grid_field(mesh: LatentMesh, v: Tensor, dt: float) -> GridField | None:
    """The velocities of the field v (m, d) where the mesh, of its dtype, is a grid of two axes; None elsewhere."""
    shape = grid_shape(mesh)
    if shape is None:
        return None
    velocity = (-dt * v).view(shape[0] - 1, shape[1] - 1, 2)
    return GridField(velocity, velocity_divergence(mesh, velocity))
