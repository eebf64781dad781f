"""What a run's task can show: the true field with its divergence, and the frames of a test sequence."""

from dataclasses import replace

import pytest
import torch

import vfrnn
from tests.tasks.cases import task_options, training_options
from vfrnn.tasks import TASKS, Transport
from vfrnn.tasks.inspection import EXAMPLES, inspect_trainee, inspected_trainee, true_field
from vfrnn.tasks.models import ModelOptions, make_model
from vfrnn.tasks.training import Training

F64 = torch.float64


@pytest.mark.parametrize("wind", ["compressible", "incompressible"])
def test_the_divergence_of_the_true_field_is_that_of_the_wind(wind):
    task = Transport(task_options(grid=24, horizon=1, wind=wind))
    field = true_field(task)
    jacobian = torch.func.vmap(torch.func.jacrev(task.wind))(task._nodes)
    expected = jacobian.diagonal(dim1=-2, dim2=-1).sum(-1).view(24, 24)
    assert (field.divergence - expected).abs().max() < 0.02  # the mesh has spacing 1, at the walls too


def test_a_field_that_is_minus_the_wind_is_the_wind_as_velocities():
    task = Transport(task_options(grid=8, horizon=3))
    model = make_model("vfrnn", task, ModelOptions(64, mesh="grid", init="zero"), seed=0)
    with torch.no_grad():
        model.layer.field_l0.copy_(-task.wind(task.cells()))
    found, truth = vfrnn.inspect(model).layers[0].grid, true_field(task)
    torch.testing.assert_close(found.velocity, truth.velocity, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.divergence, truth.divergence, rtol=1e-5, atol=1e-5)


def test_frames_are_a_test_sequence_and_what_the_model_makes_of_it():
    task = Transport(task_options(grid=8, horizon=3))
    model = make_model("vfrnn", task, ModelOptions(64, mesh="grid", init="zero"), seed=0)
    frames, (first, target) = task.frames(model), task.evaluation_batch("test")
    assert frames.true.shape == frames.predicted.shape == (4, 8, 8)
    assert torch.equal(frames.true[0].flatten(), first[0, 0].double())
    assert torch.equal(frames.true[3].flatten(), target[2, :, 0].double())
    assert torch.equal(frames.predicted[0], frames.true[0])
    torch.testing.assert_close(frames.predicted[3], frames.true[0])  # a field of zeros keeps it


def test_other_tasks_have_neither():
    task = TASKS["copying"](task_options())
    assert true_field(task) is None
    assert task.frames(make_model("vfrnn", task, ModelOptions(4), seed=0)) is None


def test_a_trainee_is_followed_along_sequences_of_the_test(tmp_path):
    pytest.importorskip("matplotlib", reason="needs vfrnn-kernels[train]")
    training = Training(replace(training_options("adding", ("lstm", "orthogonal"))))
    trainee = inspected_trainee(training)
    assert trainee.name == "orthogonal"
    found = inspect_trainee(training, trainee, tmp_path)
    (layer,) = found.inspection.layers
    assert layer.gradient.shape == (9, EXAMPLES)  # sequences of 9 steps
    assert found.page == tmp_path / "index.html"
