"""A frame and its polar factor stand for an orthogonal matrix that is never formed."""

import pytest
import torch

from tests.cases import orthogonality_error, skew_matrix
from vfrnn.frames import orthonormalized, polar_factor, product, rotate, rotate_back, split

SHAPES = [(5, 2), (4, 3), (40, 7), (3, 1), (2, 9, 4)]


def frame(*shape, kind="random"):
    *batch, n, k = shape
    F = torch.linalg.qr(torch.randn(*batch, n, k, dtype=torch.float64)).Q
    if kind == "square block of zeros":
        F = torch.cat([torch.zeros(*batch, k, k, dtype=torch.float64), F], -2)
    if kind == "columns of the identity":
        F = torch.eye(n, k, dtype=torch.float64).expand(*shape).clone()
    if kind == "of the negative identity":
        F = -torch.eye(n, k, dtype=torch.float64).expand(*shape)
    return F


def formed(F, U):
    """T (..., n, n), by its formula in the docstring of the module."""
    n, k = F.shape[-2:]
    E = torch.eye(n, k, dtype=F.dtype)
    N, middle = F + E @ U, torch.eye(k, dtype=F.dtype) + F[..., :k, :].mT @ U
    turned = torch.eye(n, dtype=F.dtype).expand(*F.shape[:-2], n, n).clone()
    turned[..., :k, :k] = -U
    return (torch.eye(n, dtype=F.dtype) - N @ torch.linalg.inv(middle) @ N.mT) @ turned


@pytest.mark.parametrize(
    "kind", ["random", "square block of zeros", "columns of the identity", "of the negative identity"]
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_frame_is_completed(shape, kind):
    F = frame(*shape, kind=kind)
    n, k = F.shape[-2:]
    U = polar_factor(F)
    T, eye = formed(F, U), torch.eye(n, dtype=F.dtype)
    torch.testing.assert_close(T.mT @ T, eye.expand_as(T), atol=1e-13, rtol=0)
    torch.testing.assert_close(T[..., :k], F, atol=1e-14, rtol=0)
    Y = torch.randn_like(F)
    torch.testing.assert_close(rotate(F, U, Y), T @ Y, atol=1e-13, rtol=0)
    V = T[..., k:] @ torch.randn(*F.shape[:-2], n - k, k, dtype=F.dtype)
    torch.testing.assert_close(rotate_back(F, U, V), (T.mT @ V)[..., k:, :], atol=1e-13, rtol=0)
    assert torch.equal(rotate(F, U, eye[:, :k].expand_as(F)), F)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_orthogonal_matrix_completes_it(shape):
    """What is stored of the polar factor may be rounded, or of another LAPACK: T is orthogonal, and not another one."""
    F = frame(*shape)
    U = polar_factor(F) @ torch.matrix_exp(skew_matrix(shape[-1], 0.3))
    T = formed(F, U)
    torch.testing.assert_close(T.mT @ T, torch.eye(shape[-2]).to(F).expand_as(T), atol=1e-13, rtol=0)
    Y = torch.randn_like(F)
    torch.testing.assert_close(rotate(F, U, Y), T @ Y, atol=1e-13, rtol=0)


def test_the_polar_factor_is_the_nearest_orthogonal_matrix():
    F = frame(9, 4)
    U, (F1, _) = polar_factor(F), split(F)
    assert orthogonality_error(U) < 1e-14
    root = U.mT @ F1  # symmetric and positive: the polar decomposition
    torch.testing.assert_close(root, root.mT, atol=1e-14, rtol=0)
    assert torch.linalg.eigvalsh(root).min() > 0


def test_the_gradient_is_that_of_the_formed_matrix():
    F = frame(7, 3)
    U, Y = polar_factor(F), torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    G = torch.randn(7, 3, dtype=torch.float64)
    (grad,) = torch.autograd.grad(rotate(F, U, Y), Y, G)
    torch.testing.assert_close(grad, formed(F, U).mT @ G, atol=1e-13, rtol=0)
    assert torch.autograd.gradgradcheck(lambda Y: rotate(F, U, Y), (Y,))


def test_orthonormalized_squares_the_distance():
    F = frame(50, 6)
    near = F + 1e-5 * torch.randn_like(F)
    # 3/8 of the square of |F^T F - I|, which is about 1e-4
    assert 1e-6 < orthogonality_error(near)
    assert orthogonality_error(orthonormalized(near)) < 1e-8


def test_autocast_does_not_round():
    A = torch.randn(5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        inside = product(A, A)
    assert torch.equal(inside, A @ A)
