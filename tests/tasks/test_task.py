"""What every task is to the training loop: evaluation batches are fixed."""

import pytest
import torch

from tests.tasks.cases import task_options, write_series
from vfrnn.tasks import TASKS


@pytest.mark.parametrize("name", TASKS)
def test_evaluation_batches_are_fixed_and_differ(name, mnist_folder, tmp_path):
    paths = {"mnist": mnist_folder, "series": write_series(tmp_path)}
    data = {"data": str(paths[name])} if name in paths else {}
    task, again = (TASKS[name](task_options(delay=12, **data)) for _ in range(2))
    (x, y), (x2, y2) = task.evaluation_batch("test"), again.evaluation_batch("test")
    assert torch.equal(x, x2)
    assert torch.equal(y, y2)
    other, _ = task.evaluation_batch("validation")
    assert other.shape != x.shape or not torch.equal(other, x)
