"""Transport: frames carried by a wind, and what a field learns of it."""

import math
from dataclasses import replace

import pytest
import torch

import vfrnn
from tests.tasks.cases import task_options, training_options
from vfrnn.tasks import Transport
from vfrnn.tasks.models import ModelOptions, Rollout, make_model
from vfrnn.tasks.training import Training

F64 = torch.float64


def task(**changes) -> Transport:
    return Transport(task_options(grid=8, horizon=3, **changes))


def test_shapes():
    one = task()
    frames, target = one.evaluation_batch("test")
    assert frames.shape == (1, 64, 64)
    assert target.shape == (3, 64, 64)
    (x, y), (again, _) = one.training_batches(torch.Generator())
    assert (x.shape, y.shape) == ((1, 7, 64), (3, 64, 7))
    assert torch.equal(x, again)
    ((other, _), _) = task(seed=1).training_batches(torch.Generator())
    assert not torch.equal(x, other)  # a seed of the run draws the sequences to learn from
    assert torch.equal(frames, task(seed=1).evaluation_batch("test")[0])  # and not those of the test


def test_options_that_are_wrong():
    for changes, message in (
        ({"wind": "none"}, "wind must be 'compressible' or 'incompressible', got 'none'"),
        ({"grid": 3}, "grid must be at least 4, got 3"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            Transport(task_options(**changes))


@pytest.mark.parametrize("wind", ["compressible", "incompressible"])
def test_the_wind_is_tangential_at_the_walls_and_has_the_divergence_of_its_name(wind):
    one = task(wind=wind)
    side = torch.linspace(0, 7, 29, dtype=F64)
    for wall in (0.0, 7.0):
        other = torch.full_like(side, wall)
        assert one.wind(torch.stack([other, side], -1))[:, 0].abs().max() < 1e-12
        assert one.wind(torch.stack([side, other], -1))[:, 1].abs().max() < 1e-12
    points = 7 * torch.rand(50, 2, dtype=F64)
    jacobian = torch.func.vmap(torch.func.jacrev(one.wind))(points)
    divergence = jacobian.diagonal(dim1=-2, dim2=-1).sum(-1).abs().max()
    assert divergence < 1e-12 if wind == "incompressible" else divergence > 0.1


def test_frames_solve_the_transport_equation():
    # df/dt = -u . grad f, by differences of a finer grid in space and of the flow in time
    one = Transport(task_options(grid=40, horizon=1))
    frames, target = one.sequences(2, torch.Generator().manual_seed(0), 1)
    f = torch.stack([frames[0], target[0].mT]).double().view(2, 2, 40, 40)
    du, dv = torch.gradient(f.mean(0), dim=(-2, -1))
    u = one.wind(one._nodes).view(40, 40, 2)
    change, expected = f[1] - f[0], -(u[..., 0] * du + u[..., 1] * dv)
    assert (change - expected).norm() < 0.05 * expected.norm()


def test_the_flow_of_the_wind_itself_is_nearly_right():
    # what a VFRNN can learn: minus the wind at the cells as its field, and the whole divergence
    one = Transport(task_options(grid=16, horizon=4))
    model = make_model("vfrnn", one, ModelOptions(256, mesh="grid", init="zero", substeps=4), seed=0)
    with torch.no_grad():
        model.layer.field_l0.copy_(-one.wind(one.cells()))
        model.layer.divergence_scale_l0.fill_(1.0)
    measures = one.measures(model)
    assert measures["error of the field"] < 1e-6
    assert measures["error at 4"] < 0.35 * one.baseline
    assert set(measures) == {"error at 4", "error at 12", "error of the field"}


@pytest.mark.parametrize("name", ["vfrnn", "orthogonal", "rnn", "lstm", "gru", "torch-orthogonal"])
def test_every_model_continues_a_frame(name):
    one = task()
    model = make_model(name, one, ModelOptions(64, mesh="grid", init="zero"), seed=0)
    assert isinstance(model, Rollout)
    frames, target = next(one.training_batches(torch.Generator()))
    output = model(frames)
    assert output.shape == (3, 7, 64)
    assert model(frames, steps=5).shape == (5, 7, 64)
    one.loss(output, target).backward()
    if name in ("vfrnn", "orthogonal", "rnn"):  # frames stay at first
        torch.testing.assert_close(output, frames.expand(3, -1, -1))
        assert math.isclose(one.metric(output, target), one.metric(frames.expand(3, -1, -1), target), rel_tol=1e-5)
        assert not [key for key, _ in model.named_parameters() if "readout" in key]
    else:
        assert model.readout.weight.shape == (64, 64)
    assert ("error of the field" in one.measures(model)) == (name in ("vfrnn", "orthogonal"))


@pytest.mark.parametrize("name", ["vfrnn", "lstm"])
def test_several_layers_start_from_the_frame(name):
    one = task()
    model = make_model(name, one, ModelOptions(64, layers=2, mesh="grid", init="zero"), seed=0)
    frames, _ = one.evaluation_batch("test")
    assert model(frames).shape == (3, 64, 64)


def test_a_field_on_another_mesh_is_not_compared_with_the_wind():
    one = task()
    model = make_model("vfrnn", one, ModelOptions(64, mesh="random", cells=49, dim=2, init="zero"), seed=0)
    assert set(one.measures(model)) == {"error at 3", "error at 9"}


def test_a_state_is_the_frame_in_the_measure_of_the_mesh():
    one = task()
    model = make_model("orthogonal", one, ModelOptions(64, mesh="grid", init="cayley"), seed=0)
    frames, _ = one.evaluation_batch("test")
    b = vfrnn.LatentMesh.grid(8, 8).b
    before, after = ((b * f.square()).sum(-1) for f in (frames[0], model(frames)[-1]))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)  # orthogonal matrices keep this norm
    with pytest.raises(ValueError, match="hidden size that is a square, got 63"):
        make_model("vfrnn", one, ModelOptions(63, mesh="grid"), seed=0)


def test_a_general_field_learns_more_than_a_volume_preserving_one():
    options = training_options("transport", ("vfrnn", "orthogonal"), epochs=6)
    options = replace(
        options,
        lr=dict.fromkeys(options.models, 3e-2),
        generator_lr=3e-2,
        task_options=task_options(grid=8, horizon=3, batch_size=12, steps_per_epoch=10),
        model_options=ModelOptions(64, mesh="grid", init="zero"),
    )
    training = Training(options)
    training.train(6, lambda trainee, loss: None, lambda: None)
    general, preserving = (trainee.history[-1].test for trainee in training.trainees)
    assert general < 0.75 * preserving < training.task.baseline
    scale = training.trainees[0].model.layer.divergence_scale_l0.item()
    assert 0.5 < scale < 1.5  # it started at 0, and is 1 of the true flow
