"""The pictures of the report, drawn from the JSON of a run and nothing else; None where there is no data."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure
from vfrnn_bench import names
from vfrnn_bench.bars import summary
from vfrnn_bench.drawing import BLUE, GREY, INK, VERMILION, colour, line

Json = dict[str, Any]


def _figure(panels: int = 1, across: int = 1, height: float = 3.4, width: float = 6.4) -> tuple[Figure, list[Any]]:
    """Panels below one another, or so many across."""
    down = -(-panels // across)
    figure = Figure(figsize=(width, height * down), layout="tight")
    every = figure.subplots(down, across, squeeze=False).flatten()
    for axes in every[panels:]:
        axes.remove()
    return figure, list(every[:panels])


def _legend_below(axes: Any, columns: int = 1) -> None:
    """Between the picture and its caption, where it hides no data."""
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=columns)


def _log_ticks(axes: Any, values: list[int]) -> None:
    """Logarithmic axes with a tick at each value measured."""
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()


def roofline(result: Json) -> Figure | None:
    """Rate over arithmetic intensity, under the rates of a large matrix product and of a large copy."""
    if not result["cases"]:
        return None
    figure, (axes,) = _figure(height=5.2)
    gemm, copy = result["ceiling"]["gemm_flops"], result["ceiling"]["copy_bytes"]
    points = [
        (case["flops"] / case["minimal_bytes"], 1e9 * row["gflops"], row["provider"])
        for case in result["cases"]
        for row in case["providers"]
    ]
    lowest = min(min(x for x, *_ in points) / 2, gemm / copy / 4)
    highest = max(max(x for x, *_ in points) * 2, gemm / copy * 2)
    ceiling = [lowest, gemm / copy, highest]
    axes.plot(ceiling, [min(gemm, copy * x) / 1e9 for x in ceiling], color=INK)
    named = set()
    for x, y, provider in points:
        kind = "vfrnn" if provider.startswith("vfrnn") else "its peers"
        label = None if kind in named else kind
        named.add(kind)
        marker, shade = ("o", BLUE) if kind == "vfrnn" else ("x", VERMILION)
        axes.plot(x, y / 1e9, marker, color=shade, markersize=4, label=label, linestyle="none", alpha=0.8)
    axes.set(xscale="log", yscale="log", xlabel="floating-point operations per byte that must move", ylabel="GFLOP/s")
    axes.legend(loc="lower right")
    return figure


def growth(result: Json) -> Figure | None:
    """Time of forward and backward over T, B and n, with the exponents fitted."""
    rows = result.get("time", [])
    if not rows:
        return None
    figure, every_axes = _figure(len(rows))
    for axes, row in zip(every_axes, rows, strict=True):
        for curve in row["curves"]:
            label = f"{curve['provider']}: grows as {row['over']} to the power {curve['exponent']:.2f}"
            label += f" ({curve['exponent_of_larger_half']:.2f} in the larger half)"
            axes.plot(row["values"], curve["seconds"], label=label, **line(curve["provider"]))
        fixed = ", ".join(f"{name} {value}" for name, value in row["fixed"].items())
        axes.set(xlabel=f"{row['over']}   ({fixed})", ylabel="seconds, forward and backward")
        _log_ticks(axes, row["values"])
        axes.legend()
    return figure


def time_per_step(result: Json) -> Figure | None:
    """The same, over the number of steps: flat over T where time is linear in it."""
    rows = result.get("time", [])
    if not rows:
        return None
    figure, every_axes = _figure(len(rows))
    for axes, row in zip(every_axes, rows, strict=True):
        for curve in row["curves"]:
            steps = row["values"] if row["over"] == "T" else [row["fixed"]["T"]] * len(row["values"])
            micro = [1e6 * seconds / T for seconds, T in zip(curve["seconds"], steps, strict=True)]
            axes.plot(row["values"], micro, label=curve["provider"], **line(curve["provider"]))
        axes.set(xlabel=row["over"], ylabel="microseconds per time step")
        _log_ticks(axes, row["values"])
        axes.legend()
    return figure


def error_against_cost(result: Json) -> Figure | None:
    """Each exponential as a point: its error over its time; larger markers for larger n."""
    rows = result.get("accuracy", [])
    if not rows:
        return None
    kinds = ("forward", "orthogonality", "gradient")
    figure, every_axes = _figure(3, height=3.0)
    for axes, kind in zip(every_axes, kinds, strict=True):
        named = set()
        for row in rows:
            if kind in row["errors"]:
                label = None if row["provider"] in named else row["provider"]
                named.add(row["provider"])
                style = line(row["provider"]) | {"markersize": 2 + row["n"] ** 0.5 / 3, "linestyle": "none"}
                axes.plot(row["median_ms"], max(row["errors"][kind], 1e-9), label=label, alpha=0.8, **style)
        axes.set(xscale="log", yscale="log", xlabel="milliseconds", ylabel=f"error, {kind}")
        axes.legend(markerscale=0.6)
    return figure


def memory(result: Json) -> Figure | None:
    """Peak of a training step over T; the line is one copy of the hidden states, which every layer returns."""
    rows = result.get("memory", [])
    if not rows:
        return None
    figure, (axes,) = _figure(height=5.2)
    for row in rows:
        label = f"{names.provider(row['provider'])}: {row['copies_of_states']:.2f} copies"
        megabytes = [value / 2**20 for value in row["bytes"]]
        axes.plot(row["steps"], megabytes, label=label, **line(row["provider"]))
    states = [value / 2**20 for value in rows[0]["state_bytes"]]
    axes.plot(rows[0]["steps"], states, ":", color=INK, label="one copy of the hidden states")
    axes.set(xlabel="T   (B 128, n 170)", ylabel="MiB beyond the inputs, at the peak")
    _legend_below(axes)
    return figure


def long_memory(result: Json) -> Figure | None:
    """Peak and time of a training step on one very long sequence, of which the last state is wanted."""
    rows = result.get("long_memory", [])
    if not rows:
        return None
    figure, every_axes = _figure(2)
    for row in rows:
        megabytes = [max(value / 2**20, 0.1) for value in row["bytes"]]
        for axes, values in zip(every_axes, (megabytes, row["seconds"]), strict=True):
            axes.plot(row["steps"], values, label=names.provider(row["provider"]), **line(row["provider"]))
    every_axes[0].set(ylabel="MiB beyond the inputs, at the peak")
    every_axes[1].set(ylabel="seconds a training step")
    for axes in every_axes:
        axes.set(xlabel="T   (B 1, n 64)", xscale="log", yscale="log")
    _legend_below(every_axes[1])
    return figure


def learning_curves(tasks: list[Json]) -> Figure | None:
    """Each task's test metric over epochs: the mean over seeds, and the range as a band."""
    if not tasks:
        return None
    figure, every_axes = _figure(len(tasks), across=2, height=3.4, width=8.4)
    for axes, task in zip(every_axes, tasks, strict=True):
        for model in task["models"]:
            by_epoch = list(zip(*model["test_by_seed"], strict=False))
            _band(axes, range(1, len(by_epoch) + 1), by_epoch, model["title"])
        axes.axhline(task["baseline"], color=INK, linestyle=":", linewidth=0.8)
        seeds = len(task["seeds"])
        axes.set(title=f"{task['name']} ({seeds} seeds)", xlabel="epoch", ylabel=f"test {task['metric']}")
        if task["metric"] != "accuracy":
            axes.set_yscale("log")
    models = {
        found: artist for axes in every_axes for artist, found in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    room = 0.25 * math.ceil(len(models) / 3) + 0.1  # inches
    figure.legend(models.values(), models.keys(), loc="lower center", ncols=3)
    figure.set_layout_engine("tight", rect=(0, room / figure.get_figheight(), 1, 1))
    return figure


def _band(axes: Any, x: Sequence[float], by_epoch: Sequence[Sequence[float]], title: str) -> None:
    """The mean over seeds, and the range as a band; a marker now and then tells the models apart without colours."""
    style = line(title) | {"markevery": max(1, len(by_epoch) // 6)}
    axes.plot(x, [statistics.fmean(values) for values in by_epoch], label=title, **style)
    lowest, highest = ([choose(values) for values in by_epoch] for choose in (min, max))
    axes.fill_between(x, lowest, highest, color=colour(title), alpha=0.2, linewidth=0)


def learning_over_time(task: Json) -> Figure:
    """A task's test metric over the seconds of training: the mean over seeds, and the range as a band."""
    figure, (axes,) = _figure(height=5.4)
    for model in task["models"]:
        by_epoch = list(zip(*model["test_by_seed"], strict=True))
        seconds = [(k + 1) * model["seconds_per_epoch"] for k in range(len(by_epoch))]
        _band(axes, seconds, by_epoch, model["title"])
    axes.axhline(task["baseline"], color=INK, linestyle=":", linewidth=0.8)
    axes.axvline(task["equal_time_seconds"], color=INK, linestyle="--", linewidth=0.8)
    axes.set(
        title=f"{task['name']} ({len(task['seeds'])} seeds; the upright line is the equal time)", xscale="log",
        xlabel="seconds of training", ylabel=f"test {task['metric']}",
    )  # fmt: skip
    if task["metric"] != "accuracy":
        axes.set_yscale("log")
    _legend_below(axes, columns=2)
    return figure


def stages(rows: list[Json]) -> Figure:
    """Where one training step's time goes: a bar per stage."""
    figure, (axes,) = _figure(width=8, height=0.3 * len(rows) + 0.9)
    for y, row in enumerate(rows):
        axes.barh(y, row["milliseconds"], color=BLUE if row["inside"] else GREY)
        axes.text(row["milliseconds"], y, f" {row['share']:.0%}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row["stage"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
    return figure


#: Title, what it shows, and the function of a run.
FIGURES: tuple[tuple[str, str, Callable[[Json], Figure | None]], ...] = (
    (
        "Summary",
        "How much faster vfrnn is than its peers, how exact, and how much memory it takes. A longer bar of speed is "
        "better: it is the median over workloads, and its thin line spans them all. Of error and memory, a shorter bar "
        "is better.",
        summary,
    ),
    (
        "Roofline",
        "How close each workload comes to what the machine can do: the line is the rate of a large matrix product or "
        "of a large copy, whichever is lower.",
        roofline,
    ),
    (
        "Growth",
        "How the time of forward and backward grows with the number of steps T, the batch B and the hidden size n, "
        "with the exponents that fit best.",
        growth,
    ),
    (
        "Time per step",
        "The same times divided by the number of steps: the curve over T is flat where time is linear in T.",
        time_per_step,
    ),
    (
        "Error against cost",
        "The largest error of each exponential in float32, against float64, over its time; larger markers are larger "
        "matrices.",
        error_against_cost,
    ),
    ("Memory", "How the peak memory of a training step grows with the number of steps T.", memory),
    (
        "Long memory",
        "The peak memory and the time of a training step on one very long sequence, of which the last state is wanted.",
        long_memory,
    ),
)


def anchor(title: str) -> str:
    """How a picture is called in the page's links and as a file."""
    return title.lower().replace(" ", "-")
