"""Frames: matrices F (n, k), k < n, with orthonormal columns, as the bases of a trivialization.

An orthogonal n x n matrix T whose first columns are F is written with F and one orthogonal k x k matrix, and never
formed. With E the first columns of the identity, F = (F1; F2) and U any orthogonal matrix,

    T = (I - N (I + F1^T U)^-1 N^T) diag(-U, I),    N = F + E U:

a block reflector that takes -E U to F (Schreiber, Parlett 1988, doi 10.1137/0725014). Chosen once for a frame, the
polar factor U of F1 makes I + F1^T U as well conditioned as can be: its eigenvalues are between 1 and 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vfrnn_kernels.autocast import autocasts


def product(A: Tensor, B: Tensor) -> Tensor:
    """A B in their own dtype: autocast would round a rotation."""
    if not autocasts(A.device.type):
        return A @ B
    with torch.autocast(A.device.type, enabled=False):
        return A @ B


def split(F: Tensor) -> tuple[Tensor, Tensor]:
    """The square block F1 (..., k, k) of F (..., n, k), and F2 below it."""
    n, k = F.shape[-2:]
    first, second = F.split([k, n - k], -2)
    return first, second


def polar_factor(F: Tensor) -> Tensor:
    """U (..., k, k), the orthogonal matrix that is nearest to the square block of F (..., n, k)."""
    left, _, right = torch.linalg.svd(split(F)[0].double())
    return (left @ right).to(F.dtype)


def rotate(F: Tensor, U: Tensor, Y: Tensor) -> Tensor:
    """T Y (..., n, k); F to the last bit where Y is E.

    T Y = F (Y1 + Z) + (U Z; Y2) with Z = -(I + F1^T U)^-1 F2^T Y2.
    """
    (F1, F2), (Y1, Y2) = split(F), split(Y)
    Z = -_solved(_middle(F1, U), product(F2.mT, Y2))
    turned = Y1 + Z
    return torch.cat([product(F1, turned) + product(U, Z), Y2 + product(F2, turned)], -2)


def rotate_back(F: Tensor, U: Tensor, V: Tensor) -> Tensor:
    """The rows of T^T V below the square block, (..., n - k, k), of a V (..., n, k) with F^T V = 0."""
    (F1, F2), (V1, V2) = split(F), split(V)
    return V2 - product(F2, torch.linalg.solve(_middle(F1, U).mT, product(U.mT, V1)))


def orthonormalized(F: Tensor) -> Tensor:
    """F after a Newton step to its polar factor, which squares the rounding in F^T F - I away."""
    eye = torch.eye(F.shape[-1], dtype=F.dtype, device=F.device)
    return product(F, 1.5 * eye - 0.5 * product(F.mT, F))


def _solved(A: Tensor, B: Tensor) -> Tensor:
    """A^-1 B of a symmetric A with eigenvalues from 1 to 2."""
    if not torch.onnx.is_in_onnx_export():
        return torch.linalg.solve(A, B)
    # ONNX has no such operator: Newton's iteration, whose error is squared each time and is 1/3 at first
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    X = 2 / 3 * eye
    for _ in range(6):
        X = product(X, 2 * eye - product(A, X))
    return product(X, B)


def _middle(F1: Tensor, U: Tensor) -> Tensor:
    return torch.eye(U.shape[-1], dtype=U.dtype, device=U.device) + product(F1.mT, U)
