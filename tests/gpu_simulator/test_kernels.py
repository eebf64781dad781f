"""Kernels that no other test launches, because they are for large sizes.

`python -m tests.gpu_simulator.coverage` says which are left.
"""

import pytest
import torch

from tests.backends.gpu_cases import (
    assert_right,
    field_flow_case,
    field_generator_case,
    recurrence_case,
    skew_expm_case,
    strang_step_case,
)
from tests.cases import quick
from vfrnn_kernels.loader import CUDA_SIMULATED

pytestmark = pytest.mark.skipif(
    "simulated" not in (CUDA_SIMULATED or ""),
    reason="needs the simulator (python -m tests.gpu_simulator.run -- tests/gpu_simulator/test_kernels.py)",
)


@pytest.mark.parametrize("norm", quick([1.0, 20.0], 20.0))
def test_exponentials_by_tiles(norm):
    assert_right(skew_expm_case(130, norm, K=1), "cuda")


def test_powers_of_a_step_by_tiles():
    assert_right(strang_step_case(130, K=1, substeps=3), "cuda")


#: Samples of which a step has as many tiles as it takes for large ones.
MANY = 4065


@pytest.mark.parametrize("state", [None, torch.float32], ids=str)
@pytest.mark.parametrize("dtype", quick([torch.bfloat16, torch.float16], torch.bfloat16), ids=str)
@pytest.mark.parametrize("B", [5, *quick([MANY])])
def test_steps_by_tiles_in_16_bits(monkeypatch, B, dtype, state):
    monkeypatch.setenv("VFRNN_RECURRENCE_ROUTE", "steps")
    assert_right(recurrence_case(70, dtype, T=2, B=B, i=1, state=state), "cuda")


@pytest.mark.parametrize("B", [5, *quick([MANY])])
def test_steps_by_tiles_in_float32(monkeypatch, B):
    monkeypatch.setenv("VFRNN_RECURRENCE_ROUTE", "steps")
    assert_right(recurrence_case(70, torch.float32, T=2, B=B, i=1), "cuda")


@pytest.mark.parametrize(
    ("n", "m"), [(66, 9), (130, 9), (130, 70), *quick([(300, 3)])], ids=["9 cells", "few", "many", "large"]
)
def test_flows_of_many_nodes(n, m):
    assert_right(field_flow_case(n, B=2, m=m, substeps=1), "cuda")


def test_a_generator_by_large_tiles():
    assert_right(field_generator_case(330, K=1, m=5), "cuda")
