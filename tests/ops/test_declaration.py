"""What an op declares, and what is read from it: schemas, checks, fakes, refusals, samples, exports."""

import dataclasses
import inspect

import pytest
import torch

import vfrnn
import vfrnn_kernels
from vfrnn_kernels.autograd import kernels_of
from vfrnn_kernels.declaration import OPS, T
from vfrnn_kernels.dispatch import BACKENDS, refusal
from vfrnn_kernels.loader import CUDA_SIMULATED, TRITON_INTERPRETED, TRITON_MISSING

CPU = torch.device("cpu")
SERVED = [(name, b.name) for name in OPS for b in BACKENDS if refusal(b, name, CPU, torch.float32) is None]


def library_arguments(op, sample, backend):
    """The positional arguments of the library op, caught on their way there."""
    caught = []

    def catch(*args):
        caught.append(args)
        raise StopIteration

    module = inspect.getmodule(op.function)
    functions, module._functions = module._functions, dict.fromkeys(module._functions, catch)
    try:
        with pytest.raises(StopIteration):
            op.function(**sample.arguments, backend=backend)
    finally:
        module._functions = functions
    return caught[0]


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
def test_the_schemas_are_those_of_the_library(op):
    for library_name, saved in ((op.name, op.saved), (f"{op.name}_triton", op.saved_on("triton"))):
        names = (library_name, f"{library_name}_backward")
        for name, schema in zip(names, op.schemas(library_name, saved), strict=True):
            declared = torch._C.parse_schema(f"vfrnn_kernels::{schema}")
            assert str(declared) == str(getattr(torch.ops.vfrnn_kernels, name).default._schema)


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
def test_every_input_is_an_argument_of_the_function(op):
    parameters = inspect.signature(op.function).parameters
    assert set(op.input_names) | {constant.name for constant in op.constants} <= set(parameters)
    assert set(op.sample(5).arguments) <= set(parameters)
    assert set(op.timed) <= set(op.input_names)
    assert op.state is None or op.state in op.input_names


@pytest.mark.parametrize("op", OPS)
def test_users_find_it(op):
    for package in (vfrnn, vfrnn_kernels):
        assert op in package.__all__
        assert callable(getattr(package, op))


@pytest.mark.parametrize(("name", "backend"), SERVED)
def test_fakes_have_the_shapes_of_the_results(name, backend):
    op = OPS[name]
    arguments = library_arguments(op, op.sample(6), backend)
    kernels = kernels_of(op, backend)
    results = kernels.forward(*arguments)
    fakes = op.empty_results(op.saved_on(backend), *arguments)
    assert [(t.shape, t.dtype) for t in results] == [(t.shape, t.dtype) for t in fakes]
    assert len(results) == kernels.outputs + kernels.saved


@pytest.mark.parametrize("name", OPS)
def test_every_variation_runs_forward_and_backward(name):
    op, backend = OPS[name], next(backend for served, backend in SERVED if served == name)
    few = {"activation": "tanh", "dtype": torch.float32}
    for variation in op.variations(4, [torch.float32]):
        if all(variation.get(key, value) == value for key, value in few.items()):
            sample = op.sample(4, **variation)
            leaves = {key: tensor.requires_grad_() for key, tensor in sample.leaves.items()}
            outputs = op.function(**{**sample.arguments, **leaves}, backend=backend)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            found = torch.autograd.grad(outputs, [*leaves.values()], [torch.ones_like(o) for o in outputs])
            assert all(bool(t.isfinite().all()) for t in (*outputs, *found))


def test_what_is_asked_for_is_said_once():
    op = OPS["recurrence"]
    for wanted in ([True] * 6, [False] * 6, [True, False, False, True, False, True]):
        needs = op.needs(wanted)
        assert op.places(needs) == [k for k, asked in enumerate(wanted) if asked]
        assert op.wanted(needs) == {name for name, asked in zip(op.input_names, wanted, strict=True) if asked}


def test_refusals_come_from_the_declaration():
    op = OPS["field_flow"]
    assert op.refuses("triton", torch.float32, 1024) is None
    assert op.refuses("triton", torch.float32, 1025) == "it computes field_flow up to n = 1024, got n = 1025"
    assert op.refuses("cpu", torch.float16, 5) == "it computes field_flow in float32 and float64, got torch.float16"
    assert op.refuses("cuda", torch.float64, 5) == "it computes field_flow in float32, got torch.float64"
    found = OPS["recurrence"].refuses("triton", torch.float64, 5)
    assert found == "it computes recurrence in float32, float16 and bfloat16, got torch.float64"


@pytest.mark.parametrize(
    ("declared", "shape", "known", "message"),
    [
        (T("a", "n"), (3, 1), {}, r"a must have shape \(n,\), got \(3, 1\)"),
        (T("a", "n"), (3,), {"n": 4}, r"a must have shape \(n,\) with n = 4, got \(3,\)"),
        (T("a", "n n"), (3, 4), {}, r"a must have shape \(n, n\) with n = 3, got \(3, 4\)"),
        (T("a", "m d n"), (2, 3, 4), {"n": 5}, r"a must have shape \(m, d, n\) with n = 5, got \(2, 3, 4\)"),
        (T("a", "n", at_least_one="row"), (0,), {}, r"a must have at least one row, got shape \(0,\)"),
        (T("a", "n", at_least_one="row"), (0,), {"n": 0}, r"a must have at least one row, got shape \(0,\)"),
        (T("a", "2 n"), (3, 4), {}, r"a must have shape \(2, n\), got \(3, 4\)"),
        (T("a", "", optional=True), (1,), {}, r"a must have shape \(\), got \(1,\)"),
        (T("a", "K n", given="... n"), (), {"n": 2}, r"a must have shape \(..., n\), got \(\)"),
        (T("a", "K n", given="... n"), (7, 3), {"n": 2}, r"a must have shape \(..., n\) with n = 2, got \(7, 3\)"),
        (
            T("a", "T B", given="T | T B"),
            (2, 3, 1),
            {"T": 2, "B": 3},
            r"a must have shape \(T,\) or \(T, B\) with T",
        ),
    ],
)
def test_a_shape_that_does_not_fit_is_told_with_what_is_known(declared, shape, known, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        declared.check(torch.zeros(shape), dict(known))


def test_an_op_says_what_every_backend_serves():
    with pytest.raises(ValueError, match=r"^strang_step must say what cpu, cuda and triton serve, got \['cpu'\]"):
        dataclasses.replace(OPS["strang_step"], serves={"cpu": (torch.float32,)})


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
def test_what_is_no_bool_is_refused(op):
    arguments = op.sample(4).arguments
    options = {"volume_preserving", "return_sequence", "reversible"} & set(inspect.signature(op.function).parameters)
    for option in options:
        with pytest.raises(TypeError, match=f"^{option} must be a bool, got str"):
            op.function(**{**arguments, option: "False"})


def test_a_shape_that_fits_tells_its_letters():
    sizes = {"n": 4}
    T("a", "m d n").check(torch.zeros(2, 3, 4), sizes)
    assert sizes == {"n": 4, "m": 2, "d": 3}
    T("b", "K n", given="... n").check(torch.zeros(7, 1, 4), sizes)
    T("c", "T B", given="T | T B").check(torch.zeros(5), sizes)
    assert sizes == {"n": 4, "m": 2, "d": 3, "T": 5}


@pytest.mark.skipif(CUDA_SIMULATED is not None or TRITON_INTERPRETED, reason="they take CPU tensors")
def test_without_a_gpu_the_cpu_and_the_reference_serve():
    assert {backend for _, backend in SERVED} == {"cpu", "reference"}
    assert TRITON_MISSING is None or "triton" not in {backend for _, backend in SERVED}
