"""flow_recurrence against a loop of dense matrix exponentials in float64, its gradients."""

import functools

import pytest
import torch

from tests.cases import (
    ACTIVATIONS,
    DTYPES,
    non_contiguous,
    quick,
    relative_error,
)
from tests.ops.flow_recurrence_cases import (
    F64,
    NAMES,
    assert_right,
    inputs,
    leaves,
    loop,
    present,
    run,
    symbols,
)
from vfrnn_kernels import field_flow, flow_recurrence


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_values_and_gradients(backend, activation, dtype):
    substeps, norm = (1, 0.5) if dtype == torch.float32 else (2, 0.2)
    assert_right(inputs(5, 3, 17, 6, 2, 3, activation, norm=norm, dtype=dtype), activation, backend, substeps)


@pytest.mark.parametrize(
    ("T", "B", "n", "m", "d", "i"),
    [(1, 1, 1, 1, 1, 1), (1, 3, 2, 1, 1, 2), (4, 1, 5, 9, 3, 1), (3, 2, 37, 4, 1, 19), (2, 70, 3, 2, 2, 1)],
    ids=str,
)
def test_sizes(backend, T, B, n, m, d, i):
    for volume_preserving in (False, True):
        assert_right(inputs(T, B, n, m, d, i), "modrelu", backend, 1, volume_preserving=volume_preserving)


def test_several_chunks_of_steps():
    # the CPU's backward takes as many steps at a time as have 2^18 numbers
    arguments = inputs(16, 60, 4, 290, 2, 2, "tanh", norm=0.05)
    results = {}
    for backend in ("cpu", "reference"):
        mine = leaves(arguments)
        hs = run(mine, "tanh", substeps=1, backend=backend)
        results[backend] = (hs, *torch.autograd.grad(hs.square().sum(), present(mine)))
    for x, y in zip(*results.values(), strict=True):
        assert relative_error(x, y) < 1e-12


def test_it_is_a_loop_of_field_flow(backend):
    arguments = inputs(6, 3, 17, 6, 2, 3, norm=0.7, dtype=torch.float32)
    with pytest.raises(RuntimeError, match="substeps must be at least"):
        run(arguments, "modrelu", substeps=1, order=2, backend=backend)
    hs = run(arguments, "modrelu", substeps=3, order=6, backend=backend)
    expected = loop(arguments, "modrelu", lambda *args: field_flow(*args, substeps=3, order=6, backend="reference"))
    assert relative_error(hs, expected) < 2e-6


def test_a_zero_field_is_the_identity(backend):
    arguments = leaves(inputs(4, 2, 5, 3, 2, 2, "tanh"))
    zero = [torch.zeros_like(t) if name in "vV" else t for name, t in zip(NAMES, arguments, strict=True)]
    x, U, c, h = arguments[0], arguments[1], arguments[2], arguments[9]
    expected = []
    for x_t in x:
        h = torch.tanh(h + x_t @ U.mT + c)
        expected.append(h)
    assert torch.allclose(run(zero, "tanh", backend=backend), torch.stack(expected), rtol=1e-14, atol=1e-15)
    assert_right([None if t is None else t.detach() for t in zero], "tanh", backend, 1)


def test_without_input_in_the_field_it_is_one_field_for_all(backend):
    arguments = inputs(4, 3, 6, 4, 2, 2, "tanh", norm=0.1)
    arguments[4] = torch.zeros_like(arguments[4])
    v = arguments[3]
    expected = loop(arguments, "tanh", lambda h, _, *rest: field_flow(h, v, *rest, substeps=1, backend="cpu"))
    assert relative_error(run(arguments, "tanh", substeps=1, backend=backend), expected) < 1e-14


@pytest.mark.parametrize(("T", "B", "i"), [(0, 3, 2), (5, 0, 1), (0, 0, 1), (3, 2, 0)], ids=str)
def test_nothing_to_do(backend, T, B, i):
    arguments = leaves(inputs(T, B, 4, 3, 2, i))
    hs = run(arguments, "modrelu", substeps=1, backend=backend)
    assert hs.shape == (T, B, 4)
    for t, grad in zip(present(arguments), torch.autograd.grad(hs.sum(), present(arguments)), strict=True):
        assert grad.shape == t.shape
        assert grad.isfinite().all()
    run([None if t is None else t.detach() for t in arguments], "modrelu", backend=backend)


def small_series(activation):
    """A short series, and fields that it is exact for: the function and its leaves."""
    arguments = leaves(inputs(3, 2, 4, 3, 2, 2, activation, norm=2e-3))

    def function(*tensors, backend):
        left = iter(tensors)
        every = [None if t is None else next(left) for t in arguments]
        return run(every, activation, volume_preserving=activation == "tanh", order=4, substeps=1, backend=backend)

    return function, present(arguments)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradcheck(backend, activation):
    function, given = small_series(activation)
    assert torch.autograd.gradcheck(functools.partial(function, backend=backend), given, fast_mode=True)


# On one backend: all share the derivatives of the reference.
@pytest.mark.parametrize("activation", quick(ACTIVATIONS, "modrelu"))
def test_gradgradcheck(activation):
    function, given = small_series(activation)
    assert torch.autograd.gradgradcheck(functools.partial(function, backend="cpu"), given, fast_mode=True)


@pytest.mark.parametrize("order", ["first", pytest.param("second", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("T", "B"), [(1, 2), (2, 1)])
def test_gradcheck_of_every_entry(T, B, order):
    arguments = leaves(inputs(T, B, 2, 2, 1, 1, norm=2e-3))
    check = torch.autograd.gradcheck if order == "first" else torch.autograd.gradgradcheck
    assert check(lambda *args: run(args, "modrelu", order=4, substeps=1), arguments)


@pytest.mark.parametrize(
    "asked",
    [("x",), ("U", "V"), ("c", "beta"), ("v",), ("b", "dt"), ("w",), ("N",), ("G", "divergence_scale"), ("h0",)],
)
def test_only_the_gradients_asked_for(backend, asked):
    arguments = inputs(4, 3, 5, 6, 2, 2)
    everything = leaves(arguments)
    expected = torch.autograd.grad(run(everything, "modrelu", substeps=2, backend=backend).sum(), everything)
    some = [t.clone().requires_grad_(name in asked) for name, t in zip(NAMES, arguments, strict=True)]
    run(some, "modrelu", substeps=2, backend=backend).sum().backward()
    for name, t, wanted in zip(NAMES, some, expected, strict=True):
        assert (t.grad is None) == (name not in asked)
        if t.grad is not None:
            assert relative_error(t.grad, wanted) < 1e-13


def test_no_bit_depends_on_the_number_of_threads():
    arguments = inputs(7, 70, 19, 6, 2, 3, dtype=torch.float32)
    threads = torch.get_num_threads()
    for given in (leaves(arguments), leaves(symbols(arguments, 3))):
        given[0].requires_grad_(False)
        results = []
        try:
            for count in (1, 3):
                torch.set_num_threads(count)
                hs = run(given, "modrelu", backend="cpu")
                results.append((hs, *torch.autograd.grad(hs.sum(), given[1:])))
        finally:
            torch.set_num_threads(threads)
        assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))


def test_a_sample_does_not_depend_on_the_others():
    # with given substeps, as planned ones are planned for all
    arguments = inputs(5, 9, 19, 6, 2, 3, dtype=torch.float32)
    for given in (arguments, symbols(arguments, 3)):
        whole = run(given, "modrelu", substeps=1)
        alone = [
            t[:, 3:4] if name == "x" else t[3:4] if name == "h0" else t for name, t in zip(NAMES, given, strict=True)
        ]
        assert torch.equal(run(alone, "modrelu", substeps=1), whole[:, 3:4])


def test_non_contiguous(backend):
    arguments = leaves(inputs(4, 3, 5, 6, 2, 3))
    strided = [non_contiguous(t) for t in arguments]
    strided[0] = arguments[0].detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()  # batch first
    grad = torch.randn(4, 3, 5, dtype=F64)
    mine, expected = (run(a, "modrelu", substeps=1, backend=backend) for a in (strided, arguments))
    assert relative_error(mine, expected) < 1e-14
    grads = torch.autograd.grad(mine, strided, non_contiguous(grad))
    for x, y in zip(grads, torch.autograd.grad(expected, arguments, grad), strict=True):
        assert relative_error(x, y) < 1e-13


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_is_float32_rounded(dtype):
    arguments = leaves(inputs(3, 2, 5, 6, 2, 2, dtype=dtype))
    hs = run(arguments, "modrelu", backend="reference")
    full = [t.detach().float().requires_grad_() for t in arguments]
    expected = run(full, "modrelu", backend="reference")
    assert torch.equal(hs, expected.to(dtype))
    grads = torch.autograd.grad(hs.float().sum(), arguments)
    for x, y in zip(grads, torch.autograd.grad(expected.sum(), full), strict=True):
        assert x.dtype == dtype
        # the derivatives start from the rounded states
        assert relative_error(x, y) < 20 * torch.finfo(dtype).eps
    with pytest.raises(RuntimeError, match="computes flow_recurrence in float32 and float64"):
        run(arguments, "modrelu", backend="cpu")


def test_opcheck():
    tensors = inputs(2, 2, 4, 3, 2, 2)
    constants = ("modrelu", True, 0, 0)
    forward = torch.ops.vfrnn_kernels.flow_recurrence
    torch.library.opcheck(forward, (*tensors, *constants))
    results = forward(*tensors, *constants)
    for needs in ((1 << 13) - 1, 0b0100_0010):
        arguments = (torch.randn_like(results[0]), *tensors, *results, *constants, needs)
        torch.library.opcheck(torch.ops.vfrnn_kernels.flow_recurrence_backward, arguments)


def test_compile():
    arguments = leaves(inputs(3, 2, 4, 3, 2, 2))

    def step(*args):
        return run(args, "modrelu", backend="cpu").square().sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for x, y in zip(*(torch.autograd.grad(f(*arguments), arguments) for f in (step, compiled)), strict=True):
        assert torch.equal(x, y)


def test_nan_in_the_state_stays_in_its_sample(backend):
    arguments = inputs(3, 2, 4, 3, 2, 2)
    arguments[9][0, 1] = float("nan")
    hs = run(arguments, "modrelu", substeps=1, backend=backend)
    assert hs[:, 0].isnan().all()
    assert hs[:, 1].isfinite().all()


@pytest.mark.parametrize("substeps", [None, 3])
@pytest.mark.parametrize(("name", "value"), [("x", float("nan")), ("V", float("inf")), ("b", -1.0), ("w", 0.0)])
def test_values_out_of_range(backend, name, value, substeps):
    arguments = inputs(3, 2, 4, 3, 2, 2)
    arguments[NAMES.index(name)].view(-1)[-1] = value
    with pytest.raises(RuntimeError, match=f"{name if name in 'bw' else 'v'}.* must be .*finite"):
        run(arguments, "modrelu", substeps=substeps, backend=backend)


def test_field_too_large_to_plan(backend):
    arguments = inputs(3, 2, 4, 3, 2, 2)
    arguments[4] = arguments[4] * 1e8
    with pytest.raises(RuntimeError, match="v is too large"):
        run(arguments, "modrelu", backend=backend)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"N": None, "G": None}, ValueError, "pass its dense N and G"),
        ({"x": torch.zeros(2, 2, dtype=F64)}, ValueError, r"x must have shape \(T, B, i\), got \(2, 2\)"),
        (
            {"U": torch.zeros(4, 3, dtype=F64)},
            ValueError,
            r"U must have shape \(n, i\) with n = 4, i = 2",
        ),
        ({"c": torch.zeros(5, dtype=F64)}, ValueError, r"c must have shape \(n,\) with n = 4, got \(5,\)"),
        ({"v": torch.zeros(2, 3, 2, dtype=F64)}, ValueError, r"v must have shape \(m, d\) with m = 3, d = 2"),
        ({"V": torch.zeros(3, 2, 3, dtype=F64)}, ValueError, r"V must have shape \(m, d, i\) with m = 3, d = 2, i = 2"),
        ({"V": torch.zeros(3, 2, 2)}, TypeError, "V must have the dtype of x"),
        ({"b": torch.ones(4)}, TypeError, "b must have the dtype of x"),
        ({"N": torch.ones(3, 5, dtype=F64)}, ValueError, r"N must have shape \(m, n\)"),
        ({"h0": torch.zeros(3, 4, dtype=F64)}, ValueError, r"h0 must have shape \(B, n\) with B = 2, n = 4, got"),
        ({"beta": None}, ValueError, "beta must be given when activation is 'modrelu', got None"),
        ({"activation": "tanh"}, ValueError, "beta must be None unless activation is 'modrelu', got it with"),
        ({"activation": "gelu"}, ValueError, "activation must be one of"),
        ({"dt": float("nan")}, ValueError, "dt must be finite"),
        ({"dt": torch.ones(3, dtype=F64)}, ValueError, "dt must have shape"),
        ({"order": 0}, ValueError, "order must be at least 1"),
        ({"order": 171}, ValueError, "order must be at most 170"),
        ({"substeps": 2**40}, ValueError, "substeps must be at most 1000000"),
        ({"substeps": 0}, ValueError, "substeps must be at least 1"),
        ({"backend": "cuda"}, RuntimeError, "backend 'cuda'"),
        ({"backend": "triton"}, RuntimeError, "backend 'triton'"),
    ],
    ids=str,
)
def test_bad_arguments(changes, error, message):
    arguments = dict(zip(NAMES, inputs(3, 2, 4, 3, 2, 2), strict=True)) | {"activation": "modrelu"}
    with pytest.raises(error, match=message):
        flow_recurrence(**{**arguments, **changes})
