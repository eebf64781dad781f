"""Initialisations: rotation angles of the generator, and the field that produces them on a mesh."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from vfrnn.mesh import LatentMesh, check_latent_mesh
from vfrnn_kernels.checks import check_choice, check_positive_int, check_shape, check_tensor

Init = Literal["henaff", "cayley", "zero"]
INITS = ("henaff", "cayley", "zero")
STEPS = 300


def rotation_angles_(angles: Tensor, init: Init) -> Tensor:
    """Fills `angles`, the rotations per unit of time of the planes (0, 1), (2, 3), ..., in place and returns it.

    - "henaff": uniform in [-pi, pi] (Henaff, Szlam, LeCun 2016, arXiv 1602.06662).
    - "cayley": uniform in [-pi/2, 0]. scoRNN (Helfrich, Willmott, Ye 2018, arXiv 1707.09520) puts
      s = sqrt((1 - cos u) / (1 + cos u)), u uniform in [0, pi/2], in the blocks of A and takes the Cayley transform.
      Since s = tan(u / 2), that turns by 2 arctan(s) = u. The sign is that of expRNN (Lezcano-Casado, Martinez-Rubio
      2019, arXiv 1901.08428), which has -s above the diagonal. (expRNN exponentiates those blocks: it turns by -s.)
    - "zero": no rotation.

    Raises:
        TypeError: angles is no floating-point tensor.
        ValueError: the name is unknown.

    Example:
        >>> angles = rotation_angles_(torch.empty(1000), "cayley")
        >>> -torch.pi / 2 <= angles.min() and angles.max() <= 0
        tensor(True)
    """
    check_tensor("angles", angles)
    check_choice("init", init, INITS)
    with torch.no_grad():
        if init == "henaff":
            return angles.uniform_(-math.pi, math.pi)
        if init == "cayley":
            return angles.uniform_(-math.pi / 2, 0.0)
        return angles.zero_()


def block_diagonal_generator(angles: Tensor, n: int) -> Tensor:
    """The skew-symmetric S (n, n) that turns the planes (0, 1), (2, 3), ... by `angles` (n // 2,).

    Raises:
        TypeError, ValueError: an argument has the wrong type or shape.

    Example:
        >>> block_diagonal_generator(torch.tensor([0.5]), 2).tolist()
        [[0.0, 0.5], [-0.5, 0.0]]
    """
    check_tensor("angles", angles)
    check_positive_int("n", n)
    check_shape("angles", angles, "(n // 2,)", (n // 2,), n=n)
    above = angles.new_zeros(max(n - 1, 0))
    above[::2] = angles
    S = torch.diag(above, 1)
    return S - S.mT


def init_field_(v: Tensor, mesh: LatentMesh, init: Init) -> Tensor:
    """Fills the field v (m, d) so that its generator has the rotation angles of `init`, and returns it.

    Exact on the complete mesh. On another mesh v is the least-squares solution of `S(v) = S`, of smallest norm.

    Raises:
        TypeError, ValueError: the mesh is none, v does not fit it, or the name is unknown.

    Example:
        >>> mesh = LatentMesh.complete(4)
        >>> init_field_(torch.empty(mesh.m, mesh.d), mesh, "zero").abs().max().item()
        0.0
    """
    check_latent_mesh(mesh)
    check_tensor("v", v)
    check_shape("v", v, "(m, d)", (mesh.m, mesh.d), m=mesh.m, d=mesh.d)
    angles = rotation_angles_(v.new_empty(mesh.n // 2), init)
    if v.is_meta:
        return v
    with torch.no_grad():
        S = block_diagonal_generator(angles, mesh.n)
        if mesh.N is None:
            i, j = torch.triu_indices(mesh.n, mesh.n, 1, device=v.device)
            return v.copy_((S[i, j] * 2 * (mesh.b[i] * mesh.b[j]).sqrt() / mesh.w).unsqueeze(-1))
        return v.copy_(least_squares_field(mesh, S))


def least_squares_field(mesh: LatentMesh, S: Tensor) -> Tensor:
    """The v (m, d) of smallest norm among those that minimise `||S(v) - S||` in the Frobenius norm, in float64.

    v -> S(v) is linear, and only it and its adjoint are applied (conjugate gradients on the normal equations, to the
    rounding of S or at most `STEPS` steps): as a matrix it would have n (n - 1) / 2 rows and m d columns.

    Raises:
        TypeError, ValueError: the mesh is none, or S does not fit it.
    """
    check_latent_mesh(mesh)
    check_tensor("S", S)
    if S.device != mesh.b.device:
        raise ValueError(f"S must be on the device of the mesh, {mesh.b.device}, got {S.device}")
    check_shape("S", S, "(n, n)", (mesh.n, mesh.n), n=mesh.n)
    b, w, N, G = (tensor.detach().double() for tensor in mesh.dense_tensors())
    r = b.rsqrt()

    PN, scaled_G = N * r * w[:, None], G * r  # S = (H - H^T) / 2,  H = PN^T [v] scaled_G

    def generator(v: Tensor) -> Tensor:
        H = PN.mT @ (v.unsqueeze(1) @ scaled_G).squeeze(1)
        return (H - H.mT) / 2

    def adjoint(R: Tensor) -> Tensor:  # of a skew-symmetric R
        return (scaled_G @ (PN @ R).unsqueeze(-1)).squeeze(-1)

    residual = S.double()
    v = residual.new_zeros(mesh.m, mesh.d)
    s = p = adjoint(residual)
    gamma = start = float(s.square().sum())
    tolerance = (10 * torch.finfo(S.dtype).eps) ** 2 * start
    for _ in range(STEPS):
        if gamma <= tolerance:
            break
        q = generator(p)
        alpha = gamma / float(q.square().sum())
        v, residual = v + alpha * p, residual - alpha * q
        s = adjoint(residual)
        gamma, previous = float(s.square().sum()), gamma
        p = s + gamma / previous * p
    return v
