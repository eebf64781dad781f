"""return_sequence=False: the last state alone, from about sqrt(T) states, and by turning the states back."""

import math

import pytest
import torch

from tests.cases import ACTIVATIONS, beta_for, quick
from tests.ops import test_flow_recurrence, test_spectral_recurrence
from vfrnn_kernels import final_state, recurrence

F64 = torch.float64
T, B, N = 11, 3, 6


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks of four steps, the last of three."""
    monkeypatch.setattr(final_state, "LEAST_NUMBERS", 0)


def plain_inputs(T=T, *, activation="tanh", dtype=F64):
    M = torch.linalg.qr(torch.randn(N, N, dtype=F64)).Q
    beta = beta_for(activation, N, 0.1)
    tensors = (torch.randn(T, B, 2, dtype=F64), torch.randn(N, 2, dtype=F64), torch.randn(N, dtype=F64), M)
    tensors = (*tensors, torch.randn(B, N, dtype=F64), beta)
    return [None if t is None else t.to(dtype) for t in tensors]


def plain(arguments, activation, **options):
    *tensors, beta = arguments
    return recurrence(*tensors, activation, beta, **options)


def spectral_inputs(T=T, *, activation="tanh", dtype=F64):
    S = test_spectral_recurrence.skew(torch.randn(N, N, dtype=F64))
    return test_spectral_recurrence.inputs(T, B, S, activation=activation, dtype=dtype)


def spectral(arguments, activation, **options):
    arguments = [*arguments]
    arguments[3] = test_spectral_recurrence.skew(arguments[3])
    return test_spectral_recurrence.run(arguments, activation, **options)


def flow_inputs(T=T, *, activation="tanh", dtype=F64):
    return test_flow_recurrence.inputs(T, B, N, 4, 2, 2, activation, norm=0.01, dtype=dtype)


def flow(arguments, activation, **options):
    return test_flow_recurrence.run(arguments, activation, substeps=1, **options)


OPS = {"recurrence": (plain_inputs, plain), "spectral": (spectral_inputs, spectral), "flow": (flow_inputs, flow)}


def leaves(arguments):
    return [None if t is None else t.clone().requires_grad_() for t in arguments]


def present(arguments):
    return [t for t in arguments if t is not None]


def assert_equal_to_the_sequence(run, arguments, activation, backend, tolerance=1e-12, **options):
    arguments = leaves(arguments)
    last = run(arguments, activation, return_sequence=False, backend=backend, **options)
    hs = run(arguments, activation, backend=backend)
    expected = hs[-1] if len(hs) else arguments[4]
    grad = torch.randn_like(last)
    given = present(arguments)
    assert (last - expected).norm() <= tolerance * expected.norm()
    pairs = zip(*(torch.autograd.grad(t, given, grad, allow_unused=True) for t in (last, expected)), strict=True)
    for k, (mine, wanted) in enumerate(pairs):
        if wanted is None:  # no step, no influence
            assert not mine.any(), k
        else:
            assert (mine - wanted).norm() <= tolerance * max(float(wanted.norm()), 1.0), k


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_it_is_the_last_of_the_sequence(backend, op, activation, dtype):
    inputs, run = OPS[op]
    arguments = inputs(activation=activation, dtype=dtype)
    assert_equal_to_the_sequence(run, arguments, activation, backend, 1e-12 if dtype == F64 else 1e-5)


@pytest.mark.parametrize("steps", [0, 1, 4, 5, 16])
def test_lengths(backend, steps):
    assert_equal_to_the_sequence(plain, plain_inputs(steps), "tanh", backend)
    assert_equal_to_the_sequence(plain, plain_inputs(steps), "identity", backend, reversible=True)


def of_tensors(op, backend):
    """An op's last state as a function of the tensors that are given, and these."""
    inputs, run = OPS[op]
    arguments = leaves(inputs(5))

    def function(*tensors):
        left = iter(tensors)
        every = [None if t is None else next(left) for t in arguments]
        return run(every, "tanh", return_sequence=False, backend=backend)

    return function, present(arguments)


@pytest.mark.parametrize("op", OPS)
def test_gradcheck(backend, op):
    assert torch.autograd.gradcheck(*of_tensors(op, backend), fast_mode=True)


# On one backend: all share the derivatives of the reference.
@pytest.mark.parametrize("op", quick(OPS, "recurrence", "spectral"))
def test_gradgradcheck(op):
    assert torch.autograd.gradgradcheck(*of_tensors(op, "cpu"), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_turning_back(backend, dtype):
    tolerance = 1e-12 if dtype == F64 else 1e-5
    arguments = plain_inputs(30, dtype=dtype)
    assert_equal_to_the_sequence(plain, arguments, "identity", backend, tolerance, reversible=True)
    arguments[2] = None
    assert_equal_to_the_sequence(plain, arguments, "identity", backend, tolerance, reversible=True)


def kept_numbers(steps, activation, **options):
    """What autograd keeps beside the arguments."""
    arguments, kept = leaves(plain_inputs(steps)), {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t):
        last = plain(arguments, activation, backend="cpu", **options)
    given = {t.data_ptr() for t in present(arguments)} | {last.data_ptr()}
    return sum(t.numel() for pointer, t in kept.items() if pointer not in given)


@pytest.mark.parametrize("steps", [100, 2500])
def test_what_is_kept(steps):
    rows = math.isqrt(steps)
    assert kept_numbers(steps, "tanh", return_sequence=False) <= (rows + 1) * B * N
    assert kept_numbers(steps, "identity", return_sequence=False, reversible=True) == 0


def test_compile():
    arguments = leaves(plain_inputs())

    def step(*args):
        return plain([*args, None], "tanh", return_sequence=False).square().sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    given = present(arguments)
    for x, y in zip(*(torch.autograd.grad(f(*given), given) for f in (step, compiled)), strict=True):
        assert torch.equal(x, y)


def test_opcheck():
    tensors = plain_inputs()
    for constants in (("tanh", False, 4), ("identity", True, 4)):
        torch.library.opcheck(torch.ops.vfrnn_kernels.recurrence_final, (*tensors, *constants))
        results = torch.ops.vfrnn_kernels.recurrence_final(*tensors, *constants)
        for needs in ((1 << 5) - 1, 0b00010):
            arguments = (torch.randn_like(results[0]), *tensors, *results, *constants, needs)
            torch.library.opcheck(torch.ops.vfrnn_kernels.recurrence_final_backward, arguments)


def test_bad_arguments():
    arguments = plain_inputs()
    for activation, options in (("tanh", {"return_sequence": False}), ("identity", {})):
        with pytest.raises(
            ValueError, match="reversible must be False unless return_sequence is False and activation is"
        ):
            plain(arguments, activation, reversible=True, **options)


class Last(torch.nn.Module):
    def __init__(self, n):
        super().__init__()
        self.M = torch.nn.Parameter(torch.linalg.qr(torch.randn(n, n)).Q)

    def forward(self, x, U):
        return recurrence(x, U, None, self.M, return_sequence=False)


@pytest.mark.parametrize("strict", [True, False])
def test_one_program_for_every_time_and_batch(strict):
    model, U = Last(N), torch.randn(N, 2)
    shapes = ({0: torch.export.Dim("T"), 1: torch.export.Dim("B")}, None)
    program = torch.export.export(model, (torch.randn(T, B, 2), U), dynamic_shapes=shapes, strict=strict).module()
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", dynamic=True)
    for steps, batch in ((5, 4), (70, 3), (9, 7)):
        x = torch.randn(steps, batch, 2)
        torch.testing.assert_close(program(x, U), model(x, U))
        with torch._dynamo.config.patch(error_on_recompile=steps != 5):
            torch.testing.assert_close(compiled(x, U), model(x, U))


def test_a_program_of_one_size_keeps_few_states():
    program = torch.export.export(Last(N), (torch.randn(100, B, 2), torch.randn(N, 2)))
    (node,) = [node for node in program.graph.nodes if "recurrence" in str(node.target)]
    assert "recurrence_final" in str(node.target)
    assert node.args[-1] == 16
