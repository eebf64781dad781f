"""What every test gets: a seed, fresh memory poisoned with NaN, two backends to choose from."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded_and_poisoned():
    """Same numbers every run; torch.empty comes back full of NaN, so that reading unwritten memory shows."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=["cpu", "reference"])
def backend(request):
    """Every backend that must give the reference's numbers."""
    return request.param
