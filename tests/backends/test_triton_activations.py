"""The activations in Triton: the numbers of activations.py, and its formulas in the interpreter."""

import pytest
import torch

from tests import oracles
from tests.cases import ACTIVATIONS, beta_for
from vfrnn_kernels.activations import number
from vfrnn_kernels.loader import TRITON_INTERPRETED

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402

from vfrnn_kernels import triton_activations  # noqa: E402

interpreted = pytest.mark.skipif(not TRITON_INTERPRETED, reason="needs TRITON_INTERPRET=1")


@triton.jit
def activation_kernel(z_ptr, beta_ptr, grad_h_ptr, h_ptr, grad_z_ptr, activation, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)
    h = triton_activations.activate(tl.load(z_ptr + place), tl.load(beta_ptr + place), activation)
    tl.store(h_ptr + place, h)
    tl.store(grad_z_ptr + place, triton_activations.grad_z_of(tl.load(grad_h_ptr + place), h, activation))


def run(z, beta, activation):
    h, grad_z = torch.empty_like(z), torch.empty_like(z)
    activation_kernel[(1,)](z, z if beta is None else beta, torch.ones_like(z), h, grad_z, activation, SIZE=len(z))
    return h, grad_z


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_numbers(activation):
    assert getattr(triton_activations, activation.upper()).value == number(activation)


@interpreted
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_formulas(activation):
    z, beta = torch.randn(16), beta_for(activation, 16, dtype=torch.float32)
    h, grad_z = run(z, beta, number(activation))
    wide = None if beta is None else beta.double()
    torch.testing.assert_close(h, oracles.activate(activation, z.double(), wide).float())
    torch.testing.assert_close(grad_z, oracles.derivative(activation, z.double(), wide).float())
