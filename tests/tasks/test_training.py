"""The training loop: resuming is exact, and models do not disturb each other."""

from dataclasses import replace

import pytest
import torch

from tests.tasks.cases import task_options, trained, training_options
from vfrnn.tasks.training import Training


def test_resuming_gives_the_bits_of_an_uninterrupted_run(tmp_path):
    whole = trained(training_options(), until=3)
    trained(training_options(), until=1).save(tmp_path)
    resumed = trained(None, until=3, folder=tmp_path)
    assert resumed.epochs_done == 3
    for a, b in zip(whole.trainees, resumed.trainees, strict=True):
        assert [epoch.loss for epoch in a.history] == [epoch.loss for epoch in b.history]
        for (name, p), q in zip(a.model.named_parameters(), b.model.parameters(), strict=True):
            assert torch.equal(p, q), name


def test_a_model_learns_the_same_whoever_trains_beside_it():
    alone, beside = (
        trained(training_options(models=("vfrnn",)), 2),
        trained(training_options(models=("lstm", "vfrnn")), 2),
    )
    assert [e.loss for e in alone.trainees[0].history] == [e.loss for e in beside.trainees[1].history]


def test_training_lowers_the_loss():
    history = trained(training_options(task="adding", models=("vfrnn",), epochs=20), until=20).trainees[0].history
    assert history[-1].loss < history[0].loss


def test_a_parameter_that_becomes_infinite_ends_the_run():
    options = training_options(models=("vfrnn",))
    options = replace(options, lr={"vfrnn": float("inf")}, task_options=task_options(steps_per_epoch=1))
    with pytest.raises(
        FloatingPointError, match=r"vfrnn in epoch 1: module must have finite parameters, got 'weight_ih"
    ):
        trained(options, until=1)


@pytest.mark.parametrize("model", ["vfrnn", "orthogonal"])
@pytest.mark.parametrize("lr", [1e8, float("inf")])
def test_a_field_too_strong_for_its_step_ends_the_run(model, lr):
    """A kernel refuses it in the evaluation, with an error of which the benchmark of tasks would not go on."""
    options = replace(training_options(models=(model,)), task_options=task_options(steps_per_epoch=1))
    with pytest.raises(FloatingPointError, match=f"{model} in epoch 1: module must have finite step matrices, got"):
        trained(replace(options, generator_lr=lr), until=1)


def test_another_error_of_a_model_stays_what_it_is():
    run = Training(training_options(models=("vfrnn",)))
    run.trainees[0].model.readout.weight.data = torch.zeros(1, 1)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run.train(1, lambda trainee, loss: None, lambda: None)


@pytest.mark.parametrize("model", ["vfrnn", "lstm"])
def test_an_infinite_gradient_of_a_finite_loss_ends_the_run(model):
    run = Training(training_options(models=(model,)))
    run.trainees[0].model.readout.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(FloatingPointError, match=f"a gradient of {model} is not finite in epoch 1"):
        run.train(1, lambda trainee, loss: None, lambda: None)


def test_finite_gradients_whose_norm_overflows_do_not():
    run = Training(training_options(models=("vfrnn",)))
    run.trainees[0].model.readout.weight.register_hook(lambda gradient: gradient.sign() * 1e30)
    run.train(1, lambda trainee, loss: None, lambda: None)
    assert run.epochs_done == 1


def test_a_folder_without_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no checkpoint\.pt"):
        Training.resume(tmp_path)
