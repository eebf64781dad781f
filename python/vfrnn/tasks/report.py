"""What a run leaves: the summary, the JSON log and the picture of the learning curves."""

from __future__ import annotations

import io
import json
import platform
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import vfrnn
from vfrnn.files import write_file
from vfrnn.tasks.models import TITLES
from vfrnn.tasks.training import LAST_EPOCHS, Training

LOG, PICTURE = "log.json", "curve.png"


def summary(training: Training) -> list[dict[str, Any]]:
    """One row per model: the test metric (mean of the last five epochs), the last loss, the median time of a step."""
    rows = []
    for trainee in training.trainees:
        last = trainee.history[-LAST_EPOCHS:]
        rows.append(
            {
                "model": trainee.name,
                "title": TITLES[trainee.name],
                "epochs": len(trainee.history),
                "loss": trainee.history[-1].loss,
                "validation": statistics.fmean(epoch.validation for epoch in last),
                "test": statistics.fmean(epoch.test for epoch in last),
                "step_ms": statistics.median(epoch.step_ms for epoch in trainee.history),
                "parameters": sum(parameter.numel() for parameter in trainee.model.parameters()),
                "divergence_scale": _divergence_scale(trainee.model),
                "measures": training.task.measures(trainee.model),
            }
        )
    return rows


def _divergence_scale(model: torch.nn.Module) -> float | None:
    """Of the first layer of a general field: 0 is volume preserving."""
    scale = getattr(getattr(model, "layer", None), "divergence_scale_l0", None)
    return None if scale is None else float(scale.detach())


def table(training: Training) -> str:
    """The summary as text, with the metric of a model without memory beside it."""
    task = training.task
    rows = summary(training)
    lines = [f"{'model':<26}{'test ' + task.metric_name:>24}{'time per step':>16}{'parameters':>13}"]
    for row in rows:
        value = f"{100 * row['test']:.1f} %" if task.metric_name == "accuracy" else f"{row['test']:.5f}"
        lines.append(f"{row['title']:<26}{value:>24}{row['step_ms']:>13.1f} ms{row['parameters']:>13,}")
        told = dict(row["measures"])
        if told and row["divergence_scale"] is not None:
            told["divergence scale"] = row["divergence_scale"]
        if told:
            lines.append("  " + ", ".join(f"{name} {measure:.3f}" for name, measure in told.items()))
    baseline = f"{100 * task.baseline:.0f} %" if task.metric_name == "accuracy" else f"{task.baseline:.5f}"
    lines.append(f"{'without memory':<26}{baseline:>24}")
    lines.append(f"test {task.metric_name}: mean of the last {min(LAST_EPOCHS, rows[0]['epochs'])} epochs")
    return "\n".join(lines)


def write_log(training: Training, folder: Path) -> Path:
    """`log.json`: options, versions, summary, and every epoch of every model."""
    path = folder / LOG
    options = asdict(training.options)
    document = {
        "options": options,
        "about": training.task.about,
        "metric": training.task.metric_name,
        "larger_is_better": training.task.larger_is_better,
        "baseline": training.task.baseline,
        "versions": {"vfrnn": vfrnn.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "threads": torch.get_num_threads(),
        "processes": training.processes.size,
        "summary": summary(training),
        "epochs": {trainee.name: [asdict(epoch) for epoch in trainee.history] for trainee in training.trainees},
    }
    write_file(path, json.dumps(document, indent=1) + "\n")
    return path


def draw(training: Training, folder: Path) -> Path:
    """`curve.png`: training loss and test metric over the epochs, a line per model."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RuntimeError("the picture needs matplotlib: pip install 'vfrnn-kernels[train]'") from error
    task = training.task
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for trainee in training.trainees:
        epochs = [epoch.epoch for epoch in trainee.history]
        left.plot(epochs, [epoch.loss for epoch in trainee.history], label=TITLES[trainee.name])
        right.plot(epochs, [epoch.test for epoch in trainee.history], label=TITLES[trainee.name])
    left.set(xlabel="epoch", ylabel="training loss", yscale="log", title=f"{training.options.title}: training loss")
    right.set(xlabel="epoch", ylabel=f"test {task.metric_name}", title=f"{training.options.title}: test")
    right.axhline(task.baseline, color="gray", linestyle=":", label="without memory")
    if not task.larger_is_better:
        right.set_yscale("log")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    right.legend()
    path = folder / PICTURE
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_file(path, picture.getvalue())
    return path
