"""Exponentials of many small matrices: accurate at every norm, and the same bits wherever a matrix stands."""

from __future__ import annotations

import functools
import math

import mpmath
import pytest
import torch

from tests.cases import DTYPES, orthogonality_error, quick, relative_error, skew_matrix
from vfrnn_kernels import skew_expm, strang_step

SIZES = (*range(1, 17), 17)  # the last one is no longer small
NORMS = (1e-30, 1e-8, 1e-3, 1, math.pi, 2 * math.pi, 10, 50, 1e3, 1e5)
EPS = {dtype: torch.finfo(dtype).eps for dtype in DTYPES}


def generator(n: int, norm: float, spectrum: str, dtype: torch.dtype) -> torch.Tensor:
    return (skew_matrix(n, 1.0, spectrum) * norm).to(dtype)


def exact(X: mpmath.matrix) -> mpmath.matrix:
    """exp(X) by Taylor's series of X / 2^s, in 60 digits."""
    with mpmath.workdps(60):
        s = int(mpmath.ceil(mpmath.log(max(1, mpmath.mnorm(X, 1)), 2))) + 8
        X, term = X / 2**s, mpmath.eye(X.rows)
        total = term
        for k in range(1, 22):
            term = term * X / k
            total += term
        for _ in range(s):
            total *= total
        return total


def precise(S: torch.Tensor) -> mpmath.matrix:
    """The skew part of S."""
    with mpmath.workdps(60):
        X = mpmath.matrix(S.double().tolist())
        return (X - X.T) / 2


def difference(Q: torch.Tensor, E: mpmath.matrix) -> torch.Tensor:
    """Q - E, whose digits float64 would not have."""
    n = Q.shape[-1]
    with mpmath.workdps(60):
        rows = [[float(mpmath.mpf(float(Q[i, j])) - E[i, j]) for j in range(n)] for i in range(n)]
    return torch.tensor(rows, dtype=torch.float64)


@functools.cache
def case(n: int, norm: float, spectrum: str, dtype: torch.dtype) -> tuple[torch.Tensor, mpmath.matrix]:
    S = generator(n, norm, spectrum, dtype)
    return S, exact(precise(S))


@pytest.mark.parametrize("spectrum", quick(["gaussian", "flat"], "gaussian"))
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 3, 4, 5, 8])
def test_values_at_every_norm(n, dtype, norm, spectrum):
    S, E = case(n, norm, spectrum, dtype)
    Q = skew_expm(S, backend="cpu")
    error, eps = difference(Q, E), EPS[dtype]
    if n <= 3:
        # float32 computes in double and rounds once; in float64 the angle of n = 3 is a root of three squares, known to
        # two roundings of it. A product of two rotations adds three products of two such entries, in float64 too.
        bound = 0.51 * eps if dtype == torch.float32 or n == 2 else 2 * eps * max(1, norm)
        orthogonal = 6 * eps
    else:
        # the project's bounds; 1e-13 was measured with n = 257
        bound = 1e-6 * max(1, norm) if dtype == torch.float32 else 1e-14 * max(1, norm)
        orthogonal = 3e-6 if dtype == torch.float32 else 4e-15
    assert float(error.abs().max()) <= bound
    if norm <= 50 or n <= 3:
        assert orthogonality_error(Q) <= orthogonal
    if norm <= 1e-3:
        # entries off the diagonal keep their relative accuracy, of a few roundings of the series
        error.fill_diagonal_(0)
        assert float(error.abs().max()) <= 8 * eps * float(S.abs().max())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_gradients_at_every_norm(n, dtype, norm):
    S, G = generator(n, norm, "gaussian", dtype), torch.randn(n, n).to(dtype)
    # the derivative of exp at S^T along G is the block beside exp(S^T) in exp((S^T, G), (0, S^T))
    with mpmath.workdps(60):
        X, W = precise(S), mpmath.zeros(2 * n)
        W[:n, :n] = W[n:, n:] = X.T
        W[:n, n:] = mpmath.matrix(G.double().tolist())
        block = exact(W)[:n, n:]
        expected = (block - block.T) / 2
    leaf = S.clone().requires_grad_()
    skew_expm(leaf, backend="cpu").backward(G)
    found = difference(leaf.grad, expected)
    scale = float(torch.linalg.vector_norm(torch.tensor([[float(x) for x in row] for row in expected.tolist()])))
    if n <= 3:
        # one rounding, and those of sums that cancel; the angle as in the values
        bound = 2 * EPS[dtype] if dtype == torch.float32 else 1e-14 * max(1, norm)
    elif dtype == torch.float32:
        bound = 2e-6 if norm <= math.pi else 1e-5 if norm <= 10 else 3e-5 if norm <= 50 else 1e-6 * norm
    else:
        bound = 2e-14 * max(1, norm)
    assert float(torch.linalg.vector_norm(found)) <= bound * scale
    assert torch.equal(leaf.grad, -leaf.grad.mT)


def test_where_the_series_of_an_angle_meets_its_functions():
    # pi / 4 is where the series end; the multiples of pi / 2 from there on are where the quadrant changes
    axis = skew_matrix(3, 1.0)
    G = torch.randn(3, 3, dtype=torch.float64)
    for angle in (math.pi / 4, 3 * math.pi / 4, 5 * math.pi / 4, 1001 * math.pi / 4):
        for offset in (-1e-3, -1e-12, 0.0, 1e-12, 1e-3):
            S = axis * (angle + offset)
            assert float(difference(skew_expm(S, backend="cpu"), exact(precise(S))).abs().max()) <= 1e-15 * angle
        below, above = (axis * (angle + offset) for offset in (-1e-9, 1e-9))
        grads = []
        for S in (below, above):
            leaf = S.clone().requires_grad_()
            skew_expm(leaf, backend="cpu").backward(G)
            grads.append(leaf.grad)
        torch.testing.assert_close(*grads, rtol=0, atol=1e-8)


def batch(n: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """37 generators of all norms, times and incoming gradients: no multiple of a vector's lanes."""
    norms = torch.logspace(-3, 4, 37, dtype=torch.float64)[torch.randperm(37)]
    S = torch.stack([skew_matrix(n, float(norm)) for norm in norms])
    return [S.to(dtype), torch.randn(37).to(dtype), torch.randn(37, n, n).to(dtype)]


def computed(S, dt, G):
    S, dt = S.clone().requires_grad_(), dt.clone().requires_grad_()
    Q = skew_expm(S, dt, backend="cpu")
    return Q.detach(), *torch.autograd.grad(Q, (S, dt), G)


@pytest.mark.parametrize("dtype", quick(DTYPES, torch.float32))
@pytest.mark.parametrize("n", quick(SIZES, 1, 2, 3, 4, 7, 13, 16))
def test_a_matrix_has_the_same_bits_wherever_it_stands(n, dtype):
    tensors = batch(n, dtype)
    together = computed(*tensors)
    for first, last in ((0, 1), (5, 6), (36, 37), (0, 16), (1, 17), (3, 36), (20, 37)):
        apart = computed(*(t[first:last] for t in tensors))
        assert all(torch.equal(a[first:last], b) for a, b in zip(together, apart, strict=True))
    of_none_but_S = computed(tensors[0], torch.ones(37, dtype=dtype), tensors[2])[1]
    leaf = tensors[0].clone().requires_grad_()
    skew_expm(leaf, backend="cpu").backward(tensors[2])
    assert relative_error(leaf.grad, of_none_but_S) <= EPS[dtype]


@pytest.mark.parametrize("n", [2, 3, 4, 16])
def test_the_same_bits_with_every_number_of_threads(n):
    tensors = [t.repeat(-(-4000 // n) * 3, *(1,) * (t.dim() - 1)) for t in batch(n, torch.float32)]
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(computed(*tensors))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("n", quick(SIZES, 2, 3, 5))
def test_a_step_agrees_with_its_exponential(n):
    S, dt, _ = batch(n, torch.float64)
    zero = torch.zeros(37, n, dtype=torch.float64)
    assert torch.equal(strang_step(S, zero, dt, backend="cpu"), skew_expm(S, dt, backend="cpu"))


@pytest.mark.parametrize("n", quick(range(1, 17), 1, 3, 16))
def test_of_small_ones_nothing_is_kept(n):
    S = skew_matrix(n, 2.0)[None]
    Q, saved = torch.ops.vfrnn_kernels.skew_expm(S, torch.ones(1, dtype=torch.float64))
    assert saved.shape == (1, 0, n, n)
    op = torch.ops.vfrnn_kernels.skew_expm.default
    torch.library.opcheck(op, (S, torch.ones(1, dtype=torch.float64)), test_utils=("test_schema", "test_faketensor"))
    assert torch.equal(Q[0], skew_expm(S[0], backend="cpu"))


def test_one_time_for_all_is_not_copied_out():
    S, dt, G = batch(4, torch.float32)
    one = dt[:1].expand(37)
    assert all(
        torch.equal(a, b) for a, b in zip(computed(S, one, G)[:2], computed(S, one.contiguous(), G)[:2], strict=True)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 16])
def test_wrong_values_are_named_wherever_they_stand(n, dtype):
    S = torch.stack([skew_matrix(n, 1.0, dtype=dtype)] * 40)
    dt = torch.ones(40, dtype=dtype)
    for i, j, bad in ((0, 0, math.nan), (n - 1, 0, math.nan), (n - 1, n - 1, math.inf), (0, n - 1, -math.inf)):
        broken = S.clone()
        broken[33, i, j] = bad
        with pytest.raises(RuntimeError, match="S must be finite, but it holds NaN or infinity"):
            skew_expm(broken, dt, backend="cpu")
    tilted = S.clone()
    tilted[21, n - 1, n - 1] = 1.0
    with pytest.raises(RuntimeError, match=r"S must be skew-symmetric, S = -S\^T, but max \|S \+ S\^T\| = 2"):
        skew_expm(tilted, dt, backend="cpu")
    tilted[39] = math.nan  # the first one is told
    with pytest.raises(RuntimeError, match="S must be skew-symmetric"):
        skew_expm(tilted, dt, backend="cpu")
    for bad in (math.nan, math.inf):
        with pytest.raises(RuntimeError, match="dt must be finite"):
            skew_expm(S, torch.cat([dt[:39], dt[:1] * bad]), backend="cpu")
    if n == 1:
        return
    for norm in (4e6, 1e15, 1e30):
        large = S.clone()
        large[7] *= norm
        with pytest.raises(RuntimeError, match=r"dt \* S must have a spectral norm below [12]\.\d+e\+06, but"):
            skew_expm(large, dt, backend="cpu")


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_gradcheck_of_small_ones(n):
    A = (torch.randn(3, n, n, dtype=torch.float64) * torch.tensor([1e-3, 1.0, 3.0])[:, None, None]).requires_grad_()
    dt = torch.tensor([0.7, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda A, dt: skew_expm(A - A.mT, dt, backend="cpu"), (A, dt))
    assert torch.autograd.gradgradcheck(lambda A, dt: skew_expm(A - A.mT, dt, backend="cpu"), (A, dt), fast_mode=True)
