"""Cayley's map and Householder reflections: torch's values, gradients, parameter and base; the rest is our own."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal as torch_orthogonal

from tests.cases import orthogonality_error
from vfrnn.parametrizations import orthogonal, rebase

SHAPES = [(1, 1), (5, 5), (7, 3), (3, 7), (2, 4, 4), (2, 3, 6), (4, 1)]
MAPS = ["cayley", "householder"]


def holder(shape, dtype=torch.float64):
    module = nn.Module()
    module.weight = nn.Parameter(torch.randn(shape, dtype=dtype))
    return module


def error_of(Q):
    tall = Q.detach() if Q.shape[-2] >= Q.shape[-1] else Q.detach().mT
    return max(map(orthogonality_error, tall.reshape(-1, *tall.shape[-2:])))


@pytest.mark.parametrize("use_trivialization", [True, False])
@pytest.mark.parametrize("orthogonal_map", MAPS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_state_dict_goes_either_way(shape, orthogonal_map, use_trivialization):
    theirs = holder(shape)
    ours = copy.deepcopy(theirs)
    torch_orthogonal(theirs, "weight", orthogonal_map, use_trivialization=use_trivialization)
    orthogonal(ours, "weight", orthogonal_map, use_trivialization=use_trivialization)
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=0, atol=1e-12)  # where both start
    with torch.no_grad():
        original = theirs.parametrizations.weight.original
        original += torch.randn(shape) * (1 - torch.eye(*shape[-2:]))
    ours.load_state_dict(theirs.state_dict())
    grad = torch.randn(shape, dtype=torch.float64)
    for read in (lambda module: module.weight, lambda module: module.weight.square().cumsum(-1)):
        values = [read(module) for module in (ours, theirs)]
        torch.testing.assert_close(*values, rtol=0, atol=1e-12)
        originals = [module.parametrizations.weight.original for module in (ours, theirs)]
        gradients = [torch.autograd.grad(value, X, grad)[0] for value, X in zip(values, originals, strict=True)]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-11)
    back = torch_orthogonal(holder(shape), "weight", orthogonal_map, use_trivialization=use_trivialization)
    back.load_state_dict(ours.state_dict())
    assert torch.equal(back.weight, theirs.weight)


@pytest.mark.parametrize("orthogonal_map", MAPS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_are_assigned_and_rebased(shape, orthogonal_map):
    module = orthogonal(holder(shape, torch.float32), orthogonal_map=orthogonal_map)
    for _ in range(50):
        with torch.no_grad():
            module.parametrizations.weight.original += torch.randn(shape)
        before = module.weight.detach().clone()
        assert rebase(module) == 1
        torch.testing.assert_close(module.weight, before, rtol=0, atol=2e-6)
    assert error_of(module.weight) < 1e-6
    module.weight = before
    torch.testing.assert_close(module.weight, before, rtol=0, atol=2e-6)


def test_householder_can_be_assigned_without_a_base():
    module = orthogonal(holder((6, 4)), orthogonal_map="householder", use_trivialization=False)
    value = torch.linalg.qr(torch.randn(6, 4, dtype=torch.float64)).Q
    module.weight = value
    torch.testing.assert_close(module.weight, value, rtol=0, atol=1e-13)
    other = orthogonal(holder((6, 4)), orthogonal_map="cayley", use_trivialization=False)
    with pytest.raises(NotImplementedError, match="Cayley"):
        other.weight = value


@pytest.mark.parametrize("orthogonal_map", MAPS)
def test_16_bits_and_copies(orthogonal_map):
    layer = orthogonal(nn.Linear(6, 9, dtype=torch.bfloat16), orthogonal_map=orthogonal_map)
    nn.init.normal_(layer.parametrizations.weight.original, -1)
    assert error_of(layer.weight.double()) < 2 * torch.finfo(torch.bfloat16).eps
    assert torch.equal(copy.deepcopy(layer).weight, layer.weight)
