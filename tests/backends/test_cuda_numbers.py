"""Bits and edges of the CUDA kernels' arithmetic, in the simulator: what one rounding decides, and what is infinite."""

import math

import pytest
import torch

from tests.backends.gpu_cases import recurrence_case, spectral_recurrence_case
from vfrnn_kernels import recurrence, spectral_recurrence
from vfrnn_kernels.loader import CUDA_SIMULATED

pytestmark = pytest.mark.skipif(CUDA_SIMULATED is None, reason="needs VFRNN_CUDA_SIMULATED (make test-gpu-simulated)")

ROUTES = pytest.mark.parametrize("route", ["cta", "steps"])


def rounded_once(h: torch.Tensor) -> torch.Tensor:
    """1 - h^2 of float32, as a multiply-add has it: float64 holds the square of a float32 exactly."""
    return (1 - h.double().square()).float()


@ROUTES
def test_the_derivative_of_tanh_is_one_multiply_add(monkeypatch, route):
    """Contracted or not, that would be the compiler's choice in every kernel, and bits would depend on the batch."""
    monkeypatch.setenv("VFRNN_RECURRENCE_ROUTE", route)
    n = 512 if route == "steps" else 64
    x, zero = torch.empty(1, 7, 0), torch.zeros(n, n)
    c = torch.linspace(-2, 2, n).requires_grad_()  # the state is tanh(c)
    hs = recurrence(x, torch.empty(n, 0), c, zero, torch.zeros(7, n), activation="tanh", backend="cuda")
    h = hs.detach()[0, 0]
    assert (rounded_once(h) != 1 - h * h).any()  # it is about numbers where this matters
    (gradient,) = torch.autograd.grad(hs[:, 3].sum(), c)
    assert torch.equal(gradient, rounded_once(h))


@pytest.mark.parametrize(("dtype", "n"), [(torch.float32, 100), (torch.bfloat16, 190), (torch.bfloat16, 256)], ids=str)
@pytest.mark.parametrize("activation", ["tanh", "leaky_relu", "modrelu"])
def test_gradients_of_a_sample_do_not_depend_on_the_batch(dtype, n, activation):
    x, U, c, M, h0, beta = recurrence_case(n, dtype, activation, T=3, B=33).tensors
    x, U = x[..., :0], U[:, :0]  # the input product is the framework's
    weight = torch.randn(3, 33, n, dtype=dtype)

    def gradient(B: int) -> torch.Tensor:
        start = h0[:B].clone().requires_grad_()
        hs = recurrence(x[:, :B], U, c, M, start, activation=activation, beta=beta, backend="cuda")
        return torch.autograd.grad(hs, start, weight[:, :B])[0]

    whole = gradient(33)  # in another tile than the others, or route
    for B in (1, 8, 16):
        assert torch.equal(gradient(B), whole[:B])


@pytest.mark.parametrize("activation", ["tanh", "identity"])
def test_a_sample_of_spectral_recurrence_has_its_bits_wherever_it_stands(activation):
    *_, S, delta, dt, h0, _ = spectral_recurrence_case(33, T=3, B=5).tensors
    x, U = torch.zeros(3, 5, 0), torch.zeros(33, 0)
    order = torch.tensor([4, 2, 0, 1, 3])

    def states(order: torch.Tensor) -> torch.Tensor:
        return spectral_recurrence(x, U, None, S, delta, dt[:, order], h0[order], activation=activation, backend="cuda")

    assert torch.equal(states(order), states(torch.arange(5))[:, order])


@ROUTES
@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_a_state_that_overflowed_goes_on_as_in_plain_arithmetic(monkeypatch, route, value):
    monkeypatch.setenv("VFRNN_RECURRENCE_ROUTE", route)
    n = 37
    M = torch.randint(1, 4, (n, n)) * torch.randn(n, n).sign()  # of few digits: the small part of a number is 0
    M[5] = torch.randn(n)
    h0 = torch.randn(2, n)
    h0[0, 11] = value
    x, U = torch.empty(1, 2, 0), torch.empty(n, 0)
    found = recurrence(x, U, None, M, h0, activation="identity", backend="cuda")[0]
    assert torch.equal(found[0], value * M[:, 11])
    assert found[1].isfinite().all()
    bounded = recurrence(x, U, None, M, h0, activation="tanh", backend="cuda")[0]
    assert torch.equal(bounded[0], (value * M[:, 11]).sign())


@ROUTES
def test_the_largest_numbers_are_finite(monkeypatch, route):
    monkeypatch.setenv("VFRNN_RECURRENCE_ROUTE", route)
    largest = torch.finfo(torch.float32).max
    x, U = torch.empty(1, 1, 0), torch.empty(3, 0)
    M = torch.diag(torch.tensor([0.5, 0.25, -0.5]))
    found = recurrence(x, U, None, M, torch.full((1, 3), largest), activation="identity", backend="cuda")[0, 0]
    torch.testing.assert_close(found, largest * M.diagonal(), rtol=1e-6, atol=0)


@ROUTES
def test_what_is_no_number_stays_so(monkeypatch, route):
    monkeypatch.setenv("VFRNN_RECURRENCE_ROUTE", route)
    h0 = torch.randn(9, 40)
    h0[4, 7] = math.nan
    x, U, M = torch.empty(2, 9, 0), torch.empty(40, 0), torch.randn(40, 40)
    found = recurrence(x, U, None, M, h0, activation="tanh", backend="cuda")
    assert found[:, 4].isnan().all()
    assert found[:, :4].isfinite().all()
