"""What the runs of a learning benchmark come to: one JSON per benchmark, over models and seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from vfrnn_bench.machine import machine
from vfrnn_bench.tasks.benchmarks import Benchmark
from vfrnn_bench.tasks.protocol import Trained

from vfrnn.tasks.training import LAST_EPOCHS

Json = dict[str, Any]

#: Options of a run that are the model's, or its seed.
OF_A_RUN = ("models", "lr", "generator_lr", "seed")


def seconds_per_epoch(epochs: Sequence[Json]) -> float:
    """Of training alone, without the evaluations: the median time of a step times the steps of an epoch."""
    return 1e-3 * statistics.median(epoch["step_ms"] for epoch in epochs) * epochs[-1]["steps"]


def spread(values: Sequence[float]) -> Json:
    """Mean, lowest and highest over seeds."""
    return {"mean": statistics.fmean(values), "lowest": min(values), "highest": max(values)}


def equal_time(curves: Sequence[Sequence[float]], seconds_an_epoch: float, seconds: float) -> Json | None:
    """The test metric after the last epoch that ends within `seconds` of training; None where the first does not.

    `seconds` is the time that the fastest model of the benchmark needs for its whole training, all epochs. A slower
    model is read off its own curve there, in the middle of its schedule: its rate has not yet fallen to 0, which is a
    disadvantage beside a run whose schedule would end in that time.

    Args:
        curves: by seed, the test metric after every epoch.
        seconds_an_epoch: of the model.
        seconds: that it is given.
    """
    length = min(len(curve) for curve in curves)
    fitting = [k for k in range(1, length + 1) if k * seconds_an_epoch <= seconds * (1 + 1e-9)]
    if not fitting:
        return None
    return {"epochs": fitting[-1], **spread([curve[fitting[-1] - 1] for curve in curves])}


def summarize(
    benchmark: Benchmark, trained: Sequence[Trained], timing: Mapping[str, Sequence[Json]], absent: Mapping[str, str]
) -> Json:
    """Of every model that was trained, and of the epochs of all in turns.

    `mean`, `lowest`, `highest`: over seeds, of the test metric averaged over the last epochs. `tried`: the validation
    metric of seed 0 at every setting of the grid; empty where the rates were not chosen by the protocol.
    `seconds_per_epoch`, `equal_time`: see the functions of these names.

    Args:
        benchmark: what the models were trained on.
        trained: the models.
        timing: by model, epochs that give the time of a step.
        absent: why others are not there.
    """
    first = trained[0].logs[0]
    times = {one.model: seconds_per_epoch(timing[one.model]) for one in trained}
    seconds = min(times.values()) * first["options"]["epochs"]
    return {
        "name": benchmark.name,
        "what": benchmark.what,
        "published": [asdict(row) for row in benchmark.published],
        "metric": first["metric"],
        "larger_is_better": first["larger_is_better"],
        "baseline": first["baseline"],
        "seeds": [log["options"]["seed"] for log in trained[0].logs],
        "options": _shared(first["options"]),
        "machine": machine(torch.device("cpu")),
        "equal_time_seconds": seconds,
        "models": [_model(one, timing[one.model], times[one.model], seconds) for one in trained],
        "absent": dict(absent),
    }


def _shared(options: Json) -> Json:
    """What all runs have in common; of data, the name alone."""
    task = {name: value for name, value in options["task_options"].items() if name != "seed"}
    if task.get("data") is not None:
        task["data"] = Path(task["data"]).name
    return {name: value for name, value in options.items() if name not in OF_A_RUN} | {"task_options": task}


def _model(one: Trained, epochs: Sequence[Json], seconds_an_epoch: float, seconds: float) -> Json:
    rows = [next(row for row in log["summary"] if row["model"] == one.model) for log in one.logs]
    curves = [[epoch["test"] for epoch in log["epochs"][one.model]] for log in one.logs]
    return {
        "model": one.model,
        "title": rows[0]["title"],
        "parameters": rows[0]["parameters"],
        "rates": asdict(one.rates),
        "tried": [{**asdict(tried.rates), "validation": tried.validation} for tried in one.tried],
        **spread([statistics.fmean(curve[-LAST_EPOCHS:]) for curve in curves]),
        "step_ms": statistics.median(epoch["step_ms"] for epoch in epochs),
        "seconds_per_epoch": seconds_an_epoch,
        "equal_time": equal_time(curves, seconds_an_epoch, seconds),
        "test_by_seed": curves,
        "divergence_scale_by_seed": [row["divergence_scale"] for row in rows],
        "measures_by_seed": [row["measures"] for row in rows],
    }


def load_tasks(folder: Path) -> list[Json]:
    """The summaries in `folder`, by name.

    Raises:
        OSError: there is no such folder.
    """
    return [json.loads(path.read_text()) for path in sorted(folder.iterdir()) if path.suffix == ".json"]


def shown(value: float, metric: str) -> str:
    """A metric as the tables have it."""
    return f"{100 * value:.1f} %" if metric == "accuracy" else f"{value:.3g}"


HEAD = ("over seeds", "rates", "parameters", "s per epoch", "at equal time")


def cells(summary: Json) -> Iterable[tuple[str, ...]]:
    """A row per model: its title, the mean of the test metric, and what HEAD says."""
    for model in summary["models"]:
        metric, rates, equal = summary["metric"], model["rates"], model["equal_time"]
        generator = "" if rates["generator_lr"] is None else f" / {rates['generator_lr']:g}"
        at_equal_time = "no epoch fits"
        if equal is not None:
            at_equal_time = f"{shown(equal['mean'], metric)} ({equal['epochs']} of {len(model['test_by_seed'][0])})"
        yield (
            model["title"],
            shown(model["mean"], metric),
            f"{shown(model['lowest'], metric)} to {shown(model['highest'], metric)}",
            f"{rates['lr']:g}{generator}",
            f"{model['parameters']:,}",
            f"{model['seconds_per_epoch']:.3g}",
            at_equal_time,
        )


def table(summary: Json) -> str:
    """The models, and the published figures beside them, as text."""
    rows = [("model", f"test {summary['metric']}", *HEAD), *cells(summary)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [f"{summary['name']}: {summary['what']}"]
    for name, *numbers in rows:
        right = [f"{number:>{width}}" for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([f"{name:<{widths[0]}}", *right]))
    lines.append(f"A model without memory would reach {shown(summary['baseline'], summary['metric'])}.")
    lines.append(
        f"The rates are the ordinary one / the generators', chosen by validation; seeds: {len(summary['seeds'])}."
    )
    seconds = summary["equal_time_seconds"]
    lines.append(f"The equal time is {seconds:.3g} s, the fastest model's whole training; (epochs of all) in brackets.")
    lines += [f"{model} is absent: {reason}." for model, reason in summary["absent"].items()]
    lines += [published_line(row) for row in summary["published"]]
    return "\n".join(lines)


def published_line(row: Json) -> str:
    """A published figure in a sentence."""
    size = f" ({row['size']})" if row["size"] else ""
    return f"The published result of {row['model']}{size} is {row['result']}: {row['source']}."
