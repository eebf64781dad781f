"""A user's series: standardization, missing values, times, the split, and the last state of each series."""

import numpy as np
import pytest
import torch

from tests.tasks.cases import needs, task_options, training_options, write_series
from vfrnn.tasks import TASKS
from vfrnn.tasks.inspection import inspect_trainee
from vfrnn.tasks.models import MODELS, ModelOptions, make_model
from vfrnn.tasks.training import Training


def series(folder, seed=0, **arrays):
    """The task of the series of `write_series` with other arrays in their place."""
    path = folder / "waves.npz"
    if arrays:
        path = folder / "other.npz"
        np.savez(path, **arrays)
    return TASKS["series"](task_options(data=str(path), seed=seed))


def training_part(task):
    """All training samples, in the order of the rows."""
    rows = task.rows["train"]
    return task._x[:, rows], task._targets(rows)


def test_values_are_standardized_by_the_training_split(tmp_path):
    write_series(tmp_path)
    x, _ = training_part(series(tmp_path))
    torch.testing.assert_close(x.mean((0, 1)), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(x.square().mean((0, 1)), torch.ones(2), atol=1e-6, rtol=0)


def test_a_missing_value_is_the_one_before_and_a_first_one_the_mean(tmp_path):
    inputs = np.load(write_series(tmp_path))["inputs"]
    inputs[:, 0, 0] = inputs[:, 3:5, 1] = np.nan
    x, _ = series(tmp_path, inputs=inputs, targets=np.zeros(23)).evaluation_batch("test")
    assert bool((x[0, :, 0] == 0).all())
    assert bool((x[1, :, 0] != 0).all())
    assert torch.equal(x[2, :, 1], x[3, :, 1])
    assert torch.equal(x[2, :, 1], x[4, :, 1])


@pytest.mark.parametrize("value", [5.0, np.nan])
def test_a_channel_that_says_nothing_is_0(tmp_path, value):
    inputs = np.load(write_series(tmp_path))["inputs"]
    inputs[..., 1] = value
    x, _ = training_part(series(tmp_path, inputs=inputs, targets=np.zeros(23)))
    assert bool((x[..., 1] == 0).all())


def test_times_are_steps_in_units_of_the_mean_step(tmp_path):
    times = np.load(write_series(tmp_path, timed=True))["times"]
    task = series(tmp_path)
    assert (task.timed, task.ragged, task.input_size) == (True, False, 3)
    steps = training_part(task)[0][..., 2]
    assert bool((steps[0] == 0).all())
    assert float(steps[1:].mean()) == pytest.approx(1, rel=1e-5)
    raw = np.diff(times, prepend=times[:, :1])[task.rows["train"]]
    np.testing.assert_allclose(steps.T, raw / raw[:, 1:].mean(), rtol=1e-5)


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_last_state_of_each_series_is_read(tmp_path, name, timed):
    needs(name)
    write_series(tmp_path, ragged=True, timed=timed)
    task = series(tmp_path)
    layers = 1 if name == "geotorch" else 2  # it has no more
    model = make_model(name, task, ModelOptions(hidden_size=5, layers=layers), seed=0)
    x, _ = training_part(task)
    lengths = x[..., 0].sum(0).long()
    assert (task.input_size, x.shape[-1], len(lengths.unique())) == (2 + timed, 3 + timed, 6)
    together = model(x)
    model.ragged = False
    for k, length in enumerate(lengths):
        torch.testing.assert_close(together[k], model(x[:length, k : k + 1, 1:])[0], rtol=1e-5, atol=1e-6)


def test_the_split_is_drawn_by_the_seed_and_has_every_class_in_each_part(tmp_path):
    write_series(tmp_path)
    task, again, other = series(tmp_path), series(tmp_path), series(tmp_path, seed=1)
    assert {name: len(rows) for name, rows in task.rows.items()} == {"train": 16, "validation": 4, "test": 3}
    assert sorted(torch.cat(list(task.rows.values())).tolist()) == list(range(23))
    assert all(torch.equal(task.rows[name], again.rows[name]) for name in task.rows)
    assert not torch.equal(task.rows["test"], other.rows["test"])
    assert all(set(task._targets(rows).tolist()) == {0, 1} for rows in task.rows.values())


def test_a_test_split_that_is_given_is_used(tmp_path):
    path = write_series(tmp_path)
    path.rename(tmp_path / "train.npz")
    write_series(tmp_path).rename(tmp_path / "test.npz")
    task = TASKS["series"](task_options(data=str(tmp_path)))
    assert task.rows["test"].tolist() == list(range(23, 46))
    assert (len(task.rows["train"]), len(task.rows["validation"])) == (20, 3)


def test_an_epoch_has_every_training_series_once(tmp_path):
    write_series(tmp_path)
    batches = list(series(tmp_path).training_batches(torch.Generator().manual_seed(0)))
    assert [target.shape[-1] for _, target in batches] == [7, 7, 2]
    seen = torch.cat([x for x, _ in batches], 1)[0, :, 0].sort().values
    assert torch.equal(seen, training_part(series(tmp_path))[0][0, :, 0].sort().values)


def test_accuracy_and_the_most_frequent_class(tmp_path):
    write_series(tmp_path)
    task = series(tmp_path)
    _, target = task.evaluation_batch("test")
    assert task.metric(torch.nn.functional.one_hot(target, 2).float(), target) == 1
    assert task.output_size == 2
    assert task.baseline == pytest.approx(float((target == 0).double().mean()))
    assert task.about == "16 train, 4 validation, 3 test series of 2 channels, 8 steps; classes '0', '5'"


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_regression_is_measured_in_the_units_of_the_file(tmp_path, outputs):
    inputs = np.load(write_series(tmp_path))["inputs"]
    numbers = np.random.default_rng(1).normal(500, 20, (23, outputs))
    task = series(tmp_path, inputs=inputs, targets=numbers[:, 0] if outputs == 1 else numbers)
    assert (task.metric_name, task.output_size) == ("mean squared error", outputs)
    train, test = (numbers[task.rows[name]] for name in ("train", "test"))
    _, target = task.evaluation_batch("test")
    assert target.shape == (outputs, 3)
    assert task.baseline == pytest.approx(((test - train.mean(0)) ** 2).mean(), rel=1e-5)
    guess = torch.as_tensor((505 - train.mean(0)) / train.std(0)).expand(3, outputs).float()
    assert task.metric(guess, target) == pytest.approx(((test - 505) ** 2).mean(), rel=1e-4)
    assert float(task.loss(target.mT, target)) == 0


def test_targets_that_do_not_vary_are_no_division_by_0(tmp_path):
    inputs = np.load(write_series(tmp_path))["inputs"]
    assert series(tmp_path, inputs=inputs, targets=np.full(23, 3.0)).baseline == 0


def test_too_few_series_and_no_path(tmp_path):
    inputs = np.zeros((3, 2, 1))
    with pytest.raises(RuntimeError, match=r"other\.npz must have at least 4 series to train on, got 3"):
        series(tmp_path, inputs=inputs, targets=np.zeros(3))
    task = series(tmp_path, inputs=np.zeros((4, 2, 1)), targets=np.zeros(4))
    assert [len(rows) for rows in task.rows.values()] == [2, 1, 1]
    with pytest.raises(ValueError, match=r"data must name a \.ts or \.npz file or a folder .*, got None"):
        TASKS["series"](task_options())


def test_series_of_different_lengths_are_inspected_one_by_one(tmp_path):
    pytest.importorskip("matplotlib", reason="needs vfrnn-kernels[train]")
    options = training_options("series", ("vfrnn",))
    path = str(write_series(tmp_path, ragged=True, timed=True))
    training = Training(type(options)(**{**vars(options), "task_options": task_options(data=path)}))
    found = inspect_trainee(training, training.trainees[0], tmp_path)
    assert found.inspection.layers[0].gradient.shape[1] == 3  # the test split
    assert "series waves" in found.page.read_text()
