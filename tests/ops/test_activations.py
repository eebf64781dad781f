"""The table of activations: formulas, derivatives from the output, parameters, and that every language has the same."""

import pytest
import torch

from tests import oracles
from vfrnn_kernels import activations
from vfrnn_kernels.activations import ACTIVATIONS, FORMULAS, activate, check_activation, grad_z_of, has_beta, number
from vfrnn_kernels.loader import CPU_LIBRARY_MISSING


def points() -> torch.Tensor:
    """On both sides of every kink, of modrelu's at |z| = 0.5 too."""
    return torch.tensor([-3.0, -0.6, -0.4, -1e-3, 1e-3, 0.4, 0.6, 3.0], dtype=torch.float64)


def beta_of(activation: str, z: torch.Tensor) -> torch.Tensor | None:
    return torch.full_like(z, -0.5) if has_beta(activation) else None


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_formulas_and_derivatives(activation):
    z = points().requires_grad_()
    beta = beta_of(activation, z)
    h = activate(z, beta, activation)
    torch.testing.assert_close(h, oracles.activate(activation, z, beta))
    grad_h = torch.randn_like(z)
    (expected,) = torch.autograd.grad(h, z, grad_h)
    torch.testing.assert_close(grad_z_of(grad_h, h, activation), expected)


def test_the_tables_agree():
    assert tuple(FORMULAS) == ACTIVATIONS
    assert [number(name) for name in ACTIVATIONS] == list(range(len(ACTIVATIONS)))
    assert set(oracles.FORMULAS) == set(ACTIVATIONS)
    for name in ACTIVATIONS:
        assert f"| {name} |" in activations.__doc__


@pytest.mark.skipif(CPU_LIBRARY_MISSING is not None, reason="the CPU kernels are not loaded")
def test_the_native_kernels_have_the_same_names():
    one = torch.ones(1, 1)
    with pytest.raises(RuntimeError, match="activation must be one of ") as refused:
        torch.ops.vfrnn_kernels.recurrence(torch.ones(1, 1, 1), one, None, one, one, None, "gelu")
    listed = str(refused.value).split("must be one of ")[1].split(", got ")[0]
    assert tuple(name.strip("' ") for name in listed.split(",")) == ACTIVATIONS


def test_a_parameter_is_given_exactly_where_there_is_one():
    check_activation("tanh", None)
    check_activation("modrelu", torch.zeros(3))
    with pytest.raises(ValueError, match=r"^beta must be given when activation is 'modrelu', got None"):
        check_activation("modrelu", None)
    with pytest.raises(ValueError, match=r"^beta must be None unless activation is 'modrelu', got it with"):
        check_activation("relu", torch.zeros(3))
    with pytest.raises(TypeError):
        activate(torch.ones(2), None, "modrelu")
    for wrong in (None, 3, torch.ones(2)):
        with pytest.raises(ValueError, match=r"^activation must be one of"):
            check_activation(wrong, None)
    with pytest.raises(ValueError, match=r"^activation must be one of 'modrelu', .* got 'gelu'"):
        check_activation("gelu", None)
