"""What the tests of modules share."""

import pytest
import torch

from tests.modules.meshes import MESHES


@pytest.fixture(params=MESHES)
def mesh(request):
    """A mesh of every kind, in float64."""
    return MESHES[request.param](dtype=torch.float64)
