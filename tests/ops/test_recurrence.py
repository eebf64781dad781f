"""recurrence: values, every gradient, awkward sizes, what a sample's bits depend on, and what is refused."""

import functools
import math
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from tests import oracles
from tests.cases import ACTIVATIONS, DTYPES, SIZES, beta_for, fast_and_thorough, non_contiguous, quick, relative_error
from vfrnn_kernels.recurrence import recurrence

SETS = torch.ops.vfrnn_kernels.cpu_isas()
NAMES = ("x", "U", "c", "M", "h0", "beta")


def case(T, B, n, i, activation, dtype=torch.float64, bias=True) -> list[Tensor | None]:
    """x, U, c, M, h0, beta as leaves. |M| is about 0.8: rounding is not amplified from step to step."""
    tensors = [
        torch.randn(T, B, i, dtype=torch.float64),
        torch.randn(n, i, dtype=torch.float64) / math.sqrt(i or 1),
        torch.randn(n, dtype=torch.float64) if bias else None,
        torch.randn(n, n, dtype=torch.float64) * (0.4 / math.sqrt(n)),
        torch.randn(B, n, dtype=torch.float64),
        beta_for(activation, n),
    ]
    return [None if t is None else t.to(dtype).requires_grad_() for t in tensors]


def oracle(x, U, c, M, h0, beta, activation) -> Tensor:
    """The loop in float64 through plain autograd, one sample's equation at a time."""
    h, steps = h0.double(), []
    for t in range(x.shape[0]):
        z = torch.einsum("jk,bk->bj", M.double(), h) + torch.einsum("jk,bk->bj", U.double(), x[t].double())
        if c is not None:
            z = z + c.double()
        h = oracles.activate(activation, z, None if beta is None else beta.double())
        steps.append(h)
    return torch.stack(steps) if steps else h0.double().new_zeros(0, *h0.shape)


def run(tensors, activation, backend=None) -> Tensor:
    x, U, c, M, h0, beta = tensors
    return recurrence(x, U, c, M, h0, activation, beta, backend=backend)


def gradients(output: Tensor, tensors, grad: Tensor) -> list[Tensor]:
    present = [t for t in tensors if t is not None]
    if not output.requires_grad:  # the oracle's loop over no steps
        return [torch.zeros_like(t) for t in present]
    grads = torch.autograd.grad(output, present, grad, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(grads, present, strict=True)]


def assert_right(tensors, activation, backend) -> None:
    dtype = tensors[0].dtype
    hs = run(tensors, activation, backend)
    expected = oracle(*tensors, activation)
    assert (hs.shape, hs.dtype) == (expected.shape, dtype)
    # A sum of n + i products rounds by at most (n + i) eps, in practice by its root; steps contract. Gradients are sums
    # of terms of size 1 that may cancel: their error is relative to the terms, so to 1 at least.
    n, i = tensors[1].shape
    tolerance = 30 * math.sqrt(n + i) * torch.finfo(dtype).eps
    assert relative_error(hs.detach(), expected.detach()) <= tolerance
    grad = torch.randn(hs.shape, dtype=torch.float64).to(dtype)
    for name, a, b in zip(
        [k for k, t in zip(NAMES, tensors, strict=True) if t is not None],
        gradients(hs, tensors, grad),
        gradients(expected, tensors, grad.double()),
        strict=True,
    ):
        assert a.dtype == dtype, name
        assert (a - b).norm() <= tolerance * max(float(b.norm()), 1.0), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("n", SIZES)
def test_values_and_gradients(n, activation, dtype, backend):
    for T, B, i in ((5, 3, 7), (5, 1, 1), (1, 3, 1)):
        assert_right(case(T, B, n, i, activation, dtype), activation, backend)


@pytest.mark.parametrize(("T", "B", "i"), [(0, 3, 7), (5, 0, 1), (0, 0, 1), (3, 2, 0)], ids=str)
def test_nothing_to_do(T, B, i, backend):
    for n in (1, 17):
        assert_right(case(T, B, n, i, "modrelu"), "modrelu", backend)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("B", [2, 16, 29, 300])
def test_batches_of_every_tile_height_and_several_blocks(B, activation):
    assert_right(case(4, B, 37, 3, activation, torch.float32), activation, "cpu")


@pytest.mark.parametrize(("T", "B"), [(300, 1), (130, 3)], ids=str)
def test_more_steps_than_one_chunk(T, B):
    assert_right(case(T, B, 17, 2, "tanh", torch.float32), "tanh", "cpu")


def test_input_wider_than_the_state(backend):
    assert_right(case(3, 5, 6, 150, "tanh"), "tanh", backend)


def test_without_bias_and_state(backend):
    x, U, c, M, h0, _ = case(4, 3, 17, 2, "relu", bias=False)
    assert_right([x, U, c, M, h0, None], "relu", backend)
    assert torch.equal(
        recurrence(x, U, None, M, activation="relu", backend=backend),
        recurrence(x, U, None, M, torch.zeros_like(h0), "relu", backend=backend),
    )


def test_non_contiguous(backend):
    tensors = case(4, 3, 19, 5, "modrelu")
    strided = [non_contiguous(t) for t in tensors]
    strided[0] = tensors[0].detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()  # batch first
    strided[3] = tensors[3].detach().T.contiguous().T.requires_grad_()
    hs, expected = run(strided, "modrelu", backend), run(tensors, "modrelu", backend)
    grad = torch.randn(4, 19, 3, dtype=torch.float64).mT
    for a, b in zip(
        [hs, *gradients(hs, strided, grad)],
        [expected, *gradients(expected, tensors, grad.contiguous())],
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
    # .sum() sends an expanded scalar
    one, ones = torch.ones((), dtype=torch.float64), torch.ones(4, 3, 19, dtype=torch.float64)
    summed = gradients(run(strided, "modrelu", backend).sum(), strided, one)
    assert torch.equal(summed[3], gradients(run(strided, "modrelu", backend), strided, ones)[3])


def away_from_kinks(n, activation, T=3, B=2, i=2):
    """A case whose pre-activations all keep a distance from what finite differences do not cross."""
    for seed in range(1000):
        torch.manual_seed(seed)
        tensors = case(T, B, n, i, activation)
        x, U, c, M, h0, beta = (None if t is None else t.detach() for t in tensors)
        previous = torch.cat([h0[None], oracle(x, U, c, M, h0, beta, activation)])[:-1]
        if oracles.smooth_at(activation, previous @ M.T + x @ U.T + c, beta):
            return tensors
    raise AssertionError("no such case")


@fast_and_thorough
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradcheck(activation, backend, fast):
    tensors = away_from_kinks(4, activation)
    present = [k for k, t in enumerate(tensors) if t is not None]

    def function(*values):
        arguments = list(tensors)
        for k, value in zip(present, values, strict=True):
            arguments[k] = value
        return run(arguments, activation, backend)

    values = [tensors[k] for k in present]
    assert gradcheck(function, values, fast_mode=fast)
    assert gradgradcheck(function, values, fast_mode=fast)


def test_gradcheck_fast(backend):
    values = case(3, 3, 17, 2, "tanh")[:5]
    function = functools.partial(recurrence, backend=backend)
    assert gradcheck(function, values, fast_mode=True)
    assert gradgradcheck(function, values, fast_mode=True)


def test_an_inactive_unit_has_no_gradient(backend):
    # z = 0 with beta > 0: sign(0) = 0, so h = 0 and the unit counts as inactive
    x, U = torch.zeros(1, 1, 1), torch.ones(1, 1)
    for activation, beta in (("modrelu", torch.ones(1)), ("relu", None)):
        tensors = [x, U, None, torch.ones(1, 1), torch.zeros(1, 1), beta]
        tensors = [None if t is None else t.clone().requires_grad_() for t in tensors]
        hs = run(tensors, activation, backend)
        assert hs.item() == 0
        assert all(g.abs().max() == 0 for g in gradients(hs, tensors, torch.ones_like(hs)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_opcheck(activation):
    tensors = case(3, 2, 5, 2, activation, bias=activation == "tanh")
    ops = torch.ops.vfrnn_kernels
    torch.library.opcheck(ops.recurrence, (*tensors, activation), test_utils=("test_schema", "test_faketensor"))
    plain = [None if t is None else t.detach() for t in tensors]
    hs = ops.recurrence(*plain, activation)
    for needs in (0b111111, 0b001001):
        torch.library.opcheck(
            ops.recurrence_backward,
            (torch.ones_like(hs), *plain, hs, activation, needs),
            test_utils=("test_schema", "test_faketensor"),
        )


@pytest.mark.parametrize("wanted", [["x"], ["M"], ["U"], ["c"], ["h0"], ["beta"], ["U", "c"], ["M", "beta"]], ids=str)
def test_only_what_is_needed(wanted, backend):
    tensors = case(6, 3, 19, 3, "modrelu")
    hs = run(tensors, "modrelu", backend)
    grad = torch.randn_like(hs)
    every = dict(zip(NAMES, gradients(hs, tensors, grad), strict=True))
    some = [t.detach().requires_grad_(name in wanted) for name, t in zip(NAMES, tensors, strict=True)]
    found = torch.autograd.grad(run(some, "modrelu", backend), [t for t in some if t.requires_grad], grad)
    for name, g in zip([name for name in NAMES if name in wanted], found, strict=True):
        torch.testing.assert_close(g, every[name], rtol=1e-14, atol=1e-14)


def test_retained_graph_gives_equal_gradients(backend):
    tensors = case(5, 3, 17, 2, "modrelu", torch.float32)
    hs = run(tensors, "modrelu", backend)
    grad = torch.randn_like(hs)
    first = torch.autograd.grad(hs, tensors, grad, retain_graph=True)
    second = torch.autograd.grad(hs, tensors, grad)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "i"), [(17, 3), (190, 2), (257, 1)], ids=str)
def test_the_bits_of_a_sample_do_not_depend_on_its_batch(n, i, dtype):
    x, U, c, M, h0, _ = case(6, 33, n, i, "tanh", dtype)
    grad = torch.randn(6, 33, n, dtype=dtype)

    def states(rows):
        xs, hs0 = x[:, rows].detach().requires_grad_(), h0[rows].detach().requires_grad_()
        hs = recurrence(xs, U, c, M, hs0, backend="cpu")
        return hs, *torch.autograd.grad(hs, (xs, hs0), grad[:, rows])

    whole = states(slice(0, 33))
    for rows in (slice(0, 1), slice(5, 7), slice(3, 6), slice(32, 33), slice(7, 26)):
        hs, grad_x, grad_h0 = states(rows)
        assert torch.equal(hs, whole[0][:, rows])
        assert torch.equal(grad_x, whole[1][:, rows])
        assert torch.equal(grad_h0, whole[2][rows])


def test_same_bits_every_run():
    tensors = case(40, 35, 61, 3, "modrelu", torch.float32)
    grad = torch.randn(40, 35, 61)
    outputs = [run(tensors, "modrelu", "cpu") for _ in range(3)]
    runs = [[hs, *gradients(hs, tensors, grad)] for hs in outputs]
    assert all(torch.equal(a, b) for other in runs[1:] for a, b in zip(runs[0], other, strict=True))


def test_vmap_over_an_ensemble(backend):
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    U, M = torch.randn(3, 5, 3, dtype=torch.float64), torch.randn(3, 5, 5, dtype=torch.float64)

    def energy(U, M):
        return recurrence(x, U, None, M, backend=backend).square().sum()

    one_by_one = [torch.func.grad(energy, argnums=(0, 1))(U[k], M[k]) for k in range(3)]
    together = torch.func.vmap(torch.func.grad(energy, argnums=(0, 1)))(U, M)
    for column, expected in zip(together, zip(*one_by_one, strict=True), strict=True):
        torch.testing.assert_close(column, torch.stack(expected))


@pytest.mark.parametrize("backend", quick(["cpu", "reference"], "cpu"))
def test_compile(backend):
    tensors = case(3, 2, 5, 2, "modrelu")

    def loss(*values):
        return run(values, "modrelu", backend).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for a, b in zip(
        torch.autograd.grad(compiled(*tensors), tensors), torch.autograd.grad(loss(*tensors), tensors), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_low_precision_runs_on_the_reference():
    with pytest.warns(RuntimeWarning, match=r"recurrence runs on plain PyTorch \(slow\); cpu: it computes"):
        assert recurrence(*case(3, 2, 5, 2, "tanh", torch.bfloat16)[:5]).dtype == torch.bfloat16


def apply(activation, z, beta=None):
    """act on a vector, through one step without a state."""
    zero = z.new_zeros(len(z), 1)
    one = z.new_ones(1, 1)
    return recurrence(z[None, :, None], one, None, one, zero, activation, beta, backend="cpu").flatten()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tanh_is_accurate(dtype):
    tiny = torch.finfo(dtype).tiny
    z = torch.cat(
        [
            torch.linspace(-20, 20, 200001, dtype=dtype),
            torch.logspace(-30, 1, 20001, dtype=dtype),
            torch.tensor([0.0, tiny, -tiny, 1e30, -1e30], dtype=dtype),
        ]
    )
    exact = torch.tanh(z.double())
    # The oracle for float64 is itself within a unit in the last place or two.
    assert ((apply("tanh", z).double() - exact).abs() <= 4 * torch.finfo(dtype).eps * exact.abs()).all()
    assert torch.equal(apply("tanh", -z), -apply("tanh", z))
    special = apply("tanh", torch.tensor([math.inf, -math.inf, math.nan], dtype=dtype))
    assert special[:2].tolist() == [1, -1]
    assert special[2].isnan()


def test_a_nan_stays_one():
    z = torch.tensor([math.nan, 1.0])
    for activation in ACTIVATIONS:
        beta = torch.full((1,), -0.5) if oracles.takes_beta(activation) else None
        assert apply(activation, z, beta).isnan().tolist() == [True, False]


CHECK_ONE_SET = """
import sys
import torch
from tests.ops.test_recurrence import ACTIVATIONS, assert_right, case
assert torch.ops.vfrnn_kernels.cpu_isa() == sys.argv[1]
for dtype in (torch.float32, torch.float64):
    for n, B in ((1, 1), (3, 2), (17, 5), (37, 29)):
        for activation in ACTIVATIONS:
            assert_right(case(5, B, n, 3, activation, dtype), activation, "cpu")
"""


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if name != "VFRNN_ISA"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**clean, **environment}, capture_output=True, text=True
    )


@functools.cache
def best_instruction_set() -> str:
    code = "import torch, vfrnn_kernels.loader; print(torch.ops.vfrnn_kernels.cpu_isa())"
    return run_python(code).stdout.strip()


@pytest.mark.parametrize("isa", quick(SETS, SETS[0]))
def test_every_instruction_set(isa):
    if SETS.index(isa) > SETS.index(best_instruction_set()):
        pytest.skip(f"this CPU lacks {isa}")
    result = run_python(CHECK_ONE_SET, isa, VFRNN_ISA=isa)
    assert result.returncode == 0, result.stderr


ARGUMENTS = {
    "x": torch.zeros(4, 3, 2),
    "U": torch.zeros(5, 2),
    "c": torch.zeros(5),
    "M": torch.zeros(5, 5),
    "h0": torch.zeros(3, 5),
}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.zeros(4, 2)}, ValueError, r"x must have shape \(T, B, i\), got \(4, 2\)"),
        ({"x": None}, TypeError, "x must be a tensor, got NoneType"),
        ({"x": torch.zeros(4, 3, 2, dtype=torch.int64)}, TypeError, "x must be float32, .* got torch.int64"),
        ({"M": torch.zeros(5, 4)}, ValueError, r"M must have shape \(n, n\) with n = 5, got \(5, 4\)"),
        ({"M": torch.zeros(5)}, ValueError, r"M must have shape \(n, n\), got \(5,\)"),
        ({"M": torch.zeros(0, 0)}, ValueError, "M must have at least one row"),
        ({"M": torch.zeros(5, 5, dtype=torch.float64)}, TypeError, "M must have the dtype of x, torch.float32"),
        ({"U": torch.zeros(5, 3)}, ValueError, r"U must have shape \(n, i\) with n = 5, i = 2, got \(5, 3\)"),
        ({"U": torch.zeros(5, 2, device="meta")}, ValueError, "U must be on the device of x, cpu, got meta"),
        ({"c": torch.zeros(1)}, ValueError, r"c must have shape \(n,\) with n = 5, got \(1,\)"),
        ({"c": 0.0}, TypeError, "c must be a tensor, got float"),
        ({"h0": torch.zeros(1, 3, 5)}, ValueError, r"h0 must have shape \(B, n\) with B = 3, n = 5, got \(1, 3, 5\)"),
        ({"h0": torch.zeros(3, 5).bfloat16()}, TypeError, "h0 must have the dtype of x"),
        ({"activation": "gelu"}, ValueError, "activation must be one of 'modrelu', 'tanh', .* got 'gelu'"),
        ({"activation": "modrelu"}, ValueError, "beta must be given when activation is 'modrelu', got None"),
        ({"beta": torch.zeros(5)}, ValueError, "beta must be None unless activation is 'modrelu'"),
        (
            {"activation": "modrelu", "beta": torch.zeros(4)},
            ValueError,
            r"beta must have shape \(n,\) with n = 5, got \(4,\)",
        ),
    ],
    ids=str,
)
def test_what_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        recurrence(**{**ARGUMENTS, **changes})


def test_states_without_memory_are_named():
    x, U, M = torch.zeros(1, 1, 1).expand(2**45, 1, 1), torch.zeros(1, 1), torch.zeros(1, 1)
    with pytest.raises(RuntimeError, match=r"out of memory: a tensor of shape \(35184372088832, 1, 1\) is needed"):
        recurrence(x, U, None, M)
