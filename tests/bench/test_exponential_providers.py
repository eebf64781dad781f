"""Who computes exponentials: every provider gives the float64 results."""

from dataclasses import replace

import pytest
import torch
from vfrnn_bench.cases import exponential_case
from vfrnn_bench.exponential_providers import exponential_exact, scipy_expm, skew
from vfrnn_bench.measure import checked
from vfrnn_bench.providers import FORWARD, STEP

from tests.bench.small import EXPONENTIAL, ON_CPU


@pytest.mark.parametrize("batch", [1, 2])
def test_every_provider_is_right(batch):
    case = replace(exponential_case(replace(EXPONENTIAL, batch=batch), ON_CPU), modes=(FORWARD, STEP))
    right, errors, refused = checked(case, lambda name: True)
    assert list(right) == ["vfrnn.skew_expm", "torch.matrix_exp"]
    assert not refused
    assert set(errors["vfrnn.skew_expm"]) == {"Q", "grad S", "orthogonality"}
    assert max(errors["vfrnn.skew_expm"].values()) < 1e-5


def test_scipy_gives_the_same_matrix():
    pytest.importorskip("scipy")
    exact = exponential_exact(EXPONENTIAL, ON_CPU)["Q"]
    torch.testing.assert_close(scipy_expm(EXPONENTIAL.inputs()[0]["S"]).double(), exact, rtol=0, atol=1e-5)


def test_the_gradient_is_compared_without_its_symmetric_part():
    A = torch.randn(3, 3)
    assert torch.equal(skew({"grad S": A})["grad S"], (A - A.mT) / 2)
    assert skew({"Q": A}) == {"Q": A}
