"""The files of a small MNIST."""

import gzip

import numpy as np
import pytest

from tests.tasks.cases import write_idx
from vfrnn.tasks import mnist


@pytest.fixture
def mnist_folder(tmp_path, monkeypatch):
    """Four IDX files of 30 training and 6 test images of 2 x 3 pixels, one of them gzipped."""
    monkeypatch.setattr(mnist, "FULL_VALIDATION", 10)
    images = (np.arange(36 * 6) % 256).astype(np.uint8).reshape(36, 2, 3)
    for name, array in zip(
        mnist.FILES, (images[:30], images[:30, 0, 0] % 10, images[30:], images[30:, 0, 0] % 10), strict=True
    ):
        write_idx(tmp_path / name, array)
    path = tmp_path / mnist.FILES[0]
    (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return tmp_path
