"""n = 2000, a batch of 100 000 and ten million steps, in memory that is bounded; against float64."""

import math
import subprocess
import sys

import pytest
import torch

from tests.cases import DTYPES, exact_exponential, exact_exponential_gradient, relative_error, skew_matrix
from tests.ops.edge_cases import states
from vfrnn_kernels import recurrence, skew_expm

F64 = torch.float64
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
#: Steps of a long sequence, and the time that a slow machine may take for them.
STEPS = 10_000_000


@pytest.mark.slow
@dtypes
def test_a_generator_of_2000_nodes(dtype):
    """Orthogonal, torch.matrix_exp in float64, and the identity [S, grad_S] = Q Z Q^T - Z of the gradient."""
    n, eps = 2000, torch.finfo(dtype).eps
    A = torch.randn(n, n, dtype=F64) / (2 * math.sqrt(n))
    S = (A - A.mT).to(dtype).requires_grad_()
    Q = skew_expm(S)
    exact = S.detach().double()
    assert relative_error(Q, torch.linalg.matrix_exp(exact)) <= 1000 * eps
    grad = torch.randn(n, n, dtype=dtype)
    found = torch.autograd.grad(Q, S, grad)[0].double()
    Q = Q.detach().double()
    assert (Q.mT @ Q - torch.eye(n)).abs().max() <= 100 * eps
    assert torch.equal(found, -found.mT)
    Z = Q.mT @ grad.double()
    Z = (Z - Z.mT) / 2
    assert relative_error(exact @ found - found @ exact, Q @ Z @ Q.mT - Z) <= 100 * eps


@pytest.mark.parametrize("n", [3, pytest.param(5, marks=pytest.mark.slow)])
@dtypes
def test_a_batch_of_100_000_exponentials(n, dtype):
    K, part = 100_000, slice(99_000, 100_000)
    A = torch.randn(K, n, n, dtype=F64)
    S = (A - A.mT).to(dtype).requires_grad_()
    grad = torch.randn(K, n, n, dtype=dtype)
    Q = skew_expm(S)
    found = torch.autograd.grad(Q, S, grad)[0]
    exact = S.detach()[part].double()
    tolerance = 100 * torch.finfo(dtype).eps
    assert relative_error(Q[part], exact_exponential(exact)) <= tolerance
    assert relative_error(found[part], exact_exponential_gradient(exact, grad[part])) <= tolerance


@pytest.mark.parametrize("return_sequence", [True, False])
@dtypes
def test_a_batch_of_100_000_samples(dtype, return_sequence):
    """The sums over the samples too: of terms of either sign, to some roundings of what they are sums of."""
    T, B, n, i = 3, 100_000, 5, 2
    exact = {
        "x": torch.randn(T, B, i, dtype=F64),
        "U": torch.randn(n, i, dtype=F64),
        "c": torch.randn(n, dtype=F64),
        "M": exact_exponential(skew_matrix(n, 1.0)),
        "h": torch.randn(B, n, dtype=F64),
    }
    mine = {name: t.to(dtype).requires_grad_() for name, t in exact.items()}
    exact = {name: t.detach().double().requires_grad_() for name, t in mine.items()}
    hs = recurrence(*mine.values(), "tanh", return_sequence=return_sequence)
    expected = states(*list(exact.values())[:3], lambda t: exact["M"], exact["h"], "tanh", None)
    expected = expected if return_sequence else expected[-1]
    grad = torch.randn(expected.shape, dtype=dtype)
    found = torch.autograd.grad(hs, list(mine.values()), grad)
    wanted = torch.autograd.grad(expected, list(exact.values()), grad.double())
    eps = torch.finfo(dtype).eps
    assert relative_error(hs, expected) <= 100 * eps
    for name, x, y in zip(mine, found, wanted, strict=True):
        scale = max(float(y.norm()), float(grad.norm()))
        assert float((x.double() - y).norm()) <= 100 * eps * scale, name


def rotation(dtype):
    """A step matrix of two nodes, its modulus and its angle in float64."""
    M = torch.tensor([[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]], dtype=F64).to(dtype)
    z = complex(float(M[0, 0]), float(M[1, 0]))
    return M, abs(z), math.atan2(z.imag, z.real)


@pytest.mark.slow
def test_ten_million_steps_and_their_gradients():
    """A rotation in float64, to the roundings of so many steps: h_T = r^T (turned by T angle), and the two parts of the
    gradient of M that the powers of M commute with."""
    M, modulus, angle = rotation(F64)
    x = torch.zeros(1, 1, 1, dtype=F64).expand(STEPS, 1, 1)
    h0, U = torch.tensor([[0.6, -0.8]], dtype=F64), torch.ones(2, 1, dtype=F64)
    M.requires_grad_(), h0.requires_grad_()
    h = recurrence(x, U, None, M, h0, "identity", return_sequence=False)

    def turned(steps):
        z = modulus**steps * complex(math.cos(steps * angle), math.sin(steps * angle))
        return torch.tensor([[z.real, -z.imag], [z.imag, z.real]], dtype=F64)

    tolerance = 10 * STEPS * torch.finfo(F64).eps
    expected = turned(STEPS) @ h0[0].detach()
    assert (h[0].detach() - expected).norm() <= tolerance
    g = torch.tensor([[1.0, 2.0]], dtype=F64)
    grad_M, grad_h0 = torch.autograd.grad(h, (M, h0), g)
    assert (grad_h0[0] - turned(STEPS).mT @ g[0]).norm() <= 3 * tolerance
    J = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=F64)
    one_less = turned(STEPS - 1) @ h0[0].detach()
    for direction in (torch.eye(2, dtype=F64), J):
        expected = STEPS * float(g[0] @ direction @ one_less)
        assert abs(float((grad_M * direction).sum()) - expected) <= 3 * STEPS * tolerance


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "drift"), [(torch.float32, STEPS * 2**-24), (F64, STEPS * 2**-53)])
def test_the_length_after_ten_million_steps(dtype, drift):
    """A step changes a length by half a rounding at most, and by the distance of |M| from 1, which is one too."""
    M, _, _ = rotation(dtype)
    x = torch.zeros(1, 1, 1, dtype=dtype).expand(STEPS, 1, 1)
    h0 = torch.tensor([[0.6, -0.8]], dtype=dtype)
    h = recurrence(x, torch.ones(2, 1, dtype=dtype), None, M, h0, "identity", return_sequence=False)
    assert abs(float(h.double().norm()) - 1) <= math.expm1(3 * drift)


MEMORY = """
import resource, torch
from vfrnn_kernels import recurrence
x = torch.zeros(1, 1, 1).expand({steps}, 1, 1)
M, h0 = torch.eye(2).mul(0.999).requires_grad_(), torch.ones(1, 2).requires_grad_()
for steps in (1000, {steps}):
    recurrence(x[:steps], torch.ones(2, 1), None, M, h0, "identity", return_sequence=False).sum().backward()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_of_ten_million_steps():
    """A training step keeps about sqrt(T) states: all of them would be 76 MiB in float32, of the gradient as many."""
    result = subprocess.run([sys.executable, "-c", MEMORY.format(steps=STEPS)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    few, many = (int(line) for line in result.stdout.split())
    assert many - few < 16 * 1024  # KiB
