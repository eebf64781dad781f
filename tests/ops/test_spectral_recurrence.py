"""spectral_recurrence against a loop of dense matrix exponentials in float64, its gradients, the spectral form."""

import math

import pytest
import torch

from tests import oracles
from tests.cases import ACTIVATIONS, DTYPES, beta_for, non_contiguous, quick, relative_error
from vfrnn_kernels import recurrence, spectral_recurrence, strang_step
from vfrnn_kernels.spectral_recurrence.planes import planes_of

F64 = torch.float64
NAMES = ("x", "U", "c", "S", "delta", "dt", "h0", "beta")
TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-13}
TIMES = (0.3, 1.7, 0.0, -0.8, 2.5)  # taken in turn


def skew(A):
    return (A - A.mT) / 2


def turning(frequencies, n):
    """A skew-symmetric matrix (n, n) that turns planes at these frequencies, and no others."""
    D = torch.zeros(n, n, dtype=F64)
    for j, frequency in enumerate(frequencies):
        D[2 * j + 1, 2 * j], D[2 * j, 2 * j + 1] = frequency, -frequency
    rotation = torch.linalg.qr(torch.randn(n, n, dtype=F64)).Q
    return skew(rotation @ D @ rotation.mT)


GENERATORS = {
    "generic": lambda: skew(torch.randn(7, 7, dtype=F64)),
    "repeated": lambda: turning([1.3, 1.3, 0.4], 7),
    "gap of 1e-9": lambda: turning([1.3, 1.3 + 1e-9, 0.4], 7),
    "gap of 1e-4": lambda: turning([1.3, 1.3 + 1e-4, 0.4], 7),
    "opposite": lambda: turning([0.2, -0.2, 1.0], 6),
    "nearly still": lambda: turning([1.0, 1e-5, 1e-10], 6),
    "zero": lambda: torch.zeros(5, 5, dtype=F64),
    "one plane of six": lambda: turning([0.7], 6),
    "one unit": lambda: torch.zeros(1, 1, dtype=F64),
}


def inputs(T, B, S, i=2, activation="modrelu", *, dtype=F64, divergence=True):
    """Arguments in the order of NAMES."""
    n = S.shape[0]
    x, U, c = torch.randn(T, B, i, dtype=F64), 0.5 * torch.randn(n, i, dtype=F64), 0.3 * torch.randn(n, dtype=F64)
    delta = 0.3 * torch.randn(n, dtype=F64) if divergence else None
    dt = torch.tensor(TIMES, dtype=F64).repeat(T * B)[: T * B].reshape(B, T).mT
    tensors = (x, U, c, S, delta, dt, torch.randn(B, n, dtype=F64), beta_for(activation, n, 0.1))
    return [None if t is None else t.to(dtype) for t in tensors]


def leaves(arguments):
    return [None if t is None else t.clone().requires_grad_() for t in arguments]


def present(arguments):
    return [t for t in arguments if t is not None]


def run(arguments, activation, **options):
    *tensors, beta = arguments
    return spectral_recurrence(*tensors, activation, beta, **options)


def loop(arguments, activation, substeps=1):
    """The states step by step, each with the exponentials of its samples."""
    x, U, c, S, delta, dt, h, beta = arguments
    hs = []
    for x_t, times in zip(x, dt, strict=True):
        Q = torch.matrix_exp(times[:, None, None] * skew(S) / substeps)
        e = 1.0 if delta is None else torch.exp(-times[:, None] * delta / (4 * substeps))
        for _ in range(substeps):
            h = e * (Q @ (e * h).unsqueeze(-1)).squeeze(-1)
        z = h + x_t @ U.mT
        h = oracles.activate(activation, z if c is None else z + c, beta)
        hs.append(h)
    return torch.stack(hs)


def assert_right(arguments, activation, backend, substeps=1):
    dtype = arguments[0].dtype
    mine, exact = leaves(arguments), leaves([None if t is None else t.double() for t in arguments])
    hs = run(mine, activation, substeps=substeps, backend=backend)
    expected = loop(exact, activation, substeps)
    assert (hs.shape, hs.dtype) == (expected.shape, dtype)
    assert relative_error(hs, expected) < TOLERANCE[dtype]
    grad = torch.randn(hs.shape, dtype=dtype)
    found = torch.autograd.grad(hs, present(mine), grad)
    wanted = torch.autograd.grad(expected, present(exact), grad.double())
    names = [name for name, t in zip(NAMES, arguments, strict=True) if t is not None]
    for name, x, y in zip(names, found, wanted, strict=True):
        assert (x.shape, x.dtype) == (y.shape, dtype)
        assert (x.double() - y).norm() < 10 * TOLERANCE[dtype] * max(float(y.norm()), 1.0), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("divergence", "substeps"), quick([(True, 1), (True, 3), (False, 1)], (True, 3), (False, 1)))
def test_values_and_gradients(backend, activation, dtype, divergence, substeps):
    S = skew(torch.randn(17, 17, dtype=F64)) / 3
    assert_right(inputs(6, 3, S, 3, activation, dtype=dtype, divergence=divergence), activation, backend, substeps)


@pytest.mark.parametrize("name", GENERATORS)
def test_degenerate_generators(backend, name):
    for divergence in (False, True):
        assert_right(inputs(5, 2, GENERATORS[name](), divergence=divergence), "modrelu", backend)


@pytest.mark.parametrize(("T", "B", "n", "i"), [(1, 1, 2, 1), (2, 70, 3, 2), (3, 2, 64, 19), (12, 1, 33, 1)], ids=str)
def test_sizes(backend, T, B, n, i):
    assert_right(inputs(T, B, skew(torch.randn(n, n, dtype=F64)) / n**0.5, i), "modrelu", backend)


def test_several_blocks_of_steps():
    # the backward computes 8192 rows at a time again
    arguments = inputs(30, 600, skew(torch.randn(6, 6, dtype=F64)), activation="tanh")
    results = {}
    for backend in ("cpu", "reference"):
        mine = leaves(arguments)
        hs = run(mine, "tanh", backend=backend)
        results[backend] = (hs, *torch.autograd.grad(hs.square().sum(), present(mine)))
    for x, y in zip(*results.values(), strict=True):
        assert relative_error(x, y) < 1e-11


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_times_are_the_plain_recurrence(backend, dtype):
    arguments = leaves(inputs(9, 3, skew(torch.randn(12, 12, dtype=F64)) / 3, dtype=dtype))
    x, U, c, S, delta, _, h0, beta = arguments
    for dt, substeps in ((0.7, 1), (-1.1, 2)):
        arguments[5] = torch.full((9,), dt, dtype=dtype)
        hs = run(arguments, "modrelu", substeps=substeps, backend=backend)
        plain = recurrence(x, U, c, strang_step(S, delta, dt, substeps), h0, "modrelu", beta)
        assert relative_error(hs, plain) < TOLERANCE[dtype]
        given = [x, U, c, S, delta, h0, beta]
        pairs = zip(*(torch.autograd.grad(t.square().sum(), given) for t in (hs, plain)), strict=True)
        for mine, expected in pairs:
            assert relative_error(mine, expected) < 30 * TOLERANCE[dtype]


@pytest.mark.parametrize("size", [1e3, 1e5])
def test_long_times_in_double(size):
    # the angles are reduced without rounding: what is left is that of dt omega itself
    arguments = inputs(4, 2, GENERATORS["generic"](), divergence=False)
    arguments[5] = size * arguments[5]
    assert relative_error(run(arguments, "modrelu"), loop(arguments, "modrelu")) < 1e-14 * size


def test_absurd_times_are_refused():
    """Angles of which float32 knows no digit, as skew_expm refuses them; just below the bound lengths are kept."""
    arguments = inputs(3, 2, GENERATORS["generic"](), dtype=torch.float32, divergence=False)
    arguments[0], arguments[2] = 0 * arguments[0], None
    norm = float(torch.linalg.matrix_norm(arguments[3].double(), 2))
    arguments[5] = torch.full((3, 2), 2e6 / norm)
    hs = run([*arguments[:-1], None], "identity")
    assert torch.allclose(hs.norm(dim=-1), arguments[6].norm(dim=-1).expand(3, 2), rtol=1e-5)
    arguments[5] = torch.full((3, 2), 3e37)
    with pytest.raises(RuntimeError, match="dt \\* S must have a spectral norm below"):
        run([*arguments[:-1], None], "identity")


@pytest.mark.parametrize("name", GENERATORS)
def test_planes_of(name):
    S = GENERATORS[name]()
    n = S.shape[0]
    (cosines, sines), omega = planes_of(S, F64)
    planes = torch.cat([cosines, sines[: n // 2]])
    assert torch.allclose(planes @ planes.mT, torch.eye(n, dtype=F64), rtol=0, atol=1e-14)
    assert not sines[n // 2 :].any()
    assert (omega >= 0).all()
    product = sines.mT @ (omega[:, None] * cosines)
    assert torch.allclose(product - product.mT, S, rtol=0, atol=1e-14)


def of_tensors(arguments, activation, backend, **options):
    """The op as a function of the tensors that are given, for gradcheck."""

    def function(*tensors):
        left = iter(tensors)
        every = [None if t is None else next(left) for t in arguments]
        every[3] = skew(every[3])
        return run(every, activation, backend=backend, **options)

    return function


TURNING = [name for name in GENERATORS if name != "one unit"]


@pytest.mark.parametrize("name", TURNING)
def test_gradcheck_of_generators(backend, name):
    arguments = leaves(inputs(5, 1, GENERATORS[name](), activation="tanh"))
    assert torch.autograd.gradcheck(of_tensors(arguments, "tanh", backend), present(arguments), fast_mode=True)


# Second derivatives on one backend: all share those of the reference.
@pytest.mark.parametrize("name", quick(TURNING, "repeated"))
def test_gradgradcheck_of_generators(name):
    arguments = leaves(inputs(5, 1, GENERATORS[name](), activation="tanh"))
    assert torch.autograd.gradgradcheck(of_tensors(arguments, "tanh", "cpu"), present(arguments), fast_mode=True)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("T", "B"), [(1, 2), (3, 1)])
def test_gradcheck(backend, activation, T, B):
    arguments = leaves(inputs(T, B, GENERATORS["generic"](), activation=activation))
    function = of_tensors(arguments, activation, backend, substeps=2)
    assert torch.autograd.gradcheck(function, present(arguments), fast_mode=True)


@pytest.mark.parametrize("activation", quick(ACTIVATIONS, "modrelu"))
@pytest.mark.parametrize(("T", "B"), quick([(1, 2), (3, 1)], (3, 1)))
def test_gradgradcheck(activation, T, B):
    arguments = leaves(inputs(T, B, GENERATORS["generic"](), activation=activation))
    function = of_tensors(arguments, activation, "cpu", substeps=2)
    assert torch.autograd.gradgradcheck(function, present(arguments), fast_mode=True)


@pytest.mark.parametrize("asked", [("x",), ("U", "c"), ("S",), ("delta",), ("dt", "beta"), ("h0",)])
def test_only_the_gradients_asked_for(backend, asked):
    arguments = inputs(4, 3, GENERATORS["generic"]())
    everything = leaves(arguments)
    expected = torch.autograd.grad(run(everything, "modrelu", backend=backend).sum(), everything)
    some = [t.clone().requires_grad_(name in asked) for name, t in zip(NAMES, arguments, strict=True)]
    run(some, "modrelu", backend=backend).sum().backward()
    for name, t, wanted in zip(NAMES, some, expected, strict=True):
        assert (t.grad is None) == (name not in asked)
        if t.grad is not None:
            assert relative_error(t.grad, wanted) < 1e-13


def test_no_bit_of_the_chain_depends_on_the_number_of_threads():
    # without inputs: U x_t is PyTorch's product
    arguments = inputs(17, 70, skew(torch.randn(37, 37, dtype=F64)), 0, dtype=torch.float32)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(run(arguments, "modrelu", backend="cpu"))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_bits_of_a_sample_do_not_depend_on_its_place():
    arguments = inputs(5, 9, skew(torch.randn(37, 37, dtype=F64)), 0, dtype=torch.float32)
    one = [*arguments]
    one[0], one[5], one[6] = arguments[0][:, 4:5], arguments[5][:, 4:5], arguments[6][4:5]
    whole = run(arguments, "modrelu", backend="cpu")
    assert torch.equal(run(one, "modrelu", backend="cpu"), whole[:, 4:5])


@pytest.mark.parametrize(("T", "B", "i"), [(0, 3, 2), (5, 0, 1), (0, 0, 1), (3, 2, 0)], ids=str)
def test_nothing_to_do(backend, T, B, i):
    arguments = leaves(inputs(T, B, GENERATORS["generic"](), i))
    hs = run(arguments, "modrelu", backend=backend)
    assert hs.shape == (T, B, 7)
    for t, grad in zip(present(arguments), torch.autograd.grad(hs.sum(), present(arguments)), strict=True):
        assert grad.shape == t.shape
        assert grad.isfinite().all()


def test_non_contiguous(backend):
    arguments = leaves(inputs(4, 3, GENERATORS["generic"]()))
    strided = [non_contiguous(t) for t in arguments]
    strided[0] = arguments[0].detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()  # batch first
    grad = torch.randn(4, 3, 7, dtype=F64)
    mine, expected = (run(a, "modrelu", backend=backend) for a in (strided, arguments))
    assert relative_error(mine, expected) < 1e-14
    grads = torch.autograd.grad(mine, strided, non_contiguous(grad))
    for x, y in zip(grads, torch.autograd.grad(expected, arguments, grad), strict=True):
        assert relative_error(x, y) < 1e-13


def test_memory_grows_by_the_states_alone():
    arguments = leaves(inputs(50, 4, GENERATORS["generic"]()))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        run(arguments, "modrelu", backend="cpu")
    fresh = {t.data_ptr(): t.numel() for t in kept} | {t.data_ptr(): 0 for t in present(arguments)}
    assert sum(fresh.values()) <= 50 * 4 * 7 + 2 * 4 * 7 + 4  # hs and the spectral form


def test_opcheck():
    tensors = inputs(2, 2, GENERATORS["generic"]())
    constants = ("modrelu", 2)
    forward = torch.ops.vfrnn_kernels.spectral_recurrence
    torch.library.opcheck(forward, (*tensors, *constants))
    results = forward(*tensors, *constants)
    for needs in ((1 << 8) - 1, 0b0100_0010):
        arguments = (torch.randn_like(results[0]), *tensors, *results, *constants, needs)
        torch.library.opcheck(torch.ops.vfrnn_kernels.spectral_recurrence_backward, arguments)


def test_compile():
    arguments = leaves(inputs(3, 2, GENERATORS["generic"]()))

    def step(*args):
        return run(args, "modrelu", backend="cpu").square().sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for x, y in zip(*(torch.autograd.grad(f(*arguments), arguments) for f in (step, compiled)), strict=True):
        assert torch.equal(x, y)


def test_vmap_over_generators():
    arguments = inputs(3, 2, GENERATORS["generic"]())
    x, U, c, S, delta, dt, h0, beta = arguments
    many = torch.stack([S, skew(torch.randn(7, 7, dtype=F64))])

    def loss(S):
        return spectral_recurrence(x, U, c, S, delta, dt, h0, "modrelu", beta).square().sum()

    grads = torch.func.vmap(torch.func.grad(loss))(many)
    assert torch.allclose(grads, torch.stack([torch.func.grad(loss)(S) for S in many]))


def test_nan_in_the_state_stays_in_its_sample(backend):
    arguments = inputs(3, 2, GENERATORS["generic"]())
    arguments[6][0, 1] = math.nan
    hs = run(arguments, "modrelu", backend=backend)
    assert hs[:, 0].isnan().all()
    assert hs[:, 1].isfinite().all()


@pytest.mark.parametrize("name", ["dt", "S", "delta"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite(backend, name, value):
    arguments = inputs(3, 2, GENERATORS["generic"]())
    arguments[NAMES.index(name)] = torch.full_like(arguments[NAMES.index(name)], value)
    with pytest.raises(RuntimeError, match=f"{name} must be finite"):
        run(arguments, "modrelu", backend=backend)


def test_a_generator_that_is_not_skew(backend):
    arguments = inputs(3, 2, torch.eye(4, dtype=F64))
    with pytest.raises(RuntimeError, match="S must be skew-symmetric"):
        run(arguments, "modrelu", backend=backend)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.zeros(2, 2, dtype=F64)}, ValueError, r"x must have shape \(T, B, i\), got \(2, 2\)"),
        (
            {"x": torch.zeros(3, 2, 2, dtype=torch.float16)},
            TypeError,
            "x must be float32 or float64, got torch.float16",
        ),
        ({"U": torch.zeros(7, 3, dtype=F64)}, ValueError, r"U must have shape \(n, i\) with n = 7, i = 2"),
        ({"c": torch.zeros(5, dtype=F64)}, ValueError, r"c must have shape \(n,\) with n = 7, got \(5,\)"),
        ({"S": torch.zeros(7, 6, dtype=F64)}, ValueError, r"S must have shape \(n, n\) with n = 7"),
        ({"S": torch.zeros(0, 0, dtype=F64)}, ValueError, "S must have at least one row"),
        ({"delta": torch.zeros(6, dtype=F64)}, ValueError, r"delta must have shape \(n,\) with n = 7"),
        ({"dt": torch.ones(4, dtype=F64)}, ValueError, r"dt must have shape \(T,\) or \(T, B\) with T = 3, B = 2, got"),
        ({"dt": torch.ones(2, 3, dtype=F64)}, ValueError, r"dt must have shape \(T,\) or \(T, B\) with T = 3, B = 2"),
        ({"dt": torch.ones((), dtype=F64)}, ValueError, r"dt must have shape \(T,\) or \(T, B\)"),
        ({"dt": torch.ones(3)}, TypeError, "dt must have the dtype of x"),
        ({"dt": 1.0}, TypeError, "dt must be a tensor, got float"),
        ({"h0": torch.zeros(3, 7, dtype=F64)}, ValueError, r"h0 must have shape \(B, n\) with B = 2, n = 7, got"),
        ({"beta": None}, ValueError, "beta must be given when activation is 'modrelu', got None"),
        ({"activation": "gelu"}, ValueError, "activation must be one of"),
        ({"substeps": 0}, ValueError, "substeps must be at least 1"),
        ({"substeps": 2**62}, ValueError, "substeps must be at most 1000000"),
        ({"backend": "cuda"}, RuntimeError, "backend 'cuda'"),
        ({"backend": "triton"}, RuntimeError, "backend 'triton'"),
    ],
    ids=str,
)
def test_bad_arguments(changes, error, message):
    arguments = dict(zip(NAMES, inputs(3, 2, GENERATORS["generic"]()), strict=True)) | {"activation": "modrelu"}
    with pytest.raises(error, match=message):
        spectral_recurrence(**{**arguments, **changes})


def test_without_a_step_no_gradient_depends_on_the_generator():
    """Divided differences of frequencies so large are no numbers."""
    arguments = leaves(inputs(0, 0, skew(1e30 * torch.randn(2, 2)), dtype=torch.float32, divergence=False))
    (grad_S,) = torch.autograd.grad(run(arguments, "modrelu").sum(), arguments[NAMES.index("S")])
    assert not grad_S.any()
