"""What every test gets: a seed, fresh memory poisoned with NaN, two backends to choose from."""

import os

import pytest
import torch

from vfrnn_kernels import dispatch

# Without it cuBLAS refuses to run deterministically; it is read when the first handle is made.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture(autouse=True)
def seeded_and_poisoned():
    """Same numbers and warnings every run; torch.empty is full of NaN, so that reading unwritten memory shows."""
    torch.manual_seed(0)
    dispatch._warned.clear()
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=["cpu", "reference"])
def backend(request):
    """Every backend on the CPU that must give the reference's numbers; for Triton's: test_gpu_ops.py."""
    return request.param
