"""The latent calculus and the field ops on a `LatentMesh`; the ops that need no mesh as they are.

Arguments have the order that they have in `vfrnn_kernels`: `mesh` stands where the tensors b, w, N, G stand there.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

import vfrnn_kernels
from vfrnn.mesh import LatentMesh, check_latent_mesh
from vfrnn_kernels import recurrence, skew_expm, spectral_recurrence, strang_step, thin_skew_expm
from vfrnn_kernels.activations import Activation
from vfrnn_kernels.checks import check_choice, check_dense

__all__ = [
    "directional_derivative",
    "divergence",
    "field_flow",
    "field_generator",
    "flow_recurrence",
    "gradient",
    "inner_product",
    "recurrence",
    "skew_expm",
    "spectral_recurrence",
    "strang_step",
    "thin_skew_expm",
]


def gradient(mesh: LatentMesh, f: Tensor) -> Tensor:
    r"""The latent gradient of functions.

    .. math:: (\nabla f)_{ck} = \sum_j G_{ckj} f_j

    Args:
        mesh: the mesh, with its gradient G.
        f: values of functions at the nodes, (..., n).

    Returns:
        A field (..., m, d).

    Raises:
        TypeError, ValueError: f does not fit the mesh.

    Example:
        >>> import torch
        >>> gradient(LatentMesh.complete(3), torch.tensor([1.0, 4.0, 9.0])).tolist()
        [[3.0], [8.0], [5.0]]
    """
    check_latent_mesh(mesh)
    if isinstance(f, Tensor):
        check_dense("f", f)
    # The complete mesh has no G whose size could refuse f.
    if isinstance(f, Tensor) and f.dim() and f.shape[-1] != mesh.n:
        raise ValueError(f"f must have shape (..., n) with n = {mesh.n}, got {tuple(f.shape)}")
    return vfrnn_kernels.gradient(mesh.G, f)


def divergence(mesh: LatentMesh, v: Tensor) -> Tensor:
    r"""The latent divergence of fields, the negative adjoint of the gradient.

    .. math:: \operatorname{div} v = -B^{-1} G^T W v, \quad \sum_i b_i (\operatorname{div} v)_i = 0

    Args:
        mesh: the mesh.
        v: fields, (..., m, d).

    Returns:
        A function (..., n), positive where the arrows spread out and negative where they gather.

    Raises:
        TypeError, ValueError: v does not fit the mesh.

    Example:
        >>> import torch
        >>> divergence(LatentMesh.complete(2), torch.tensor([[1.5]])).tolist()
        [3.0, -3.0]
    """
    check_latent_mesh(mesh)
    return vfrnn_kernels.divergence(mesh.b, mesh.w, mesh.G, v)


def directional_derivative(mesh: LatentMesh, v: Tensor, f: Tensor) -> Tensor:
    r"""The derivative of functions along fields; that of a constant is 0.

    .. math:: D_v f = B^{-1} N^T W ([v] G f), \quad ([v] G f)_c = v_c \cdot (G f)_c

    Args:
        mesh: the mesh.
        v: fields, (..., m, d).
        f: values of functions at the nodes, (..., n). The batch shapes of v and f broadcast.

    Returns:
        A function (..., n).

    Raises:
        TypeError, ValueError: v or f does not fit the mesh.

    Example:
        >>> import torch
        >>> directional_derivative(LatentMesh.complete(2), torch.tensor([[1.0]]), torch.tensor([0.0, 3.0])).tolist()
        [3.0, 3.0]
    """
    check_latent_mesh(mesh)
    return vfrnn_kernels.directional_derivative(*mesh.tensors(), v, f)


def inner_product(
    mesh: LatentMesh, x: Tensor, y: Tensor, *, of: Literal["functions", "fields"] = "functions"
) -> Tensor:
    r"""The inner product of functions, or of fields.

    .. math:: \langle f, g \rangle = \sum_i b_i f_i g_i, \quad \langle u, v \rangle = \sum_c w_c u_c \cdot v_c

    Args:
        mesh: the mesh, with the weights b of its nodes and w of its cells.
        a, b: functions (..., n), or fields (..., m, d).
        of: "functions" or "fields".

    Returns:
        The products (...).

    Raises:
        TypeError, ValueError: an argument does not fit the mesh, or `of` is neither "functions" nor "fields".

    Example:
        >>> import torch
        >>> inner_product(LatentMesh.complete(2), torch.tensor([[3.0]]), torch.tensor([[1.0]]), of="fields").item()
        6.0
    """
    check_latent_mesh(mesh)
    check_choice("of", of, ("functions", "fields"))
    return vfrnn_kernels.inner_product(mesh.w if of == "fields" else mesh.b, x, y, of=of)


def field_generator(mesh: LatentMesh, v: Tensor, *, backend: str | None = None) -> tuple[Tensor, Tensor]:
    r"""Skew-symmetric generator and divergence of fields.

    .. math:: S = B^{-1/2} \tfrac12 (H - H^T) B^{-1/2}, \quad H = N^T W [v] G, \quad \delta = -B^{-1} G^T W v

    Args:
        mesh: the mesh.
        v: fields, (..., m, d).
        backend: "cpu", "cuda", "triton", "reference" or None (the first that serves the call).

    Returns:
        S (..., n, n), exactly skew-symmetric, and delta (..., n). `strang_step` makes the step matrix of the two.

    Raises:
        TypeError, ValueError: v does not fit the mesh.
        RuntimeError: the backend cannot serve the call.

    Example:
        >>> import torch
        >>> field_generator(LatentMesh.complete(2), torch.tensor([[1.5]]))[0].tolist()
        [[0.0, 1.5], [-1.5, 0.0]]
    """
    check_latent_mesh(mesh)
    return vfrnn_kernels.field_generator(*mesh.tensors(), v, backend=backend)


def field_flow(
    h: Tensor,
    v: Tensor,
    mesh: LatentMesh,
    dt: float | Tensor = 1.0,
    divergence_scale: float | Tensor = 1.0,
    *,
    volume_preserving: bool = False,
    order: int = 8,
    substeps: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """States h (B, n) moved along v (m, d) or (B, m, d) for a time dt, without forming an n x n matrix.

    The other arguments, the result and the errors are those of `vfrnn_kernels.field_flow`. On the complete mesh the
    dense N and G are formed for the call: `strang_step` is the faster way there.

    Example:
        >>> import torch
        >>> field_flow(torch.ones(1, 2), torch.zeros(1, 1), LatentMesh.complete(2)).tolist()
        [[1.0, 1.0]]
    """
    check_latent_mesh(mesh)
    return vfrnn_kernels.field_flow(
        h,
        v,
        *mesh.dense_tensors(),
        dt,
        divergence_scale,
        volume_preserving=volume_preserving,
        order=order,
        substeps=substeps,
        backend=backend,
    )


def flow_recurrence(
    x: Tensor,
    U: Tensor,
    c: Tensor | None,
    v: Tensor,
    V: Tensor,
    mesh: LatentMesh,
    h0: Tensor | None = None,
    activation: Activation = "tanh",
    beta: Tensor | None = None,
    dt: float | Tensor = 1.0,
    divergence_scale: float | Tensor = 1.0,
    *,
    volume_preserving: bool = False,
    order: int | None = None,
    substeps: int | None = None,
    return_sequence: bool = True,
    backend: str | None = None,
) -> Tensor:
    """All states (T, B, n) of a layer whose field reads the input, `v + V x_t`, or the last.

    The other arguments, the result and the errors are those of `vfrnn_kernels.flow_recurrence`. On the complete mesh
    the dense N and G are formed for the call.

    Example:
        >>> import torch
        >>> x, U, v, V = torch.zeros(5, 1, 3), torch.zeros(2, 3), torch.zeros(1, 1), torch.zeros(1, 1, 3)
        >>> tuple(flow_recurrence(x, U, None, v, V, LatentMesh.complete(2)).shape)
        (5, 1, 2)
    """
    check_latent_mesh(mesh)
    return vfrnn_kernels.flow_recurrence(
        x,
        U,
        c,
        v,
        V,
        *mesh.dense_tensors(),
        h0,
        activation,
        beta,
        dt,
        divergence_scale,
        volume_preserving=volume_preserving,
        order=order,
        substeps=substeps,
        return_sequence=return_sequence,
        backend=backend,
    )
