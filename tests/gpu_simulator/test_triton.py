"""Values and gradients of every op on the simulated code of the Triton kernels (`make test-gpu-simulated`)."""

import pytest
import torch

from tests.backends.gpu_cases import CASES, STEP_N, assert_right, recurrence_case, small_case
from vfrnn_kernels.library import triton_kernels
from vfrnn_kernels.loader import CUDA_SIMULATED, TRITON_MISSING

pytestmark = pytest.mark.skipif(
    TRITON_MISSING is not None or "simulated" not in (CUDA_SIMULATED or ""),
    reason="needs Triton and the simulator (python -m tests.gpu_simulator.run -- tests/gpu_simulator/test_triton.py)",
)


@pytest.fixture(autouse=True)
def _simulated(monkeypatch):
    from tests.gpu_simulator.triton import simulate

    simulate(monkeypatch)
    # so that a small n goes step by step
    monkeypatch.setattr(triton_kernels("recurrence"), "resident_limit", lambda dtype: STEP_N - 1)
    monkeypatch.setattr(triton_kernels("spectral_recurrence"), "resident_limit", lambda: STEP_N - 1)


@pytest.mark.parametrize("n", [17, STEP_N])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, n):
    assert_right(small_case(name, n), "triton")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n", [17, STEP_N])
def test_products_in_16_bits(n, dtype):
    assert_right(recurrence_case(n, dtype, "modrelu", T=3), "triton")
    assert_right(recurrence_case(n, dtype, "tanh", T=3, state=torch.float32), "triton")
