"""Denoise: symbols hidden in noise."""

import pytest
import torch

from tests.tasks.cases import task_options
from vfrnn.tasks import Denoise


def test_denoise_hides_the_symbols_in_noise_and_asks_for_them_in_order():
    task = Denoise(task_options(delay=15))
    x, target = next(task.training_batches(torch.Generator().manual_seed(0)))
    tokens = x.argmax(-1)
    assert x.shape == (26, 7, 10)
    assert bool((tokens[15] == 9).all())
    assert bool((tokens[16:] == 8).all())
    assert bool((target[:16] == 8).all())
    for k in range(7):
        assert tokens[:15, k][tokens[:15, k] < 8].tolist() == target[16:, k].tolist()
    with pytest.raises(ValueError, match="delay must be at least 10"):
        Denoise(task_options(delay=9))
