"""skew_expm: against the eigendecomposition in float64, and by what an exponential must satisfy."""

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
from vfrnn_kernels.skew_expm import skew_expm, skew_expm_reference
from vfrnn_kernels.skew_expm.op import saved_sizes
from vfrnn_kernels.skew_expm.reference_coefficients import MAX_SQUARINGS, scheme

NORMS = (0, 1e-4, 1, math.pi, 10, 50, 1000)
# Every norm at the small sizes, a few at the large ones: (n, norm, scale of the incoming gradient).
CASES = [
    (n, norm, scale) for norm, scale in zip(NORMS, (1, 1e6, 1e-6, 1, 1e6, 1e-6, 1), strict=True) for n in (1, 2, 17)
]
CASES += [(3, 1, 1), (3, 50, 1e6), (64, math.pi, 1), (64, 2.5, 1), (190, 1, 1e-6), (257, 50, 1e6)]


def bounds(dtype: torch.dtype, norm: float) -> tuple[float, float, float]:
    """Largest |Q - exp|, |Q^T Q - I| and relative error of the gradient.

    float32: the project's bounds; a rotation angle of size `norm` is known to norm eps, of which 1e-6 norm is 8. In
    float64 the oracle is no better than its eigenvalues, about n eps norm with n eps = 6e-14 at n = 257.
    """
    if dtype == torch.float64:
        return 1e-13 * max(1, norm), 2e-14, 1e-13 * max(1, norm)
    gradient = 2e-6 if norm <= math.pi else 1e-5 if norm <= 10 else 3e-5 if norm <= 50 else 1e-6 * norm
    return 1e-6 * max(1, norm), 3e-6, gradient


@functools.cache
def oracle(dtype, spectrum, n, norm):
    """A generator and an incoming gradient with what must come out, made once for both backends."""
    S, G = skew_matrix(n, norm, spectrum, dtype), torch.randn(n, n).to(dtype)
    return S, G, exact_exponential(S), exact_exponential_gradient(S, G)


def value_and_gradient(S, G, **options):
    S = S.detach().clone().requires_grad_()
    Q = skew_expm(S, **options)
    Q.backward(G)
    return Q.detach(), S.grad


def generators(*batch, n=5, norm=1.0):
    """A (*batch, n, n) with A - A^T of that spectral norm: an input that may be perturbed freely."""
    A = torch.randn(*batch, n, n, dtype=torch.float64)
    return A * (norm / torch.linalg.matrix_norm(A - A.mT, 2).clamp_min(1e-9)[..., None, None])


@pytest.mark.parametrize("spectrum", ["gaussian", "flat"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "norm", "scale"), CASES)
def test_value_and_gradient_against_the_eigendecomposition(backend, dtype, spectrum, n, norm, scale):
    S, G, exact, exact_gradient = oracle(dtype, spectrum, n, norm)
    Q, grad_S = value_and_gradient(S, G * scale, backend=backend)
    forward, orthogonality, gradient = bounds(dtype, norm)
    assert float((Q.double() - exact).abs().max()) <= forward
    assert orthogonality_error(Q) <= orthogonality
    assert relative_error(grad_S, exact_gradient * scale) <= gradient
    assert torch.equal(grad_S, -grad_S.mT)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 3, 65])
def test_zero_gives_the_identity_exactly(backend, dtype, n):
    assert torch.equal(skew_expm(torch.zeros(n, n, dtype=dtype), backend=backend), torch.eye(n, dtype=dtype))
    S = skew_matrix(n, 2.0, dtype=dtype)
    assert torch.equal(skew_expm(S, 0.0, backend=backend), torch.eye(n, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tiny_generator_keeps_its_relative_accuracy(backend, dtype):
    S = skew_matrix(6, 1e-7, dtype=dtype)
    off = skew_expm(S, backend=backend) - torch.eye(6, dtype=dtype)
    # off-diagonal entries are S_ij to a relative |S| = 1e-7 (float64: the second term) or rounding
    off.fill_diagonal_(0)
    assert relative_error(off, S) <= 1e-6


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [1, 20])
def test_the_negative_gives_the_inverse(backend, dtype, norm):
    S = skew_matrix(70, norm, dtype=dtype)
    product = skew_expm(S, backend=backend) @ skew_expm(-S, backend=backend)
    # two factors, each to bounds(), and a product of 70 terms
    assert float((product - torch.eye(70, dtype=dtype)).abs().max()) <= 2 * bounds(dtype, norm)[0] + 1e-5 * (
        dtype == torch.float32
    )


def test_one_generator_at_many_times(backend):
    S, dt = skew_matrix(9, 3.0), torch.tensor([0.0, 0.5, -1.5, 7.0], dtype=torch.float64)
    G = torch.randn(4, 9, 9, dtype=torch.float64)
    S.requires_grad_(), dt.requires_grad_()
    Q = skew_expm(S, dt, backend=backend)
    Q.backward(G)
    assert Q.shape == (4, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(Q, torch.stack([exact_exponential(t * S) for t in dt]), atol=1e-12, rtol=0)
        one_by_one = [exact_exponential_gradient(t * S, g) for t, g in zip(dt, G, strict=True)]
        expected = sum(t * g for t, g in zip(dt, one_by_one, strict=True))
        torch.testing.assert_close(S.grad, expected, atol=1e-11, rtol=0)
        torch.testing.assert_close(dt.grad, torch.stack([(g * S).sum() for g in one_by_one]), atol=1e-11, rtol=0)


def test_batches_broadcast(backend):
    S, dt = torch.stack([skew_matrix(4, 1.0), skew_matrix(4, 9.0)]), torch.rand(3, 1, dtype=torch.float64)
    Q = skew_expm(S, dt, backend=backend)
    assert Q.shape == (3, 2, 4, 4)
    torch.testing.assert_close(Q[2, 1], skew_expm(S[1], float(dt[2, 0]), backend=backend), atol=1e-14, rtol=0)
    assert skew_expm(S[:1], dt, backend=backend).shape == (3, 1, 4, 4)


def test_every_matrix_of_a_batch_has_its_own_scaling(backend):
    norms = (0, 0.1, 2, 6, 30, 400, 1e5)
    S, G = torch.stack([skew_matrix(7, norm) for norm in norms]), torch.randn(7, 7, 7, dtype=torch.float64)
    Q, grad_S = value_and_gradient(S, G, backend=backend)
    for k, norm in enumerate(norms):
        alone = value_and_gradient(S[k], G[k], backend=backend)
        torch.testing.assert_close(Q[k], alone[0], atol=1e-13 * max(1, norm), rtol=0)
        torch.testing.assert_close(grad_S[k], alone[1], atol=1e-11 * max(1, norm), rtol=0)


def test_commutator_identity(backend):
    S, G = skew_matrix(20, 3.0), torch.randn(20, 20, dtype=torch.float64)
    Q, grad_S = value_and_gradient(S, G, backend=backend)
    Z = (Q.mT @ G - G.mT @ Q) / 2
    torch.testing.assert_close(S @ grad_S - grad_S @ S, Q @ Z @ Q.mT - Z, atol=1e-12, rtol=0)


@pytest.mark.parametrize("n", [17, 70])
@pytest.mark.parametrize("norm", [1, 30])
def test_the_gradient_is_linear_in_the_incoming_one(backend, n, norm):
    S, G = skew_matrix(n, norm, dtype=torch.float32), torch.randn(n, n)
    once = value_and_gradient(S, G, backend=backend)[1]
    # a power of two scales every rounding with it
    assert torch.equal(value_and_gradient(S, G * 2.0**20, backend=backend)[1], once * 2.0**20)
    assert torch.equal(value_and_gradient(S, G * 2.0**-20, backend=backend)[1], once * 2.0**-20)


@fast_and_thorough
@pytest.mark.parametrize("norm", [0.05, 1, 3.5, 9, 100])
def test_gradcheck(backend, norm, fast):
    A, dt = generators(2, n=4, norm=norm).requires_grad_(), torch.tensor([0.7, -1.0], dtype=torch.float64)
    dt.requires_grad_()

    def f(A, dt):
        return skew_expm(A - A.mT, dt, backend=backend)

    # central differences of a rotation by `norm` are good to about norm eps / 1e-6
    assert torch.autograd.gradcheck(f, (A, dt), atol=1e-5 * max(1, norm / 10), fast_mode=fast)
    if norm < 100:
        assert torch.autograd.gradgradcheck(f, (A, dt), fast_mode=fast)


@fast_and_thorough
@pytest.mark.parametrize("n", [1, 5, 17])
def test_gradgradcheck_of_every_size(backend, n, fast):
    A = generators(n=n, norm=2.0).requires_grad_()
    fast = fast or n > 5
    assert torch.autograd.gradcheck(lambda A: skew_expm(A - A.mT, 0.5, backend=backend), (A,), fast_mode=fast)
    assert torch.autograd.gradgradcheck(lambda A: skew_expm(A - A.mT, 0.5, backend=backend), (A,), fast_mode=fast)


def test_the_skew_part_is_what_counts(backend):
    S = skew_matrix(5, 1.0) + 1e-9 * torch.randn(5, 5, dtype=torch.float64)
    Q, grad_S = value_and_gradient(S, torch.randn(5, 5, dtype=torch.float64), backend=backend)
    assert orthogonality_error(Q) <= 1e-14
    assert torch.equal(grad_S, -grad_S.mT)


def test_only_the_gradients_asked_for(backend):
    S, dt, G = skew_matrix(5, 1.0), torch.tensor(2.0, dtype=torch.float64), torch.randn(5, 5, dtype=torch.float64)
    both = torch.autograd.grad(skew_expm(S.requires_grad_(), dt.requires_grad_(), backend=backend), (S, dt), G)
    of_dt = torch.autograd.grad(skew_expm(S.detach(), dt, backend=backend), dt, G)
    torch.testing.assert_close(of_dt[0], both[1])
    assert not skew_expm(S.detach(), backend=backend).requires_grad


def test_batches_of_nothing_and_of_one(backend):
    S = torch.empty(0, 3, 3, requires_grad=True)
    Q = skew_expm(S, torch.empty(0), backend=backend)
    Q.sum().backward()
    assert Q.shape == S.grad.shape == (0, 3, 3)
    S = skew_matrix(3, 1.0)
    assert torch.equal(skew_expm(S[None], backend=backend)[0], skew_expm(S, backend=backend))


@pytest.mark.parametrize("n", [5, 70])
def test_non_contiguous_inputs(backend, n):
    S = torch.stack([skew_matrix(n, 1.0), skew_matrix(n, 4.0)])
    dt, G = torch.tensor([0.5, 2.0], dtype=torch.float64), torch.randn(2, n, n, dtype=torch.float64)
    results = []
    for layout in (torch.clone, non_contiguous):
        a, t = layout(S).requires_grad_(), layout(dt).requires_grad_()
        Q = skew_expm(a, t, backend=backend)
        results.append((Q, *torch.autograd.grad(Q, (a, t), layout(G))))
    # a product may choose another order of its sums for another layout
    for plain, strided in zip(*results, strict=True):
        torch.testing.assert_close(strided, plain, rtol=0, atol=1e-12)
    torch.testing.assert_close(skew_expm(S.mT, backend=backend), skew_expm(-S, backend=backend), rtol=0, atol=1e-13)


def test_the_same_input_gives_the_same_bits_and_backward_may_run_twice(backend):
    S, G = skew_matrix(40, 9.0, dtype=torch.float32).expand(6, 40, 40).clone().requires_grad_(), torch.randn(6, 40, 40)
    Q = skew_expm(S, backend=backend)
    first, second = (torch.autograd.grad(Q, S, G, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(Q, skew_expm(S, backend=backend))


@pytest.mark.parametrize("norm", [1.0, 9.0, 500.0])
@pytest.mark.parametrize("dtype", quick(DTYPES, torch.float64))
def test_library_ops(dtype, norm):
    S, dt = skew_matrix(4, norm, dtype=dtype).expand(2, 4, 4).contiguous(), torch.tensor([1.0, 0.5], dtype=dtype)
    Q, saved = torch.ops.vfrnn_kernels.skew_expm(S, dt)
    assert saved.shape[1] == saved_sizes({}, (S,))["L"]
    # test_aot_dispatch compares every entry of `saved`: few squarings leave some levels unwritten, norm 500 none
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    everything = (*checks, "test_aot_dispatch_dynamic")
    op = torch.ops.vfrnn_kernels.skew_expm.default
    torch.library.opcheck(op, (S, dt), test_utils=everything if norm == 500 else checks)
    for needs in (1, 2, 3):
        torch.library.opcheck(torch.ops.vfrnn_kernels.skew_expm_backward.default, (Q, S, dt, Q, saved, needs))


@pytest.mark.parametrize("backend", quick(["cpu", "reference"], "cpu"))
def test_compile(backend):
    S, dt = skew_matrix(5, 6.0).requires_grad_(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    G = torch.randn(5, 5, dtype=torch.float64)

    def f(S, dt):
        return (skew_expm(2 * S, dt, backend=backend) * G).sum()

    expected = torch.autograd.grad(f(S, dt), (S, dt))
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(S, dt), (S, dt)), expected)


def test_functional_transforms(backend):
    A, G = generators(3, n=4, norm=4.0), torch.randn(4, 4, dtype=torch.float64)

    def f(A):
        return (skew_expm(A - A.mT, backend=backend) * G).sum()

    torch.testing.assert_close(torch.func.vmap(f)(A), torch.stack([f(a) for a in A]))
    gradients = torch.func.vmap(torch.func.grad(f))(A)
    torch.testing.assert_close(gradients, torch.stack([torch.func.grad(f)(a) for a in A]))
    hessian = torch.func.jacrev(torch.func.grad(f))(A[0])
    direction = torch.randn(4, 4, dtype=torch.float64)
    step = 1e-5 * direction
    difference = (torch.func.grad(f)(A[0] + step) - torch.func.grad(f)(A[0] - step)) / 2e-5
    # central differences: 1e-10 from the step, 1e-11 from rounding
    torch.testing.assert_close(torch.einsum("ijkl,kl->ij", hessian, direction), difference, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_the_float32_result(dtype):
    S, G = skew_matrix(6, 3.0, dtype=torch.float32).to(dtype), torch.randn(6, 6).to(dtype)
    with pytest.warns(RuntimeWarning, match=r"skew_expm runs on plain PyTorch \(slow\); cpu: it computes skew_expm in"):
        Q, grad_S = value_and_gradient(S, G)
    assert Q.dtype == grad_S.dtype == dtype
    wide = value_and_gradient(S.float(), G.float(), backend="reference")
    torch.testing.assert_close((Q, grad_S), tuple(t.to(dtype) for t in wide))


def test_norms_of_a_million_and_beyond(backend):
    # The drift doubles with every squaring, to eps 2^13 = 1e-3 and eps 2^19 = 0.06, a few times over; the Newton-Schulz
    # step at the end squares it.
    for norm, bound in ((1e4, 1e-5), (1e6, 0.1)):
        assert orthogonality_error(skew_expm(skew_matrix(5, norm, "flat", torch.float32), backend=backend)) <= bound
    limit = scheme(torch.float32).theta * 2**MAX_SQUARINGS
    for norm in (1.1 * limit, 1e15, 1e30):
        with pytest.raises(RuntimeError, match=r"dt \* S must have a spectral norm below 2\.62"):
            skew_expm(skew_matrix(5, norm, "flat", torch.float32), backend=backend)


def test_wrong_values_are_named(backend):
    S = skew_matrix(40, 1.0)
    for bad in (math.nan, math.inf):
        broken = S.clone()
        broken[39, 3] = bad
        with pytest.raises(RuntimeError, match="S must be finite"):
            skew_expm(broken, backend=backend)
    with pytest.raises(RuntimeError, match=r"S must be skew-symmetric, S = -S\^T, but max \|S \+ S\^T\| = 2"):
        skew_expm(S + torch.eye(40, dtype=torch.float64), backend=backend)
    with pytest.raises(RuntimeError, match="S must be skew-symmetric"):
        skew_expm(torch.stack([S, S.abs()]), backend=backend)
    with pytest.raises(RuntimeError, match="dt must be finite"):
        skew_expm(S, torch.tensor(math.nan, dtype=torch.float64), backend=backend)


@pytest.mark.slow
def test_what_cannot_be_checked_comes_out_as_nan():
    # as on a device, where a check would cost a synchronisation: here because the values are traced
    S = torch.stack([skew_matrix(4, 1.0), skew_matrix(4, 1.0) * math.nan, skew_matrix(4, 1e12)])
    S.requires_grad_()
    compiled = torch.compile(lambda S: skew_expm(S, backend="reference"), fullgraph=True, backend="aot_eager")
    Q = compiled(S)
    Q.backward(torch.ones_like(Q))
    torch.testing.assert_close(Q[0], exact_exponential(S[0].detach()), atol=1e-13, rtol=0)
    assert S.grad[0].isfinite().all()
    assert Q[1:].isnan().all()
    assert S.grad[1:].isnan().all()


def test_shapes_without_values(backend):
    S = torch.empty(2, 5, 5, device="meta", requires_grad=True)
    Q = skew_expm(S, backend=backend)
    assert Q.shape == (2, 5, 5)
    assert Q.device.type == "meta"


@pytest.mark.parametrize(
    ("S", "dt", "error", "message"),
    [
        ([[0.0]], 1.0, TypeError, "S must be a tensor, got list"),
        (torch.zeros(3), 1.0, ValueError, r"S must have shape \(..., n, n\), got \(3,\)"),
        (torch.zeros(2, 3), 1.0, ValueError, r"S must have shape \(..., n, n\) with n = [23], got \(2, 3\)"),
        (torch.zeros(0, 0), 1.0, ValueError, r"S must have at least one row, got shape \(0, 0\)"),
        (torch.zeros(2, 2, dtype=torch.int64), 1.0, TypeError, "S must be float32"),
        (torch.zeros(2, 2, dtype=torch.complex64), 1.0, TypeError, "S must be float32"),
        (torch.zeros(2, 2), torch.zeros((), dtype=torch.float64), TypeError, "dt must have the dtype of S"),
        (torch.zeros(2, 2), torch.zeros((), device="meta"), ValueError, "dt must be on the device of S"),
        (torch.zeros(2, 2), "1", TypeError, "dt must be a number or a tensor, got str"),
        (torch.zeros(2, 2), 1j, TypeError, "dt must be a number or a tensor, got complex"),
        (torch.zeros(2, 2), math.inf, ValueError, "dt must be finite, got inf"),
        (torch.zeros(2, 2), 1e300, ValueError, r"dt must be at most 3.4e\+38, .* got 1e\+300"),
        (torch.zeros(2, 2), torch.zeros(()).expand(2**62), ValueError, r"dt must give tensors of fewer than 2\*\*63"),
        (torch.zeros(3, 2, 2), torch.zeros(2), ValueError, r"dt must broadcast with the batch shape of S, \(3,\)"),
    ],
)
def test_wrong_arguments_are_named(S, dt, error, message):
    with pytest.raises(error, match=message):
        skew_expm(S, dt)
    with pytest.raises(ValueError, match="backend must be one of"):
        skew_expm(torch.zeros(2, 2), backend="gpu")


def test_the_reference_is_the_definition():
    S, dt = skew_matrix(5, 4.0)[None], torch.ones(1, dtype=torch.float64)
    assert torch.equal(skew_expm_reference(S, dt)[0][0], skew_expm(S[0], backend="reference"))
