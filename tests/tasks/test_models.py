"""The models of the training command: shapes, seeds, and which parameters have a rate of their own."""

import math

import pytest
import torch

from tests.tasks.cases import task_options
from vfrnn.optim import param_groups
from vfrnn.tasks import Adding, Copying
from vfrnn.tasks.models import MODELS, ModelOptions, make_model


@pytest.mark.parametrize("name", MODELS)
def test_models_give_one_output_per_sample_or_step(name):
    for task in (Copying(task_options()), Adding(task_options())):
        x, target = task.sample(3, torch.Generator().manual_seed(0))
        output = make_model(name, task, ModelOptions(hidden_size=5), seed=0)(x)
        assert output.shape == ((25, 3, 9) if task.every_step else (3, 1))
        assert math.isfinite(float(task.loss(output, target).detach()))


def test_the_same_seed_makes_the_same_model():
    task = Copying(task_options())
    first, second = (make_model("vfrnn", task, ModelOptions(hidden_size=5), seed=4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(("name", "count"), [("vfrnn", 2), ("orthogonal", 1), ("torch-orthogonal", 1), ("lstm", 0)])
def test_generator_parameters_have_a_rate_of_their_own(name, count):
    model = make_model(name, Copying(task_options()), ModelOptions(hidden_size=5), seed=0)
    groups = param_groups(model, lr=1.0, generator_lr=0.1)
    assert [group["lr"] for group in groups] == ([1.0, 0.1] if count else [1.0])
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert not count or len(groups[1]["params"]) == count
