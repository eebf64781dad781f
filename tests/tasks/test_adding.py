"""Adding: two marked numbers and their sum."""

import torch

from tests.tasks.cases import task_options
from vfrnn.tasks import Adding


def test_adding_marks_one_number_of_each_half():
    x, target = Adding(task_options(length=9)).sample(50, torch.Generator().manual_seed(0))
    assert x.shape == (9, 50, 2)
    marks = x[..., 1]
    assert torch.equal(marks[:4].sum(0), torch.ones(50))
    assert torch.equal(marks[4:].sum(0), torch.ones(50))
    torch.testing.assert_close(target, (x[..., 0] * marks).sum(0))
