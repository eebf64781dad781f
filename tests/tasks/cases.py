"""Options and files that the tests of the learning tasks share."""

from pathlib import Path

import numpy as np
import pytest

from vfrnn.tasks import TaskOptions
from vfrnn.tasks.models import ModelOptions
from vfrnn.tasks.training import Training, TrainingOptions


def task_options(**changes) -> TaskOptions:
    """Short sequences in small batches."""
    return TaskOptions(**{"batch_size": 7, "delay": 5, "length": 9, "steps_per_epoch": 2, **changes})


def needs(model: str) -> None:
    """Skip a test of this model where what it is made with is not installed."""
    if model == "geotorch":
        pytest.importorskip("geotorch", reason="geotorch is not installed")


def training_options(task="copying", models=("vfrnn", "lstm"), epochs=3) -> TrainingOptions:
    """A run of seconds."""
    return TrainingOptions(
        task=task,
        models=models,
        epochs=epochs,
        lr=dict.fromkeys(models, 1e-2),
        generator_lr=1e-3,
        clip=1.0,
        seed=3,
        task_options=task_options(),
        model_options=ModelOptions(hidden_size=6),
    )


def trained(options: TrainingOptions | None, until: int, folder: Path | None = None) -> Training:
    """A run to `until` epochs, a new one or that of the checkpoint in `folder`."""
    run = Training(options) if folder is None else Training.resume(folder)
    run.train(until, lambda trainee, loss: None, lambda: None)
    return run


def write_idx(path: Path, array: np.ndarray) -> None:
    """Unsigned bytes as an IDX file."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.tobytes())


def write_series(folder: Path, *, ragged: bool = False, timed: bool = False, regression: bool = False) -> Path:
    """`waves.npz`: 23 series of 2 channels and at most 8 steps, of two classes or with a number each."""
    generator = np.random.default_rng(0)
    slope = np.arange(23) % 2
    inputs = 3 + generator.normal(size=(23, 8, 2)) + slope[:, None, None] * np.arange(8)[None, :, None]
    arrays = {"inputs": inputs, "targets": 1000 + 100.0 * slope if regression else 5 * slope}
    if timed:
        arrays["times"] = generator.exponential(7, (23, 8)).cumsum(1)
    if ragged:
        arrays["lengths"] = generator.integers(3, 9, 23)
    np.savez(folder / "waves.npz", **arrays)
    return folder / "waves.npz"
