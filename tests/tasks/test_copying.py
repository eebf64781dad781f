"""Copying: what it shows, and what a model without memory scores."""

import math

import pytest
import torch

from tests.tasks.cases import task_options
from vfrnn.tasks import Copying


def test_copying_shows_symbols_a_delay_and_a_marker():
    task = Copying(task_options())
    x, target = task.sample(4, torch.Generator().manual_seed(0))
    assert x.shape == (25, 4, 10)
    assert target.shape == (25, 4)
    tokens = x.argmax(-1)
    assert torch.equal(x.sum(-1), torch.ones(25, 4))
    assert int(tokens[:10].max()) < 8
    assert torch.equal(tokens[:10], target[-10:])
    assert bool((target[:-10] == 8).all())
    assert torch.equal((tokens == 9).nonzero()[:, 0], torch.full((4,), 14))  # the marker, delay steps after the symbols
    assert task.baseline == pytest.approx(10 * math.log(8) / 25)


def test_guessing_without_memory_scores_the_baseline_of_copying():
    task = Copying(task_options(delay=40))
    _, target = task.evaluation_batch("test")
    guess = torch.full((60, target.shape[1], 9), -50.0)
    guess[:50, :, 8] = 0
    guess[50:, :, :8] = 0
    assert task.metric(guess, target) == pytest.approx(task.baseline, rel=1e-6)
