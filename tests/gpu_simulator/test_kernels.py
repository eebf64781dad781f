"""Kernels that no other test launches, because they are for large sizes.

`python -m tests.gpu_simulator.coverage` says which are left.
"""

import pytest

from tests.backends.gpu_cases import assert_right, skew_expm_case
from tests.cases import quick
from vfrnn_kernels.loader import CUDA_SIMULATED

pytestmark = pytest.mark.skipif(
    "simulated" not in (CUDA_SIMULATED or ""),
    reason="needs the simulator (python -m tests.gpu_simulator.run -- tests/gpu_simulator/test_kernels.py)",
)


@pytest.mark.parametrize("norm", quick([1.0, 20.0], 20.0))
def test_exponentials_by_tiles(norm):
    assert_right(skew_expm_case(130, norm, K=1), "cuda")
