"""float64 to 1e-12 of ten calls that mpmath computed with 70 digits, results and derivatives: exact_values.py."""

import json

import pytest
import torch

import vfrnn_kernels as vk
from tests.cases import quick
from tests.ops import exact_values

NAMES = pytest.mark.parametrize("name", exact_values.CASES)
TOLERANCE = 1e-12


@pytest.fixture(scope="module")
def stored():
    return json.loads(exact_values.FILE.read_text())


@NAMES
def test_values_and_derivatives(stored, name, backend):
    case, expected = exact_values.CASES[name], stored[name]
    tensors = {k: t.clone().requires_grad_() for k, t in case.tensors().items()}
    results = getattr(vk, case.op)(**tensors, **case.of_op, backend=backend)
    # the formula of two results is one row of both
    result = torch.cat([r.flatten() for r in results]) if isinstance(results, tuple) else results
    exact = torch.tensor([float(x) for x in expected["result"]], dtype=torch.float64)
    assert (result.detach().flatten() - exact).norm() <= TOLERANCE * exact.norm()
    loss = (exact_values.weights(result.shape) * result).sum()
    for (k, t), grad in zip(tensors.items(), torch.autograd.grad(loss, list(tensors.values())), strict=True):
        for number, derivative in enumerate(expected[k]):
            along = exact_values.direction(k, number, t.shape)
            # what the derivative is a sum of, where that cancels
            size = max(abs(float(derivative)), float(grad.norm() * along.norm()))
            assert abs(float((grad * along).sum()) - float(derivative)) <= TOLERANCE * size, (k, number)


@pytest.mark.parametrize("name", quick(exact_values.CASES, "skew_expm, n 2, angles of 10000", "field_generator, n 5"))
def test_the_file_is_what_the_formulas_give(stored, name):
    assert set(stored) == set(exact_values.CASES)
    assert exact_values.exact_values(exact_values.CASES[name]) == stored[name]
