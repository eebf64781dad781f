"""strang_step: against its formula in float64, and by what the step of a split flow must satisfy."""

from __future__ import annotations

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
from vfrnn_kernels.skew_expm import skew_expm
from vfrnn_kernels.strang_step import strang_step

SUBSTEPS = (1, 2, 3, 5)


def formula(S, delta, dt, k):
    """(diag(e) exp(dt S / k) diag(e))^k in float64."""
    S, delta = S.double(), delta.double()
    return _power(exact_exponential(dt * S / k), torch.exp(-dt * delta / (4 * k)), k)


def formula_gradients(S, delta, dt, k, G):
    """Gradients of <G, formula>, that of S skew-symmetric; through the exponential by divided differences."""
    S, delta, dt = S.double(), delta.double().requires_grad_(), dt.double().requires_grad_()
    Q = exact_exponential(dt.detach() * S / k).requires_grad_()
    M = _power(Q, torch.exp(-dt * delta / (4 * k)), k)
    grad_Q, grad_delta, grad_dt = torch.autograd.grad(M, (Q, delta, dt), G.double())
    grad_A = exact_exponential_gradient(dt.detach() * S / k, grad_Q) / k
    return dt.detach() * grad_A, grad_delta, grad_dt + (grad_A * S).sum()


def _power(Q, e, k):
    return torch.linalg.matrix_power(e[..., :, None] * Q * e[..., None, :], k)


def example(n, dtype=torch.float64, norm=1.0):
    return skew_matrix(n, norm, dtype=dtype), torch.randn(n, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", SUBSTEPS)
@pytest.mark.parametrize("n", [1, 2, 3, 17, 190])
def test_value_and_gradients_against_the_formula(backend, dtype, n, k):
    S, delta = example(n, dtype)
    dt = torch.tensor(-0.8 if k == 3 else 0.8, dtype=dtype)
    G = torch.randn(n, n, dtype=torch.float64).to(dtype)
    arguments = [t.requires_grad_() for t in (S, delta, dt)]
    M = strang_step(*arguments, k, backend=backend)
    grads = torch.autograd.grad(M, arguments, G)
    expected = formula(S.detach(), delta.detach(), dt.detach(), k)
    exact = formula_gradients(*(t.detach() for t in arguments), k, G)
    # k rotations and scalings by at most e^(0.8 |delta| / 4), each to a few eps; sums of n^2 terms in the gradients
    tolerance = 300 * torch.finfo(dtype).eps
    assert relative_error(M.detach(), expected) <= tolerance
    for grad, reference in zip(grads, exact, strict=True):
        scale = G.norm().double() if reference.dim() == 0 else reference.norm()
        assert float((grad.double() - reference).norm()) <= tolerance * max(float(scale), 1e-3)
    assert torch.equal(grads[0], -grads[0].mT)


def test_large_odd_size(backend):
    S, delta = example(257, torch.float32)
    M = strang_step(S, delta / 10, 1.0, 2, backend=backend)
    assert relative_error(M, formula(S, delta / 10, 1.0, 2)) <= 1e-5


@pytest.mark.parametrize("k", SUBSTEPS)
def test_without_divergence_it_is_the_exponential(backend, k):
    S, _ = example(9, norm=4.0)
    M = strang_step(S, torch.zeros(9, dtype=torch.float64), 1.5, k, backend=backend)
    torch.testing.assert_close(M, exact_exponential(1.5 * S), atol=1e-13, rtol=0)
    if k == 1:
        assert torch.equal(M, skew_expm(S, 1.5, backend=backend))
    assert orthogonality_error(M) <= 1e-13


@pytest.mark.parametrize("k", SUBSTEPS)
@pytest.mark.parametrize("dt", [1.0, -0.5])
def test_determinant_and_norm(backend, k, dt):
    S, delta = example(12)
    M = strang_step(S, delta, dt, k, backend=backend)
    assert float(torch.linalg.det(M)) == pytest.approx(math.exp(-dt * float(delta.sum()) / 2), rel=1e-12)
    bound = math.exp(max(-dt * float(delta.min()) / 2, -dt * float(delta.max()) / 2))
    assert float(torch.linalg.matrix_norm(M, 2)) <= bound * (1 + 1e-13)


def test_second_order_in_the_step(backend):
    S, delta = example(8)
    exact = torch.matrix_exp(S - torch.diag(delta) / 2)
    errors = [float((strang_step(S, delta, 1.0, k, backend=backend) - exact).norm()) for k in (16, 32)]
    # order 2 + O(dt / k): 4 up to a sixteenth
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.06)


def test_a_step_back_undoes_a_step(backend):
    S, delta = example(8)
    there, back = (strang_step(S, delta, dt, 3, backend=backend) for dt in (0.7, -0.7))
    torch.testing.assert_close(there @ back, torch.eye(8, dtype=torch.float64), atol=1e-13, rtol=0)


def test_no_time_is_the_identity_exactly(backend):
    S, delta = example(5)
    assert torch.equal(strang_step(S, delta, 0.0, 4, backend=backend), torch.eye(5, dtype=torch.float64))


@fast_and_thorough
@pytest.mark.parametrize("k", SUBSTEPS)
@pytest.mark.parametrize("norm", [0.05, 3.5, 9])
def test_gradcheck(backend, k, norm, fast):
    A = torch.randn(2, 3, 3, dtype=torch.float64)
    A = (A * (norm / torch.linalg.matrix_norm(A - A.mT, 2)[:, None, None])).requires_grad_()
    delta = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    dt = torch.tensor([0.7, -1.0], dtype=torch.float64, requires_grad=True)

    def f(A, delta, dt):
        return strang_step(A - A.mT, delta, dt, k, backend=backend)

    assert torch.autograd.gradcheck(f, (A, delta, dt), fast_mode=fast)
    assert torch.autograd.gradgradcheck(f, (A, delta, dt), fast_mode=fast or k != 3)


@fast_and_thorough
@pytest.mark.parametrize("n", [1, 5, 17])
def test_gradcheck_of_every_size(backend, n, fast):
    A = (torch.randn(n, n, dtype=torch.float64) / n).requires_grad_()
    delta = torch.randn(n, dtype=torch.float64, requires_grad=True)

    def f(A, delta):
        return strang_step(A - A.mT, delta, 0.5, 3, backend=backend)

    assert torch.autograd.gradcheck(f, (A, delta), fast_mode=fast or n > 5)
    assert torch.autograd.gradgradcheck(f, (A, delta), fast_mode=fast or n > 5)


def test_batches_broadcast(backend):
    S, delta = skew_matrix(4, 1.0), torch.randn(3, 4, dtype=torch.float64)
    dt = torch.rand(2, 1, dtype=torch.float64)
    M = strang_step(S, delta, dt, 2, backend=backend)
    assert M.shape == (2, 3, 4, 4)
    torch.testing.assert_close(M[1, 2], formula(S, delta[2], float(dt[1, 0]), 2), atol=1e-13, rtol=0)


def test_batches_of_nothing_and_of_one(backend):
    S, delta = torch.empty(0, 3, 3, requires_grad=True), torch.empty(0, 3, requires_grad=True)
    M = strang_step(S, delta, 1.0, 3, backend=backend)
    M.sum().backward()
    assert M.shape == S.grad.shape == (0, 3, 3)
    assert delta.grad.shape == (0, 3)
    S, delta = example(3)
    assert torch.equal(strang_step(S[None], delta[None], backend=backend)[0], strang_step(S, delta, backend=backend))


@pytest.mark.parametrize("n", [5, 70])
def test_non_contiguous_inputs_and_a_second_backward(backend, n):
    S, delta = torch.stack([skew_matrix(n, 1.0), skew_matrix(n, 4.0)]), torch.randn(2, n, dtype=torch.float64) / 4
    dt, G = torch.tensor([0.5, 1.0], dtype=torch.float64), torch.randn(2, n, n, dtype=torch.float64)
    results = []
    for layout in (torch.clone, non_contiguous):
        arguments = [layout(t).requires_grad_() for t in (S, delta, dt)]
        M = strang_step(*arguments, 3, backend=backend)
        first, second = (torch.autograd.grad(M, arguments, layout(G), retain_graph=True) for _ in range(2))
        assert all(map(torch.equal, first, second))
        results.append((M, *first))
    # a product may choose another order of its sums for another layout
    for plain, strided in zip(*results, strict=True):
        torch.testing.assert_close(strided, plain, rtol=1e-12, atol=1e-12)


def test_only_the_gradients_asked_for(backend):
    S, delta = example(5)
    dt, G = torch.tensor(0.5, dtype=torch.float64), torch.randn(5, 5, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (S, delta, dt)]
    every = torch.autograd.grad(strang_step(*leaves, 2, backend=backend), leaves, G)
    for k, expected in enumerate(every):
        arguments = [t if j == k else t.detach() for j, t in enumerate(leaves)]
        (grad,) = torch.autograd.grad(strang_step(*arguments, 2, backend=backend), leaves[k], G)
        torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("dtype", quick(DTYPES, torch.float64))
@pytest.mark.parametrize("k", [1, 3])
def test_library_ops(dtype, k):
    # opcheck compares every entry of `saved`: a small norm would leave some levels of squaring unwritten
    S, delta = (t.expand(2, *t.shape).contiguous() for t in example(4, dtype, norm=500.0))
    dt = torch.tensor([1.0, 0.5], dtype=dtype)
    op, backward = torch.ops.vfrnn_kernels.strang_step, torch.ops.vfrnn_kernels.strang_step_backward
    M, Q, saved = op(S, delta, dt, k)
    torch.library.opcheck(op.default, (S, delta, dt, k))
    for needs in (1, 6, 7):
        torch.library.opcheck(backward.default, (M, S, delta, dt, M, Q, saved, k, needs))


@pytest.mark.parametrize("backend", quick(["cpu", "reference"], "cpu"))
def test_compile(backend):
    S, delta = example(5, norm=6.0)
    G = torch.randn(5, 5, dtype=torch.float64)
    arguments = [S.requires_grad_(), delta.requires_grad_()]

    def f(S, delta):
        return (strang_step(2 * S, delta, 0.5, 3, backend=backend) * G).sum()

    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(f(*arguments), arguments)
    torch.testing.assert_close(torch.autograd.grad(compiled(*arguments), arguments), expected)


def test_functional_transforms(backend):
    A, delta = torch.randn(3, 4, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)

    def f(A, delta):
        return strang_step(A - A.mT, delta, 0.5, 2, backend=backend).pow(3).sum()

    torch.testing.assert_close(
        torch.func.vmap(f)(A, delta), torch.stack([f(a, d) for a, d in zip(A, delta, strict=True)])
    )
    mapped = torch.func.vmap(torch.func.grad(f, argnums=(0, 1)))(A, delta)
    alone = [torch.func.grad(f, argnums=(0, 1))(a, d) for a, d in zip(A, delta, strict=True)]
    torch.testing.assert_close(mapped, tuple(map(torch.stack, zip(*alone, strict=True))))
    assert torch.func.jacrev(torch.func.grad(f))(A[0], delta[0]).shape == (4, 4, 4, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_the_float32_result(dtype):
    S, delta = (t.to(dtype) for t in example(6, torch.float32))
    wide = strang_step(S.float(), delta.float(), 0.5, 3, backend="reference")
    with pytest.warns(RuntimeWarning, match=r"strang_step runs on plain PyTorch \(slow\); cpu: it computes"):
        torch.testing.assert_close(strang_step(S, delta, 0.5, 3), wide.to(dtype))


def test_wrong_values_are_named(backend):
    S, delta = example(5)
    with pytest.raises(RuntimeError, match="S must be skew-symmetric"):
        strang_step(S.abs(), delta, backend=backend)
    with pytest.raises(RuntimeError, match="S must be finite"):
        strang_step(S * math.nan, delta, backend=backend)
    with pytest.raises(RuntimeError, match="dt must be finite"):
        strang_step(S, delta, torch.tensor(math.inf, dtype=torch.float64), backend=backend)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"S": torch.zeros(2, 3)}, ValueError, r"S must have shape \(..., n, n\) with n = [23], got \(2, 3\)"),
        ({"delta": [0.0, 0.0]}, TypeError, "delta must be a tensor, got list"),
        ({"delta": torch.zeros(3)}, ValueError, r"delta must have shape \(..., n\) with n = 2, got \(3,\)"),
        ({"delta": torch.zeros(())}, ValueError, r"delta must have shape \(..., n\), got \(\)"),
        ({"delta": torch.zeros(2).double()}, TypeError, "delta must have the dtype of S"),
        ({"delta": torch.zeros(2, device="meta")}, ValueError, "delta must be on the device of S"),
        ({"S": torch.zeros(3, 2, 2), "delta": torch.zeros(4, 2)}, ValueError, "delta must broadcast with the batch"),
        ({"delta": torch.zeros(4, 2), "dt": torch.zeros(3)}, ValueError, "dt must broadcast with the batch shape of"),
        ({"dt": torch.zeros((), dtype=torch.float64)}, TypeError, "dt must have the dtype of S"),
        ({"dt": None}, TypeError, "dt must be a number or a tensor, got NoneType"),
        ({"dt": math.nan}, ValueError, "dt must be finite, got nan"),
        ({"substeps": 0}, ValueError, "substeps must be at least 1, got 0"),
        ({"substeps": 2**62}, ValueError, "substeps must be at most 1000000, got 4611686018427387904"),
        ({"substeps": 1.0}, TypeError, "substeps must be an int, got float"),
        ({"backend": "gpu"}, ValueError, "backend must be one of"),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    with pytest.raises(error, match=message):
        strang_step(**{"S": torch.zeros(2, 2), "delta": torch.zeros(2), **change})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_delta_must_be_finite(backend, value):
    with pytest.raises(RuntimeError, match=r"^delta must be finite"):
        strang_step(torch.zeros(3, 3), torch.tensor([0.0, value, 0.0]), backend=backend)


def test_a_tensor_must_be_dense():
    with pytest.raises(TypeError, match=r"S must be a dense tensor, got layout torch\.sparse_coo"):
        strang_step(torch.zeros(3, 3).to_sparse(), torch.zeros(3))
