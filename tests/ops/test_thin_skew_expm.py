"""thin_skew_expm: against the exponential of the whole n x n generator in float64, and by what a frame must satisfy."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from tests.cases import (
    DTYPES,
    exact_exponential,
    exact_exponential_gradient,
    fast_and_thorough,
    non_contiguous,
    orthogonality_error,
    quick,
    relative_error,
    skew_matrix,
)
from vfrnn_kernels import skew_expm, thin_skew_expm
from vfrnn_kernels.skew_expm.reference_coefficients import MAX_SQUARINGS, scheme
from vfrnn_kernels.thin_skew_expm import thin_skew_expm_reference

#: (n, k): one column; n - k less than k, none, and just above and below 3 k; as thin as it is for.
SHAPES = [(1, 1), (2, 1), (9, 1), (5, 3), (6, 6), (9, 3), (10, 3), (41, 7), (300, 9)]
NORMS = (1e-20, 1e-4, 1, math.pi, 10, 50, 1000)
KINDS = ("gaussian", "flat", "B = 0", "B of rank 1", "equal columns", "columns of all sizes")


def bounds(dtype: torch.dtype, norm: float) -> tuple[float, float, float]:
    """Largest |Y - exact|, |Y^T Y - I| and relative error of the gradient: those of skew_expm."""
    if dtype == torch.float64:
        return 1e-13 * max(1, norm), 2e-14, 1e-13 * max(1, norm)
    gradient = 2e-6 if norm <= math.pi else 1e-5 if norm <= 10 else 3e-5 if norm <= 50 else 1e-6 * norm
    return 1e-6 * max(1, norm), 3e-6, gradient


def whole(S):
    """The generator (..., n, n) with the columns S (..., n, k)."""
    n, k = S.shape[-2:]
    A = S.new_zeros(*S.shape[:-1], n)
    A[..., :k], A[..., :k, k:] = S, -S[..., k:, :].mT
    return A


def thin(n, k, norm=1.0, kind="gaussian", dtype=torch.float64):
    """S (n, k) whose whole generator has that spectral norm."""
    S = torch.randn(n, k, dtype=torch.float64)
    B = S[k:]
    if kind == "flat":
        k_B = min(n - k, k)  # as many singular values, all equal; the square block is small beside them
        B[:] = 0
        B[:, :k_B] = 3 * torch.linalg.qr(torch.randn(n - k, k_B, dtype=torch.float64)).Q
        S[:k] *= 0.01
    if kind == "B = 0":
        B.zero_()
    if kind == "B of rank 1":
        B.copy_(B[:, :1] * torch.randn(k, dtype=torch.float64))
    if kind == "equal columns":
        B.copy_(B[:, :1].expand_as(B))
    if kind == "columns of all sizes":
        B.mul_(10.0 ** -torch.arange(k, dtype=torch.float64))
    S[:k] = S[:k] - S[:k].mT.clone()
    S = S * (norm / (torch.linalg.matrix_norm(whole(S), 2).clamp_min(1e-300)))
    return S.to(dtype)


def exact_gradient(S, G):
    """The gradient of <G, Y>, in float64: an entry below the square block stands in the generator twice."""
    n, k = S.shape
    grad = exact_exponential_gradient(whole(S.double()), torch.cat([G.double(), torch.zeros(n, n - k)], 1))[:, :k]
    return torch.cat([grad[:k], 2 * grad[k:]])


@functools.cache
def oracle(dtype, kind, n, k, norm):
    """A generator and an incoming gradient with what must come out, made once for both backends."""
    S, G = thin(n, k, norm, kind, dtype), torch.randn(n, k).to(dtype)
    return S, G, exact_exponential(whole(S))[:, :k], exact_gradient(S, G)


def value_and_gradient(S, G, **options):
    S = S.detach().clone().requires_grad_()
    Y = thin_skew_expm(S, **options)
    Y.backward(G)
    return Y.detach(), S.grad


def spread(X):
    """A generator from entries that may be perturbed freely."""
    k = X.shape[-1]
    return torch.cat([X[..., :k, :] - X[..., :k, :].mT, X[..., k:, :]], -2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_value_and_gradient_against_the_eigendecomposition(backend, dtype, kind, n, k):
    for norm, scale in zip(NORMS, (1, 1e6, 1e-6, 1, 1e6, 1e-6, 1), strict=True):
        S, G, exact, expected = oracle(dtype, kind, n, k, norm)
        Y, grad_S = value_and_gradient(S, G * scale, backend=backend)
        forward, orthogonality, gradient = bounds(dtype, norm)
        assert float((Y.double() - exact).abs().max()) <= forward, norm
        assert orthogonality_error(Y) <= orthogonality, norm
        # A gradient is a mean of rotated G. Of one angle, as for k = 1, it may be close to 0 (sin pi / pi): its error
        # is then relative to what was summed.
        size = float(torch.maximum(expected.norm(), G.norm() / 4)) * scale
        assert float((grad_S.double() - expected * scale).norm()) <= gradient * size, norm
        assert torch.equal(grad_S[:k], -grad_S[:k].mT)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), [(4, 1), (6, 4), (40, 5)])
def test_zero_gives_the_identity_exactly(backend, dtype, n, k):
    S = torch.zeros(n, k, dtype=dtype, requires_grad=True)
    Y, G = thin_skew_expm(S, backend=backend), torch.randn(n, k, dtype=dtype)
    assert torch.equal(Y, torch.eye(n, k, dtype=dtype))
    Y.backward(G)
    # the first derivative at 0 is that of I + A
    torch.testing.assert_close(S.grad, torch.cat([(G[:k] - G[:k].mT) / 2, G[k:]]), rtol=1e-6, atol=0)
    assert torch.equal(thin_skew_expm(thin(n, k, dtype=dtype), 0.0, backend=backend), torch.eye(n, k, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tiny_generator_keeps_its_relative_accuracy(backend, dtype):
    S = thin(30, 4, 1e-20, dtype=dtype)
    # entries are S_ij to a relative |S|, and those that are the sum of several products to some roundings
    assert relative_error(thin_skew_expm(S, backend=backend) - torch.eye(30, 4), S) <= 10 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), [(20000, 20), (6000, 50)])
def test_what_is_as_large_as_its_users_have(dtype, n, k):
    """Against S = U s U^T with columns U that are orthonormal: Y = E + U (exp(s) - I) U^T E."""
    U = torch.linalg.qr(torch.cat([torch.eye(n, k), torch.randn(n, k)], 1).double()).Q
    U = U * (U.mT @ torch.eye(n, 2 * k, dtype=torch.float64)).diagonal().sign()
    for norm in (1.0, 10.0):
        s = skew_matrix(2 * k, norm)
        s[k:, k:] = 0
        S = (U @ (s @ U[:k].mT)).to(dtype)
        Y = thin_skew_expm(S)
        exact = torch.eye(n, k) + U @ ((exact_exponential(s) - torch.eye(2 * k)) @ U[:k].mT)
        # the oracle is given S before it was rounded
        assert float((Y.double() - exact).abs().max()) <= 1.2 * bounds(dtype, norm)[0]
        assert orthogonality_error(Y) <= bounds(dtype, norm)[1] * (1 if dtype == torch.float32 else 3)


def test_its_columns_are_those_of_skew_expm(backend):
    S, dt = thin(30, 4, 3.0), torch.linspace(-1, 1, 5, dtype=torch.float64)
    Q = skew_expm(whole(S), dt, backend=backend)
    torch.testing.assert_close(thin_skew_expm(S, dt, backend=backend), Q[..., :4], atol=1e-14, rtol=0)


@pytest.mark.parametrize(("n", "k"), [(9, 2), (5, 4)])
def test_one_generator_at_many_times(backend, n, k):
    S, dt = thin(n, k, 3.0), torch.tensor([0.0, 0.5, -1.5, 7.0], dtype=torch.float64)
    G = torch.randn(4, n, k, dtype=torch.float64)
    S.requires_grad_(), dt.requires_grad_()
    Y = thin_skew_expm(S, dt, backend=backend)
    Y.backward(G)
    with torch.no_grad():
        exact = torch.stack([exact_exponential(t * whole(S))[:, :k] for t in dt])
        torch.testing.assert_close(Y, exact, atol=1e-12, rtol=0)
        one_by_one = [exact_gradient(t * S, g) for t, g in zip(dt, G, strict=True)]
        expected = sum(t * g for t, g in zip(dt, one_by_one, strict=True))
        torch.testing.assert_close(S.grad, expected, atol=1e-11, rtol=0)
        torch.testing.assert_close(dt.grad, torch.stack([(g * S).sum() for g in one_by_one]), atol=1e-11, rtol=0)


def test_batches_broadcast(backend):
    S, dt = torch.stack([thin(7, 2, 1.0), thin(7, 2, 9.0)]), torch.rand(3, 1, dtype=torch.float64)
    Y = thin_skew_expm(S, dt, backend=backend)
    assert Y.shape == (3, 2, 7, 2)
    alone = thin_skew_expm(S[1], float(dt[2, 0]), backend=backend)
    torch.testing.assert_close(Y[2, 1], alone, atol=1e-14, rtol=0)


def test_batches_of_nothing_and_of_one(backend):
    S = torch.empty(0, 7, 2, requires_grad=True)
    Y = thin_skew_expm(S, torch.empty(0), backend=backend)
    Y.sum().backward()
    assert Y.shape == S.grad.shape == (0, 7, 2)
    S = thin(7, 2)
    assert torch.equal(thin_skew_expm(S[None], backend=backend)[0], thin_skew_expm(S, backend=backend))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), quick([(700, 33), (40, 3), (1300, 1), (60, 25)], (40, 3), (60, 25)))
def test_bits_depend_neither_on_the_batch_nor_on_the_threads(dtype, n, k):
    S = torch.stack([thin(n, k, norm, kind, dtype) for norm in (0.1, 4.0, 60.0) for kind in KINDS[:3]])
    G = torch.randn(S.shape, dtype=dtype)
    before, expected = torch.get_num_threads(), None
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            together = value_and_gradient(S, G)
            expected = expected or together
            alone = [torch.stack(t) for t in zip(*map(value_and_gradient, S, G), strict=True)]
            assert all(map(torch.equal, together, expected))
            assert all(map(torch.equal, alone, expected))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("norm", [1, 30])
def test_the_gradient_is_linear_in_the_incoming_one(backend, norm):
    S, G = thin(70, 7, norm, dtype=torch.float32), torch.randn(70, 7)
    once = value_and_gradient(S, G, backend=backend)[1]
    # a power of two scales every rounding with it
    assert torch.equal(value_and_gradient(S, G * 2.0**20, backend=backend)[1], once * 2.0**20)
    assert torch.equal(value_and_gradient(S, G * 2.0**-20, backend=backend)[1], once * 2.0**-20)


@fast_and_thorough
@pytest.mark.parametrize(("n", "k"), [(9, 2), (5, 3), (4, 4)])
@pytest.mark.parametrize("norm", [0, 1e-20, 1, 9])
def test_gradcheck(backend, n, k, norm, fast):
    X, dt = torch.randn(2, n, k, dtype=torch.float64), torch.tensor([0.7, -1.0], dtype=torch.float64)
    X = X * (norm / torch.linalg.matrix_norm(whole(spread(X)), 2))[:, None, None]
    X[1, k:] = 0

    def f(X, dt):
        return thin_skew_expm(spread(X), dt, backend=backend)

    arguments = (X.requires_grad_(), dt.requires_grad_())
    assert torch.autograd.gradcheck(f, arguments, fast_mode=fast)
    assert torch.autograd.gradgradcheck(f, arguments, fast_mode=fast)


@pytest.mark.parametrize(("n", "k"), [(23, 5), (9, 5)])
def test_non_contiguous_inputs_and_a_second_backward(backend, n, k):
    S, dt = torch.stack([thin(n, k, 1.0), thin(n, k, 4.0)]), torch.tensor([0.5, 1.0], dtype=torch.float64)
    G, results = torch.randn(2, n, k, dtype=torch.float64), []
    for layout in (torch.clone, non_contiguous, lambda t: t.mT.contiguous().mT if t.dim() > 1 else t):
        arguments = [layout(t).detach().requires_grad_() for t in (S, dt)]
        Y = thin_skew_expm(*arguments, backend=backend)
        first, second = (torch.autograd.grad(Y, arguments, layout(G), retain_graph=True) for _ in range(2))
        assert all(map(torch.equal, first, second))
        results.append((Y, *first))
    for strided in results[1:]:
        for plain, other in zip(results[0], strided, strict=True):
            torch.testing.assert_close(other, plain, rtol=1e-12, atol=1e-12)


def test_only_the_gradients_asked_for(backend):
    for n in (6, 9):
        S, dt, G = thin(n, 2), torch.tensor(2.0, dtype=torch.float64), torch.randn(n, 2, dtype=torch.float64)
        leaves = [S.requires_grad_(), dt.requires_grad_()]
        both = torch.autograd.grad(thin_skew_expm(*leaves, backend=backend), leaves, G)
        of_dt = torch.autograd.grad(thin_skew_expm(S.detach(), dt, backend=backend), dt, G)
        torch.testing.assert_close(of_dt[0], both[1])
        of_S = torch.autograd.grad(thin_skew_expm(S, dt.detach(), backend=backend), S, G)
        torch.testing.assert_close(of_S[0], both[0])
        assert not thin_skew_expm(S.detach(), backend=backend).requires_grad


@pytest.mark.parametrize("dtype", quick(DTYPES, torch.float64))
@pytest.mark.parametrize(("n", "k"), [(9, 2), (5, 2)])
def test_library_ops(dtype, n, k):
    # opcheck compares every entry of `saved`: a small norm would leave some levels of squaring unwritten
    S, dt = torch.stack([thin(n, k, 500.0, dtype=dtype)] * 2), torch.tensor([1.0, 0.5], dtype=dtype)
    op, backward = torch.ops.vfrnn_kernels.thin_skew_expm, torch.ops.vfrnn_kernels.thin_skew_expm_backward
    results = op(S, dt)
    torch.library.opcheck(op.default, (S, dt))
    for needs in (1, 2, 3):
        torch.library.opcheck(backward.default, (results[0], S, dt, *results, needs))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_factors_of_any_matrix(dtype, kind):
    """B = Q R and R^T R = B^T B to some roundings, whatever the rank, and Q is never large."""
    B = thin(900, 17, 1e-3, kind, dtype)[None, 17:]
    Q, R = (t.double() for t in torch.ops.vfrnn_kernels.thin_factor(B))
    eps, size, B = torch.finfo(dtype).eps, torch.linalg.matrix_norm(B.double(), 2), B.double()
    assert float((Q @ R - B).abs().max()) <= 4 * eps * size
    assert float((R.mT @ R - B.mT @ B).abs().max()) <= 40 * eps * size**2
    assert float(torch.linalg.matrix_norm(Q, 2)) <= 1 + 100 * eps
    assert torch.equal(R, R.triu())


@pytest.mark.parametrize("backend", quick(["cpu", "reference"], "cpu"))
def test_compile(backend):
    S, dt = thin(9, 2, 6.0).requires_grad_(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    G = torch.randn(9, 2, dtype=torch.float64)

    def f(S, dt):
        return (thin_skew_expm(2 * S, dt, backend=backend) * G).sum()

    expected = torch.autograd.grad(f(S, dt), (S, dt))
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(S, dt), (S, dt)), expected)


def test_functional_transforms(backend):
    X, G = torch.randn(3, 7, 2, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)

    def f(X):
        return (thin_skew_expm(spread(X), backend=backend) * G).sum()

    torch.testing.assert_close(torch.func.vmap(f)(X), torch.stack([f(x) for x in X]))
    gradients = torch.func.vmap(torch.func.grad(f))(X)
    torch.testing.assert_close(gradients, torch.stack([torch.func.grad(f)(x) for x in X]))
    assert torch.func.jacrev(torch.func.grad(f))(X[0]).shape == (7, 2, 7, 2)


def test_under_autocast_it_computes_in_float32():
    S = thin(9, 2, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = thin_skew_expm(S.bfloat16()), thin_skew_expm(S)
    assert inside[0].dtype == torch.float32
    assert torch.equal(inside[1], thin_skew_expm(S))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_the_float32_result(dtype):
    S, G = thin(9, 2, 3.0, dtype=torch.float32).to(dtype), torch.randn(9, 2).to(dtype)
    with pytest.warns(RuntimeWarning, match=r"thin_skew_expm runs on plain PyTorch \(slow\); cpu: it computes"):
        Y, grad_S = value_and_gradient(S, G)
    assert Y.dtype == grad_S.dtype == dtype
    wide = value_and_gradient(S.float(), G.float(), backend="reference")
    torch.testing.assert_close((Y, grad_S), tuple(t.to(dtype) for t in wide))


@pytest.mark.parametrize("n", [6, 40])
def test_wrong_values_are_named(backend, n):
    S = thin(n, 3)
    for row in (1, n - 1):
        for bad in (math.nan, math.inf):
            broken = S.clone()
            broken[row, 2] = bad
            with pytest.raises(RuntimeError, match="S must be finite"):
                thin_skew_expm(broken, backend=backend)
    with pytest.raises(RuntimeError, match=r"S must be skew-symmetric, S = -S\^T, but max \|S \+ S\^T\| = 2"):
        thin_skew_expm(S + torch.eye(n, 3, dtype=torch.float64), backend=backend)
    with pytest.raises(RuntimeError, match="dt must be finite"):
        thin_skew_expm(S, torch.tensor(math.nan, dtype=torch.float64), backend=backend)
    limit = scheme(torch.float32).theta * 2**MAX_SQUARINGS
    for norm in (1.5 * limit, 1e30):
        with pytest.raises(RuntimeError, match=r"dt \* S must have a spectral norm below 2\.62"):
            thin_skew_expm(thin(n, 3, norm, dtype=torch.float32), backend=backend)


def test_shapes_without_values(backend):
    Y = thin_skew_expm(torch.empty(2, 9, 2, device="meta", requires_grad=True), backend=backend)
    assert (Y.shape, Y.device.type) == ((2, 9, 2), "meta")


@pytest.mark.parametrize(
    ("S", "dt", "error", "message"),
    [
        ([[0.0]], 1.0, TypeError, "S must be a tensor, got list"),
        (torch.zeros(3), 1.0, ValueError, r"S must have shape \(..., n, k\), got \(3,\)"),
        (torch.zeros(2, 3), 1.0, ValueError, r"no more columns than rows, got shape \(2, 3\)"),
        (torch.zeros(2, 0), 1.0, ValueError, r"S must have at least one column and .*, got shape \(2, 0\)"),
        (torch.zeros(0, 0), 1.0, ValueError, r"S must have at least one row, got shape \(0, 0\)"),
        (torch.zeros(2, 1, dtype=torch.int64), 1.0, TypeError, "S must be float32"),
        (torch.zeros(2, 1), torch.zeros((), dtype=torch.float64), TypeError, "dt must have the dtype of S"),
        (torch.zeros(2, 1), "1", TypeError, "dt must be a number or a tensor, got str"),
        (
            torch.zeros(0, 1, 2).expand(0, 2**62, 2),
            1.0,
            ValueError,
            r"S and dt must give .* fewer than",
        ),
        (torch.zeros(3, 2, 1), torch.zeros(2), ValueError, r"dt must broadcast with the batch shape of S, \(3,\)"),
    ],
)
def test_wrong_arguments_are_named(S, dt, error, message):
    with pytest.raises(error, match=message):
        thin_skew_expm(S, dt)
    with pytest.raises(ValueError, match="backend must be one of"):
        thin_skew_expm(torch.zeros(2, 1), backend="gpu")


def test_the_reference_is_the_definition():
    S, dt = thin(7, 2, 4.0)[None], torch.ones(1, dtype=torch.float64)
    assert torch.equal(thin_skew_expm_reference(S, dt)[0][0], thin_skew_expm(S[0], backend="reference"))
