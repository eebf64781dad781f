"""A run of `vfrnn train`, inspected: its layers, their angles over training, and what its task can show beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from vfrnn.inspection import GridField, Inspection, inspect
from vfrnn.inspection.frames import frame_pictures
from vfrnn.inspection.grid import velocity_divergence
from vfrnn.inspection.records import recurrent_modules
from vfrnn.inspection.training_picture import training_pictures
from vfrnn.mesh import LatentMesh
from vfrnn.tasks.models import TITLES
from vfrnn.tasks.task import Task
from vfrnn.tasks.training import CHECKPOINT, Trainee, Training

#: Sequences of the test split along which gradients are followed.
EXAMPLES = 4
#: A run that was saved before angles were recorded.
NOT_RECORDED = "Angles over training are left out: the checkpoint has none of its epochs' (an older vfrnn saved it)."


@dataclass(frozen=True)
class RunInspection:
    """One model of a run: what was found, and the page that shows it."""

    model: str
    inspection: Inspection
    page: Path


def load_run(path: Path) -> tuple[Training, Path]:
    """The run in a folder, or of a checkpoint file, and its folder.

    Raises:
        FileNotFoundError: there is none.
        RuntimeError: the file is no checkpoint of a run.
    """
    if path.is_dir():
        return Training.resume(path), path
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give the folder of a run of vfrnn train, or its {CHECKPOINT}")
    return Training.load(path), path.parent


def has_layers(training: Training) -> bool:
    """Whether one of the models has a layer of ours."""
    return any(recurrent_modules(trainee.model) for trainee in training.trainees)


def page_folder(folder: Path, trainee: Trainee) -> Path:
    """Where the page of a model goes, in the folder of its run."""
    return folder / f"inspect-{trainee.name}"


def inspected_trainee(training: Training, model: str | None = None) -> Trainee:
    """The model of the run with that name, or the first that has a layer of ours.

    Raises:
        RuntimeError: the run has no such model.
    """
    ours = {trainee.name: trainee for trainee in training.trainees if recurrent_modules(trainee.model)}
    names = ", ".join(repr(name) for name in ours) or "none"
    if model is not None and model not in ours:
        raise RuntimeError(f"model must be one of the run's with a layer of vfrnn, {names}, got {model!r}")
    if not ours:
        raise RuntimeError(f"the run must have a model with a layer of vfrnn, got {', '.join(training.options.models)}")
    return next(iter(ours.values())) if model is None else ours[model]


def inspect_trainee(training: Training, trainee: Trainee, folder: Path) -> RunInspection:
    """Inspects a model of a run along some sequences of its test split, and draws it into the folder.

    Raises:
        RuntimeError: matplotlib is missing, or what was learned is not finite.
    """
    task, name = training.task, trainee.name
    x, _ = task.evaluation_batch("test")
    try:
        found = inspect(trainee.model, x[:, :EXAMPLES])
    except ValueError as error:
        raise RuntimeError(f"{name} cannot be inspected: {error}") from error
    trainee.model.eval()
    frames = task.frames(trainee.model)
    more = [] if frames is None else frame_pictures(frames.true, frames.predicted)
    recorded = [epoch.layers for epoch in trainee.history if epoch.layers]
    epochs = len(trainee.history)
    told = [f"{TITLES[name]} on the task {training.options.title}, after {epochs} epoch{'s' * (epochs != 1)}."]
    told += [] if recorded else [NOT_RECORDED]
    page = found.draw(
        folder,
        title=f"{training.options.title}: what {TITLES[name]} has learned",
        truth=true_field(task),
        more=[*more, *training_pictures(recorded)],
        told=told,
    )
    return RunInspection(name, found, page)


def true_field(task: Task) -> GridField | None:
    """What carries the frames of the task, with its divergence on the mesh of their grid."""
    velocities = task.velocities()
    if velocities is None:
        return None
    mesh = LatentMesh.grid(*(size + 1 for size in velocities.shape[:2]), dtype=torch.float64)
    return GridField(velocities, velocity_divergence(mesh, velocities))
