"""The models of the training command: shapes, seeds, and which parameters have a rate of their own."""

import math
import sys

import pytest
import torch

from tests.tasks.cases import needs, task_options
from vfrnn.optim import param_groups
from vfrnn.tasks import Adding, Copying, Transport
from vfrnn.tasks.models import MODELS, WITH_GENERATORS, ModelOptions, make_model


@pytest.mark.parametrize("name", MODELS)
def test_models_give_one_output_per_sample_or_step(name):
    needs(name)
    for task in (Copying(task_options()), Adding(task_options())):
        x, target = task.sample(3, torch.Generator().manual_seed(0))
        output = make_model(name, task, ModelOptions(hidden_size=5), seed=0)(x)
        assert output.shape == ((25, 3, 9) if task.every_step else (3, 1))
        assert math.isfinite(float(task.loss(output, target).detach()))


def test_the_same_seed_makes_the_same_model():
    task = Copying(task_options())
    first, second = (make_model("vfrnn", task, ModelOptions(hidden_size=5), seed=4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


GENERATORS = {"vfrnn": 2, "orthogonal": 1, "torch-orthogonal": 1, "geotorch": 1}


@pytest.mark.parametrize("name", MODELS)
def test_generator_parameters_have_a_rate_of_their_own(name):
    needs(name)
    count = GENERATORS.get(name, 0)
    assert (name in WITH_GENERATORS) == (count > 0)
    model = make_model(name, Copying(task_options()), ModelOptions(hidden_size=5), seed=0)
    groups = param_groups(model, lr=1.0, generator_lr=0.1)
    assert [group["lr"] for group in groups] == ([1.0, 0.1] if count else [1.0])
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert not count or len(groups[1]["params"]) == count


def test_torchs_rnn_from_the_identity_keeps_a_state_that_is_positive():
    layer = make_model("identity-rnn", Copying(task_options()), ModelOptions(hidden_size=5, layers=2), seed=0).layer
    state = torch.rand(2, 3, 5)
    _, last = layer(torch.zeros(4, 3, 10), state)
    torch.testing.assert_close(last[0], state[0])
    assert layer.weight_ih_l0.std() < 0.002


def test_geotorchs_model_takes_the_frames_of_transport_as_they_are():
    needs("geotorch")
    task = Transport(task_options(grid=4, horizon=2))
    frames, _ = task.evaluation_batch("test")
    model = make_model("geotorch", task, ModelOptions(hidden_size=16, init="zero"), seed=0)
    assert isinstance(model.readout, torch.nn.Identity)
    torch.testing.assert_close(model(frames), frames.expand(2, -1, -1))


def test_a_model_that_cannot_be_made_says_why(monkeypatch):
    needs("geotorch")
    with pytest.raises(ValueError, match="layers must be 1 for the model 'geotorch', got 2"):
        make_model("geotorch", Copying(task_options()), ModelOptions(hidden_size=5, layers=2), seed=0)
    monkeypatch.setitem(sys.modules, "geotorch", None)
    with pytest.raises(RuntimeError, match=r"needs geotorch: pip install 'vfrnn-kernels\[bench\]'"):
        make_model("geotorch", Copying(task_options()), ModelOptions(hidden_size=5), seed=0)
