"""Each kind of work that an endurance run repeats does what it says, at every size it draws."""

import random

import pytest
import torch
from vfrnn_bench import mixed_work

WORKS = mixed_work.works()
OF_TORCH = mixed_work.works_of_torch()
# The exporters' own, of deprecated functions and of tracing.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.mark.parametrize("name", WORKS)
@pytest.mark.parametrize("draw", [random.Random(0), mixed_work.Largest()], ids=["drawn", "largest"])
def test_work_runs(name, draw):
    WORKS[name](draw)


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_TORCH)
def test_work_of_torch_runs(name):
    OF_TORCH[name](random.Random(0))


def test_training_moves_every_layer_and_cell():
    trained = mixed_work.Trained()
    before = {name: [p.clone() for p in m.parameters()] for name, m in {**trained.layers, **trained.cells}.items()}
    trained.training(random.Random(0))
    trained.cells_training(random.Random(0))
    for name, module in {**trained.layers, **trained.cells}.items():
        assert any(not torch.equal(p, q) for p, q in zip(module.parameters(), before[name], strict=True)), name


def test_the_largest_is_drawn():
    assert mixed_work.Largest().randint(1, 40) == 40
    assert mixed_work._input(mixed_work.Largest()).shape == (mixed_work.MOST_STEPS, mixed_work.MOST_SAMPLES, 4)


def test_what_is_not_refused_is_said():
    with pytest.raises(AssertionError, match="what must be refused was not"):
        mixed_work._refused(lambda: None)
