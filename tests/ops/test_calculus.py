"""The latent calculus: definitions in dense matrices, adjoints, and the complete mesh without N and G."""

import pytest
import torch

from tests.cases import SIZES, random_mesh
from vfrnn_kernels.calculus import directional_derivative, divergence, gradient, inner_product

F64 = torch.float64
CLOSE = {"rtol": 1e-12, "atol": 1e-12}  # sums of at most a few hundred products of numbers near 1


def edge_mesh(n):
    """N and G of the complete mesh, dense."""
    i, j = torch.triu_indices(n, n, 1)
    one = torch.eye(n, dtype=F64)
    return (one[i] + one[j]) / 2, (one[j] - one[i]).unsqueeze(1)


def mesh(n, m, d, general):
    b, w, N, G = random_mesh(n, m, d)
    return (b, w, N, G) if general else (b, torch.rand(n * (n - 1) // 2, dtype=F64) + 0.5, *edge_mesh(n))


@pytest.mark.parametrize("n", SIZES[:4])
def test_definitions(n):
    b, w, N, G = random_mesh(n, 7, 2)
    f, v = torch.randn(3, n, dtype=F64), torch.randn(3, 7, 2, dtype=F64)
    for s in range(3):
        grad = torch.stack([G[:, k] @ f[s] for k in range(2)], -1)
        torch.testing.assert_close(gradient(G, f)[s], grad, **CLOSE)
        div = -sum(G[:, k].mT @ (w * v[s, :, k]) for k in range(2)) / b
        torch.testing.assert_close(divergence(b, w, G, v)[s], div, **CLOSE)
        derivative = N.mT @ (w * (v[s] * grad).sum(-1)) / b
        torch.testing.assert_close(directional_derivative(b, w, N, G, v, f)[s], derivative, **CLOSE)


@pytest.mark.parametrize("n", SIZES[:4])
def test_complete_mesh_equals_its_dense_edges(n):
    b, w, N, G = mesh(n, 0, 1, False)
    f, v = torch.randn(2, n, dtype=F64), torch.randn(2, w.shape[0], 1, dtype=F64)
    torch.testing.assert_close(gradient(None, f), gradient(G, f), **CLOSE)
    torch.testing.assert_close(divergence(b, w, None, v), divergence(b, w, G, v), **CLOSE)
    dense = directional_derivative(b, w, N, G, v, f)
    torch.testing.assert_close(directional_derivative(b, w, None, None, v, f), dense, **CLOSE)


@pytest.mark.parametrize("general", [True, False])
def test_adjoints(general):
    b, w, N, G = mesh(17, 9, 3, general)
    v = torch.randn(*G.shape[:2], dtype=F64)
    f, g, one = torch.randn(17, dtype=F64), torch.randn(17, dtype=F64), torch.ones(17, dtype=F64)
    left = inner_product(w, gradient(G, f), v, of="fields")
    torch.testing.assert_close(left, -inner_product(b, f, divergence(b, w, G, v)), **CLOSE)
    # D_v* g = -div(v (N g))
    adjoint = -divergence(b, w, G, v * (N @ g)[:, None])
    left = inner_product(b, directional_derivative(b, w, N, G, v, f), g)
    torch.testing.assert_close(left, inner_product(b, f, adjoint), **CLOSE)
    zero = torch.zeros(17, dtype=F64)
    torch.testing.assert_close(directional_derivative(b, w, N, G, v, one), zero, **CLOSE)
    torch.testing.assert_close(inner_product(b, one, divergence(b, w, G, v)), zero[0], **CLOSE)


def test_product_rule_on_the_complete_mesh():
    b, w, _, _ = mesh(6, 0, 1, False)
    v, f, g = torch.randn(15, 1, dtype=F64), torch.randn(6, dtype=F64), torch.randn(6, dtype=F64)
    derivative = lambda x: directional_derivative(b, w, None, None, v, x)  # noqa: E731
    left = inner_product(b, derivative(f), g) + inner_product(b, derivative(g), f)
    torch.testing.assert_close(left, -inner_product(b, divergence(b, w, None, v), f * g), **CLOSE)


def test_inner_products():
    b, w = torch.rand(5, dtype=F64), torch.rand(7, dtype=F64)
    f, g = torch.randn(3, 1, 5, dtype=F64), torch.randn(2, 5, dtype=F64)
    torch.testing.assert_close(inner_product(b, f, g), torch.einsum("i,sui,ti->st", b, f, g))
    x, y = torch.randn(3, 7, 2, dtype=F64), torch.randn(7, 2, dtype=F64)
    torch.testing.assert_close(inner_product(w, x, y, of="fields"), torch.einsum("c,scd,cd->s", w, x, y))


def test_leading_dimensions_broadcast():
    b, w, N, G = random_mesh(5, 7, 2)
    f, v = torch.randn(3, 1, 5, dtype=F64), torch.randn(4, 7, 2, dtype=F64)
    result = directional_derivative(b, w, N, G, v, f)
    assert result.shape == (3, 4, 5)
    torch.testing.assert_close(result[2, 1], directional_derivative(b, w, N, G, v[1], f[2, 0]))
    assert gradient(G, torch.empty(0, 5, dtype=F64)).shape == (0, 7, 2)


@pytest.mark.parametrize("general", [True, False])
def test_gradcheck(general):
    b, w, N, G = mesh(3, 3, 1, general)
    v, f = torch.randn(3, 1, dtype=F64), torch.randn(2, 3, dtype=F64)
    for t in (b, w, N, G, v, f):
        t.requires_grad_()
    if general:
        assert torch.autograd.gradcheck(directional_derivative, (b, w, N, G, v, f))
        assert torch.autograd.gradcheck(divergence, (b, w, G, v))
        assert torch.autograd.gradgradcheck(gradient, (G, f))
    else:
        function = lambda b, w, v, f: directional_derivative(b, w, None, None, v, f)  # noqa: E731
        assert torch.autograd.gradcheck(function, (b, w, v, f))
        assert torch.autograd.gradcheck(lambda b, w, v: divergence(b, w, None, v), (b, w, v))
        assert torch.autograd.gradcheck(lambda f: gradient(None, f), (f,))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda b, w, N, G, v, f: gradient(G, f[:3]),
            ValueError,
            r"f must have shape \(..., n\) with n = 4, got \(3,\)",
        ),
        (lambda b, w, N, G, v, f: gradient(G[0], f), ValueError, r"G must have shape \(m, d, n\)"),
        (lambda b, w, N, G, v, f: gradient(G.float(), f), TypeError, "G must have the dtype of f"),
        (lambda b, w, N, G, v, f: gradient(G, 1.0), TypeError, "f must be a tensor"),
        (lambda b, w, N, G, v, f: divergence(b, w, G, f), ValueError, r"v must have shape \(..., m, d\)"),
        (lambda b, w, N, G, v, f: divergence(b, w, None, v), ValueError, r"w must have shape \(n \(n - 1\) / 2,\)"),
        (
            lambda b, w, N, G, v, f: directional_derivative(b, w, N, None, v, f),
            ValueError,
            "N and G must both be given or both be None, got N alone",
        ),
        (
            lambda b, w, N, G, v, f: directional_derivative(b, w, N, G, v, f[:2]),
            ValueError,
            r"f must have shape \(..., n\) with n = 4, got \(2,\)",
        ),
        (
            lambda b, w, N, G, v, f: inner_product(b, f, f, of="both"),
            ValueError,
            "of must be one of 'functions', 'fields'",
        ),
        (
            lambda b, w, N, G, v, f: directional_derivative(b, w, N, G, v.expand(2, *v.shape), f.expand(3, *f.shape)),
            ValueError,
            r"f must broadcast with the batch shape of v, \(2,\), got \(3,\)",
        ),
        (
            lambda b, w, N, G, v, f: inner_product(b, f.expand(2, *f.shape), f.expand(3, *f.shape)),
            ValueError,
            r"y must broadcast with the batch shape of x, \(2,\), got \(3,\)",
        ),
        (lambda b, w, N, G, v, f: inner_product(b, f, v), ValueError, r"y must have shape \(..., n\)"),
        (
            lambda b, w, N, G, v, f: inner_product(w, v, v[:, :1], of="fields"),
            ValueError,
            r"y must have shape \(..., m, d\)",
        ),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(*random_mesh(4, 3, 2), torch.randn(3, 2, dtype=F64), torch.randn(4, dtype=F64))
