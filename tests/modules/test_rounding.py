"""round_step keeps lengths; 16 bits are computed in float32 and rounded once."""

import pytest
import torch

from tests.cases import exact_exponential, skew_matrix
from vfrnn.init import block_diagonal_generator
from vfrnn.rounding import round_step, rounded_once, wider
from vfrnn_kernels import recurrence

F64 = torch.float64


@pytest.mark.parametrize("n", [1, 2, 17])
def test_a_rounded_step_keeps_its_lengths_and_its_gradient(n):
    angles = torch.linspace(0.5, 1.2, n // 2, dtype=torch.float64)
    M = exact_exponential(block_diagonal_generator(angles, n)).requires_grad_()
    R = round_step(M, torch.float32)
    assert R.dtype == torch.float32
    assert (R.double() - M).abs().max() < 1e-6  # a few roundings of entries below 1, 6e-8 each
    plain, rounded = ((t.double().square().sum(0) - 1).abs().max() for t in (M.float(), R))
    assert rounded <= plain
    assert n < 17 or rounded < plain / 2
    R.sum().backward()
    assert torch.equal(M.grad, torch.ones_like(M))


def gram_error(R, M):
    R = R.double()
    return torch.linalg.matrix_norm(R.mT @ R - M.mT @ M)


@pytest.mark.parametrize("narrow", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "make",
    [
        lambda: exact_exponential(block_diagonal_generator(torch.randn(8, dtype=F64), 17)),
        lambda: exact_exponential(skew_matrix(17, 3.0)),
        lambda: torch.randn(17, 17, dtype=F64),
        lambda: torch.eye(17, dtype=F64),
    ],
    ids=["blocks", "dense", "general", "identity"],
)
def test_a_rounded_step_is_at_least_as_good_as_plain_rounding(make, narrow):
    M = make()
    R, plain = round_step(M, narrow), M.to(narrow)
    assert R.dtype == narrow
    assert gram_error(R, M) <= gram_error(plain, M)
    # each entry moves by NUDGES roundings of a number below its column's length, and by plain rounding
    assert (R.double() - M).abs().max() <= 8 * torch.finfo(narrow).eps * M.abs().max().clamp_min(1)


def test_a_column_keeps_its_length():
    """Two entries of a rotation by one angle, of which plain rounding would lose 3e-8 of the length at every step."""
    M = exact_exponential(block_diagonal_generator(torch.full((1,), 0.9, dtype=F64), 2))
    lengths = [(t.double().square().sum(0) - 1).abs().max() for t in (round_step(M, torch.float32), M.float())]
    assert lengths[0] < lengths[1] / 4
    powers = [torch.linalg.matrix_power(t.double(), 100_000) for t in (round_step(M, torch.float32), M.float())]
    drifts = [float(abs(torch.linalg.matrix_norm(power, 2) - 1)) for power in powers]
    assert drifts[0] < 1e-3 < 10 * drifts[1]


def test_nothing_to_round():
    M = torch.randn(3, 3)
    assert round_step(M, torch.float32) is M
    assert round_step(torch.tensor([[1 / 3]], dtype=F64), torch.float32).item() == torch.tensor(1 / 3).item()


def test_16_bits_are_computed_in_float32():
    assert [wider(dtype) for dtype in (torch.float16, torch.bfloat16)] == [torch.float32] * 2
    assert [wider(dtype) for dtype in (torch.float32, torch.float64)] == [None] * 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_states_are_rounded_once(dtype):
    seen = []

    def op(x, *arguments, scale):
        seen.extend([x, *arguments])
        return scale * x + arguments[0]

    x, U = torch.randn(3).to(dtype), torch.randn(3).to(dtype)
    hs = rounded_once(op, x, U, None, "tanh", 0.5, scale=3.0)
    computed = torch.float32 if dtype.itemsize == 2 else dtype
    assert [t.dtype for t in seen[:2]] == [computed] * 2
    assert seen[2:] == [None, "tanh", 0.5]
    assert hs.dtype == dtype
    assert torch.equal(hs, (3 * x.to(computed) + U.to(computed)).to(dtype))
    if computed == dtype:
        assert seen[0] is x


def test_the_recurrence_on_the_cpu_is_computed_in_float32():
    x, U, h0 = (torch.randn(*size).bfloat16() for size in ((9, 2, 3), (5, 3), (2, 5)))
    M = exact_exponential(skew_matrix(5, 1.0)).float()
    hs = rounded_once(recurrence, x, U, None, M, h0, "tanh", None)
    assert torch.equal(hs, recurrence(x.float(), U.float(), None, M, h0.float(), "tanh", None).bfloat16())
