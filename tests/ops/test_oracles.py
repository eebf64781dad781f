"""The oracle of the activations: it has every one of the package's, and is right where the value is known."""

import pytest
import torch

from tests import oracles
from tests.cases import ACTIVATIONS, beta_for

F64 = torch.float64


def test_there_is_a_formula_for_every_activation_and_no_other():
    assert set(oracles.FORMULAS) == set(ACTIVATIONS)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_derivative_is_the_slope(activation):
    z, beta = torch.linspace(-3, 3, 41, dtype=F64) + 0.01, beta_for(activation, 41)
    there, back = (oracles.activate(activation, z + step, beta) for step in (1e-6, -1e-6))
    assert oracles.smooth_at(activation, z, beta, 2e-6)
    torch.testing.assert_close(oracles.derivative(activation, z, beta), (there - back) / 2e-6, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_slope_of_a_state_is_that_of_its_sum(activation):
    z, beta = torch.linspace(-3, 3, 41, dtype=F64) + 0.01, beta_for(activation, 41)
    slope = oracles.SLOPES[activation](oracles.activate(activation, z, beta))
    torch.testing.assert_close(slope, oracles.derivative(activation, z, beta), rtol=1e-12, atol=1e-12)
    assert set(oracles.SLOPES) == set(ACTIVATIONS)


def test_known_values():
    z, beta = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], dtype=F64), torch.full((5,), -1.0, dtype=F64)
    assert oracles.activate("modrelu", z, beta).tolist() == [-1, 0, 0, 0, 1]
    assert oracles.derivative("modrelu", z, beta).tolist() == [1, 0, 0, 0, 1]
    assert oracles.activate("modrelu", z, -beta).tolist() == [-3, -1.5, 0, 1.5, 3]
    assert oracles.activate("relu", z).tolist() == [0, 0, 0, 0.5, 2]
    assert oracles.derivative("relu", z).tolist() == [0, 0, 0, 1, 1]
    assert torch.equal(oracles.activate("identity", z), z)
    assert oracles.activate("tanh", z)[-1] == pytest.approx(0.9640275800758169)


def test_bends_and_jumps_are_seen():
    beta = torch.tensor([0.5], dtype=F64)
    near, far = torch.tensor([2e-4], dtype=F64), torch.tensor([2e-3], dtype=F64)
    assert not oracles.smooth_at("relu", near)
    assert oracles.smooth_at("relu", far)
    assert not oracles.smooth_at("modrelu", near, beta)  # a jump
    assert not oracles.smooth_at("modrelu", near + 0.5, -beta)  # a bend
    assert oracles.smooth_at("modrelu", far + 0.5, -beta)
    assert oracles.smooth_at("tanh", near)
