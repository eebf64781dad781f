"""field_flow against diag(e) exp(tau S) diag(e), repeated, in float64, and its hand-written gradients."""

import pytest
import torch

from tests.cases import (
    DTYPES,
    dense_flow,
    fast_and_thorough,
    generator,
    non_contiguous,
    quick,
    random_mesh,
    relative_error,
)
from vfrnn_kernels.declaration import OPS
from vfrnn_kernels.field_flow import field_flow
from vfrnn_kernels.field_flow.reference_plan import generator_bound, planned_substeps, series_limit

F64 = torch.float64
NAMES = ("h", "v", "b", "w", "N", "G", "dt", "divergence_scale")
# The series ends within a few units of rounding of its limit; each substep adds some rounding of its own.
TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-13}


def inputs(n, m, d, B, *, norm=1.0, per_sample=True, dtype=F64, dt=0.8, scale=0.6):
    """Arguments in the order of NAMES with max ||S|| = norm."""
    b, w, N, G = random_mesh(n, m, d)
    v = torch.randn(*((B,) if per_sample else ()), m, d, dtype=F64)
    S, _ = generator(b, w, N, G, v if per_sample else v.unsqueeze(0))
    if S.numel():
        v = v * (norm / max(float(torch.linalg.matrix_norm(S, 2).max()), 1e-3))
    h = torch.randn(B, n, dtype=F64)
    scalars = torch.tensor(dt, dtype=F64), torch.tensor(scale, dtype=F64)
    return [t.to(dtype) for t in (h, v, b, w, N, G, *scalars)]


def leaves(arguments):
    return [t.clone().requires_grad_() for t in arguments]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize(("n", "m", "d"), [(1, 3, 2), (2, 1, 1), (3, 5, 2), (17, 9, 3), (190, 6, 4), (257, 5, 1)])
def test_values(backend, n, m, d, per_sample, dtype):
    arguments = inputs(n, m, d, 3, per_sample=per_sample, dtype=dtype)
    # 0.8 ||S|| is within the limits 0.6 and 0.1 for 2 and 10 substeps; the splitting itself depends on their number
    substeps = 2 if dtype == torch.float32 else 10
    expected = dense_flow(*(t.double() for t in arguments), substeps=substeps)
    result = field_flow(*arguments, substeps=substeps, backend=backend)
    assert result.dtype == dtype
    assert relative_error(result, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("B", [0, 1, 2, 37])
def test_batches(backend, B, per_sample):
    # 37 samples of a mesh with 5 cells are one chunk of the CPU kernel; see test_chunks for several
    arguments = leaves(inputs(5, 5, 2, B, per_sample=per_sample, norm=0.1))
    result = field_flow(*arguments, substeps=1, backend=backend)
    assert result.shape == (B, 5)
    grads = torch.autograd.grad(result.square().sum(), arguments)
    expected = dense_flow(*arguments, exponential=torch.matrix_exp)
    assert relative_error(result, expected) < 1e-13
    for grad, wanted in zip(grads, torch.autograd.grad(expected.square().sum(), arguments), strict=True):
        assert relative_error(grad, wanted) < 1e-12


@pytest.mark.parametrize("per_sample", [False, True])
def test_chunks(per_sample):
    # m n = 64 * 190 elements a sample: chunks of at most 21 samples, or four a thread
    B = 8 * torch.get_num_threads() + 29
    arguments = leaves(inputs(190, 64, 2, B, per_sample=per_sample, norm=0.1))
    grad = torch.randn(B, 190, dtype=F64)
    results = {}
    for backend in ("cpu", "reference"):
        result = field_flow(*arguments, substeps=1, backend=backend)
        results[backend] = (result, *torch.autograd.grad(result, arguments, grad))
    for mine, reference in zip(*results.values(), strict=True):
        assert relative_error(mine, reference) < 1e-12


@pytest.mark.parametrize("volume_preserving", [False, True])
@pytest.mark.parametrize("substeps", [1, 3])
@pytest.mark.parametrize("per_sample", [False, True])
def test_gradients_equal_autograd_through_the_dense_step(backend, per_sample, substeps, volume_preserving):
    arguments = leaves(inputs(17, 6, 3, 4, norm=0.1 * substeps, per_sample=per_sample))
    options = {"volume_preserving": volume_preserving, "substeps": substeps}
    grad = torch.randn(4, 17, dtype=F64)
    actual = torch.autograd.grad(field_flow(*arguments, **options, backend=backend), arguments, grad)
    dense = dense_flow(*arguments, **options, exponential=torch.matrix_exp)
    expected = torch.autograd.grad(dense, arguments, grad)
    for name, x, y in zip(NAMES, actual, expected, strict=True):
        assert x.shape == y.shape
        assert relative_error(x, y) < 1e-11, name


@pytest.mark.parametrize("order", [1, 2, 5, 12])
def test_order(backend, order):
    arguments = inputs(6, 4, 2, 2, norm=0.9 * series_limit(order, F64), dt=1.0)
    expected = dense_flow(*arguments)
    assert relative_error(field_flow(*arguments, order=order, substeps=1, backend=backend), expected) < 1e-13
    # The degree is the one asked for: p of degree 1 is I + tau S, without the divergence.
    h, v, b, w, N, G, dt, _ = arguments
    S, _ = generator(b, w, N, G, v)
    terms, expected = h, h
    for j in range(1, order + 1):
        terms = dt / j * torch.einsum("kij,kj->ki", S, terms)
        expected = expected + terms
    result = field_flow(h, v, b, w, N, G, dt, 0.0, order=order, substeps=1, backend=backend)
    torch.testing.assert_close(result, expected, rtol=0, atol=4e-15)


def test_series_limit():
    assert series_limit(8, torch.float32) == pytest.approx(0.6)
    assert series_limit(8, F64) == pytest.approx(0.1)
    assert series_limit(1, F64) ** 2 / 2 == pytest.approx(0.1**9 / 362880)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dt", [0.0, -1.3, 2.0])
def test_planned_substeps(backend, dt, dtype):
    arguments = leaves(inputs(17, 9, 2, 3, norm=0.4, dt=dt, dtype=dtype))
    v, b, w, N, G, dt = (t.detach() for t in arguments[1:-1])
    S, _ = generator(*(t.double() for t in (b, w, N, G, v)))
    norm = float(torch.linalg.matrix_norm(S, 2).max())
    bound = generator_bound(v, b, w, N, G)
    # The bound certainly holds, and is not absurd: on a random mesh it loses a factor of a few
    assert norm <= bound * (1 + 1e-5) <= 30 * norm
    k = planned_substeps(v, b, w, N, G, dt, 8)
    assert abs(float(dt)) * norm / k <= series_limit(8, dtype) * (1 + 1e-5)
    result = field_flow(*arguments, backend=backend)
    expected = dense_flow(*(t.double() for t in arguments), substeps=k, exponential=torch.matrix_exp)
    # eps of a substep times their number
    assert relative_error(result, expected) < TOLERANCE[dtype] * k
    grad = torch.randn(3, 17, dtype=dtype)
    actual = torch.autograd.grad(result, arguments, grad)
    wanted = torch.autograd.grad(expected, arguments, grad.double())
    for name, x, y in zip(NAMES, actual, wanted, strict=True):
        assert relative_error(x, y) < 10 * TOLERANCE[dtype] * k, name


def test_backends_plan_alike():
    for norm in (0.01, 0.7, 5.0):
        arguments = inputs(17, 9, 2, 3, norm=norm)
        k = planned_substeps(*(arguments[i] for i in (1, 2, 3, 4, 5, 6)), 8)
        same = field_flow(*arguments, substeps=k, backend="cpu")
        assert torch.equal(field_flow(*arguments, backend="cpu"), same)


def test_too_few_substeps(backend):
    arguments = inputs(17, 9, 2, 3, norm=4.0, dt=-1.0)
    with pytest.raises(RuntimeError, match=r"substeps must be at least \d+, got 2: \|dt\| \|\|S\|\| / substeps is at"):
        field_flow(*arguments, substeps=2, backend=backend)
    field_flow(*arguments, substeps=40, backend=backend)


def test_field_too_large_to_plan(backend):
    arguments = inputs(5, 4, 2, 2)
    arguments[1] = arguments[1] * 1e8
    with pytest.raises(RuntimeError, match="v is too large"):
        field_flow(*arguments, backend=backend)


def of_small_mesh(backend, per_sample, volume_preserving):
    """The op on a mesh of three cells as a function of its tensors, and these."""

    def function(*args):
        return field_flow(*args, volume_preserving=volume_preserving, substeps=2, backend=backend)

    return function, leaves(inputs(4, 3, 2, 2, norm=0.1, per_sample=per_sample))


@fast_and_thorough
@pytest.mark.parametrize("volume_preserving", [False, True])
@pytest.mark.parametrize("per_sample", [False, True])
def test_gradcheck(backend, per_sample, volume_preserving, fast):
    assert torch.autograd.gradcheck(*of_small_mesh(backend, per_sample, volume_preserving), fast_mode=fast)


@pytest.mark.parametrize("backend", quick(["cpu", "reference"], "cpu"))
@pytest.mark.parametrize("volume_preserving", quick([False, True], True))
@pytest.mark.parametrize("per_sample", [False, True])
def test_gradgradcheck(backend, per_sample, volume_preserving):
    assert torch.autograd.gradgradcheck(*of_small_mesh(backend, per_sample, volume_preserving), fast_mode=True)


@pytest.mark.slow
def test_gradgradcheck_full(backend):
    arguments = leaves(inputs(2, 2, 1, 1, norm=0.1))
    assert torch.autograd.gradgradcheck(lambda *args: field_flow(*args, substeps=1, backend=backend), arguments)


def test_gradcheck_fast_of_a_larger_mesh(backend):
    arguments = leaves(inputs(17, 3, 2, 2, norm=0.02))
    assert torch.autograd.gradcheck(lambda *args: field_flow(*args, backend=backend), arguments, fast_mode=True)


@pytest.mark.parametrize("asked", [("h",), ("v",), ("b", "dt"), ("N",), ("w", "divergence_scale"), ("G",)])
def test_only_the_gradients_asked_for(backend, asked):
    arguments = inputs(5, 6, 2, 3, norm=0.2)
    everything = leaves(arguments)
    expected = torch.autograd.grad(field_flow(*everything, substeps=2, backend=backend).sum(), everything)
    some = [t.clone().requires_grad_(name in asked) for name, t in zip(NAMES, arguments, strict=True)]
    field_flow(*some, substeps=2, backend=backend).sum().backward()
    for name, t, wanted in zip(NAMES, some, expected, strict=True):
        assert (t.grad is None) == (name not in asked)
        if t.grad is not None:
            assert relative_error(t.grad, wanted) < 1e-13


def test_backward_twice_gives_the_same_bits(backend):
    arguments = leaves(inputs(17, 9, 2, 5, norm=0.2, dtype=torch.float32))
    result = field_flow(*arguments, substeps=2, backend=backend)
    grad = torch.randn_like(result)
    first = torch.autograd.grad(result, arguments, grad, retain_graph=True)
    second = torch.autograd.grad(result, arguments, grad, retain_graph=True)
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def test_no_bit_depends_on_the_number_of_threads():
    arguments = leaves(inputs(190, 64, 2, 40, norm=0.2, dtype=torch.float32))
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            result = field_flow(*arguments, substeps=1, backend="cpu")
            results.append((result, *torch.autograd.grad(result.sum(), arguments)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))


def test_non_contiguous(backend):
    arguments = leaves(inputs(5, 6, 2, 3, norm=0.2))
    strided = [non_contiguous(t) for t in arguments]
    grad = torch.randn(3, 5, dtype=F64)
    result, expected = (field_flow(*a, substeps=2, backend=backend) for a in (strided, arguments))
    assert torch.equal(result, expected)
    grads = torch.autograd.grad(result, strided, non_contiguous(grad))
    for x, y in zip(grads, torch.autograd.grad(expected, arguments, grad), strict=True):
        assert torch.equal(x, y)


def test_divergence_scale_forms(backend):
    *arguments, scale = inputs(5, 6, 2, 3, norm=0.1)
    expected = field_flow(*arguments, scale, substeps=2, backend=backend)
    parameter = scale.reshape(1).requires_grad_()
    result = field_flow(*arguments, parameter, substeps=2, backend=backend)
    assert torch.equal(result, expected)
    result.sum().backward()
    assert parameter.grad.shape == (1,)
    assert torch.equal(field_flow(*arguments, 0.6, substeps=2, backend=backend), expected)


def test_orthogonal_without_divergence(backend):
    h, *rest = inputs(17, 9, 2, 3, norm=0.6, scale=0.0)
    result = field_flow(h, *rest, backend=backend)
    torch.testing.assert_close(result.norm(dim=-1), h.norm(dim=-1), rtol=1e-13, atol=0)


def test_the_flow_keeps_constants_to_second_order(backend):
    # T_v 1 = 0: in symmetric coordinates B^1/2 1 stays, up to the splitting error, which a substep takes to third order
    h, *rest = inputs(6, 8, 2, 1, norm=0.5, dt=1.0, scale=1.0)
    h = rest[1].sqrt().expand(1, 6).contiguous()
    errors = [float((field_flow(h, *rest, substeps=k, backend=backend) - h).norm()) for k in (10, 20)]
    assert errors[0] > 1e-6  # else there would be nothing to measure
    assert 3.6 < errors[0] / errors[1] < 4.4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_is_float32_rounded(dtype):
    arguments = leaves(inputs(5, 6, 2, 3, norm=0.3, dtype=dtype))
    result = field_flow(*arguments, backend="reference")
    grads = torch.autograd.grad(result.float().sum(), arguments)
    full = [t.detach().float().requires_grad_() for t in arguments]
    expected = field_flow(*full, backend="reference")
    assert result.dtype == dtype
    assert torch.equal(result, expected.to(dtype))
    for x, y in zip(grads, torch.autograd.grad(expected.sum(), full), strict=True):
        assert x.dtype == dtype
        # the incoming gradient is 1, exact in both
        assert torch.equal(x, y.to(dtype))


@pytest.mark.parametrize("substeps", [0, 2])
def test_opcheck(substeps):
    h, v, *rest = inputs(4, 3, 2, 2, norm=0.1)
    constants = (True, 8, substeps)
    forward = torch.ops.vfrnn_kernels.field_flow
    torch.library.opcheck(forward, (h, v, *rest, *constants))
    results = forward(h, v, *rest, *constants)
    for needs in (255, 1, 0b0100_0010):
        arguments = (torch.randn_like(h), h, v, *rest, *results, *constants, needs)
        torch.library.opcheck(torch.ops.vfrnn_kernels.field_flow_backward, arguments)


@pytest.mark.parametrize("substeps", [None, 2])
def test_compile(substeps):
    arguments = leaves(inputs(4, 3, 2, 2, norm=0.1))

    def step(*args):
        return field_flow(*args, substeps=substeps, backend="cpu").square().sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for x, y in zip(*(torch.autograd.grad(f(*arguments), arguments) for f in (step, compiled)), strict=True):
        assert torch.equal(x, y)


@pytest.mark.slow
def test_compile_reference():
    arguments = leaves(inputs(3, 2, 1, 1, norm=1e-5))

    def step(*args):
        return field_flow(*args, order=2, substeps=1, backend="reference")

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), step(*arguments))


def test_vmap_and_grad(backend):
    h, *rest = inputs(4, 3, 2, 2, norm=0.1, per_sample=False)

    def loss(h):
        return field_flow(h, *rest, substeps=2, backend=backend).square().sum()

    batch = torch.stack([h, 2 * h, -h])
    expected = torch.stack([torch.func.grad(loss)(x) for x in batch])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(batch), expected)
    jacobian = torch.func.jacrev(lambda x: field_flow(x, *rest, substeps=2, backend=backend))(h)
    torch.testing.assert_close(torch.einsum("abij,ij->ab", jacobian, h), field_flow(h, *rest, substeps=2))


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, x) for name in "bwv" for x in (float("nan"), float("inf"), -1.0) if (name, x) != ("v", -1)],
)
def test_values_out_of_range(backend, name, value):
    arguments = inputs(4, 3, 2, 2)
    arguments[NAMES.index(name)].view(-1)[-1] = value
    with pytest.raises(RuntimeError, match=f"{name} must be"):
        field_flow(*arguments, substeps=1000, backend=backend)


def test_nan_in_the_state_stays_in_its_sample(backend):
    arguments = inputs(4, 3, 2, 2, norm=0.1)
    arguments[0][0, 1] = float("nan")
    result = field_flow(*arguments, substeps=2, backend=backend)
    assert result[0].isnan().all()
    assert result[1].isfinite().all()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"N": None, "G": None}, ValueError, "use strang_step"),
        ({"h": torch.zeros(4, dtype=F64)}, ValueError, r"h must have shape \(B, n\), got \(4,\)"),
        ({"h": torch.zeros(2, 5, dtype=F64)}, ValueError, r"h must have shape \(B, n\) with n = 4, got \(2, 5\)"),
        ({"h": torch.zeros(2, 4, dtype=torch.int64)}, TypeError, "h must be float32"),
        ({"v": torch.zeros(3, 3, 2, dtype=F64)}, ValueError, r"v must have shape \(m, d\) or \(B, m, d\) with B = 2"),
        ({"v": torch.zeros(3, 2)}, TypeError, "v must have the dtype of h"),
        ({"b": torch.ones(4)}, TypeError, "b must have the dtype of h"),
        ({"w": torch.ones(5, dtype=F64)}, ValueError, r"G must have shape \(m, d, n\)"),
        ({"N": torch.ones(3, 5, dtype=F64)}, ValueError, r"N must have shape \(m, n\)"),
        ({"G": torch.ones(3, 4, dtype=F64)}, ValueError, r"G must have shape \(m, d, n\), got"),
        ({"dt": torch.ones(2, dtype=F64)}, ValueError, "dt must have shape"),
        ({"dt": float("nan")}, ValueError, "dt must be finite"),
        ({"dt": "1"}, TypeError, "dt must be a number"),
        ({"divergence_scale": torch.ones(2, dtype=F64)}, ValueError, "divergence_scale must have shape"),
        ({"order": 0}, ValueError, "order must be at least 1"),
        ({"order": None}, TypeError, "order must be an int, got NoneType"),
        ({"substeps": 2**40}, ValueError, "substeps must be at most 1000000"),
        ({"substeps": 0}, ValueError, "substeps must be at least 1"),
        ({"substeps": 1.5}, TypeError, "substeps must be an int"),
        ({"backend": "gpu"}, ValueError, "backend must be one of"),
    ],
    ids=str,
)
def test_bad_arguments(changes, error, message):
    arguments = dict(zip(NAMES, inputs(4, 3, 2, 2), strict=True))
    with pytest.raises(error, match=message):
        field_flow(**{**arguments, **changes})


def test_planning_elsewhere_is_refused():
    arguments = [t.to("meta") for t in inputs(4, 3, 2, 2)]
    with pytest.raises(ValueError, match="substeps must be given here"):
        field_flow(*arguments, backend="reference")
    assert field_flow(*arguments, substeps=3, backend="reference").shape == (2, 4)


def test_gradient_of_b_where_the_field_is_small(backend):
    found = []
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        h, v, b, w, N, G, dt, scale = (t.to(dtype) for t in OPS["field_flow"].sample(5).leaves.values())
        moved = field_flow(h, 1e-9 * v, b.requires_grad_(), w, N, G, dt, scale, backend=backend)
        found.append(torch.autograd.grad(moved.sum(), b)[0])
    assert relative_error(*found) < 1e-5  # a difference of states, which are 1, would be off by 1e-7 / 1e-9
