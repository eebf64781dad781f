"""Digits: what its tensors are, and that its split is fixed."""

import pytest
import torch

from tests.tasks.cases import task_options
from vfrnn.tasks import Digits


def test_digits_are_read_one_pixel_a_step():
    task = Digits(task_options())
    x, target = task.evaluation_batch("test")
    assert x.shape == (64, 360, 1)
    assert target.shape == (360,)
    assert float(x.min()) == 0
    assert float(x.max()) == 1


def test_the_split_is_disjoint_complete_and_fixed():
    rows = Digits(task_options()).rows
    again = Digits(task_options(batch_size=3)).rows
    assert {name: len(indices) for name, indices in rows.items()} == {"train": 1257, "validation": 180, "test": 360}
    assert torch.cat(list(rows.values())).unique().numel() == 1797
    assert all(torch.equal(rows[name], again[name]) for name in rows)


def test_one_epoch_of_digits_is_every_training_image_once():
    batches = list(Digits(task_options(batch_size=100)).training_batches(torch.Generator().manual_seed(0)))
    assert [target.numel() for _, target in batches] == [100] * 12 + [57]
    assert sum(float(x.double().sum()) for x, _ in batches) == pytest.approx(
        float(Digits(task_options())._x[:, Digits(task_options()).rows["train"]].double().sum())
    )
