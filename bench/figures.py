"""The pictures of the report, drawn from the JSON of a run and nothing else; None where there is no data."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

Json = dict[str, Any]

#: Colours that stay apart for readers who see few of them (Okabe and Ito); ours are blue and green.
COLOURS = {
    "vfrnn.RNN": "#0072B2",
    "vfrnn.VFRNN": "#009E73",
    "vfrnn.OrthogonalRNN": "#56B4E9",
    "vfrnn.skew_expm": "#0072B2",
    "torch.nn.RNN": "#D55E00",
    "orthogonal(torch.nn.RNN)": "#E69F00",
    "torch.matrix_exp": "#D55E00",
    "scipy.linalg.expm": "#CC79A7",
    "torch.nn.LSTM": "#CC79A7",
    "torch.nn.GRU": "#F0E442",
    "torch.nn.RNN from the identity": "#D55E00",
    "expRNN in geotorch": "#000000",
}
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "svg.fonttype": "none",
    "svg.hashsalt": "vfrnn",  # the same picture gives the same file
    "legend.frameon": False,
}


def colour(provider: str) -> str:
    return COLOURS.get(provider, "#666666")


def _figure(columns: int = 1, width: float = 4.6, height: float = 3.4) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(width * columns, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def _log_ticks(axes: Any, values: list[int]) -> None:
    """Logarithmic axes with a tick at each value measured."""
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()


def ratio_bars(result: Json) -> Figure | None:
    """Our time over each peer's, a bar per pair; a tick where the target is."""
    rows = [(case["workload"], row) for case in result["cases"] for row in case["ratios"]]
    if not rows:
        return None
    figure, (axes,) = _figure(width=9, height=0.19 * len(rows) + 0.9)
    for y, (_, row) in enumerate(rows):
        axes.barh(y, row["ratio"], color=colour(row["peer"]), height=0.75)
        if row["target"] is not None:
            axes.plot([row["target"]] * 2, [y - 0.45, y + 0.45], color="black", linewidth=1.5)
        axes.text(row["ratio"], y, f" {row['ratio']:.2f}", va="center", fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), [f"{name}: {row['ours']} / {row['peer']}" for name, row in rows], fontsize=7)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlabel("our time / the peer's (median over rounds); the tick is the target; left of 1 is faster")
    return figure


def roofline(result: Json) -> Figure | None:
    """Rate over arithmetic intensity, under the rates of a large matrix product and of a large copy."""
    if not result["cases"]:
        return None
    figure, (axes,) = _figure(width=8, height=4.4)
    gemm, copy = result["ceiling"]["gemm_flops"], result["ceiling"]["copy_bytes"]
    points = [
        (case["flops"] / case["minimal_bytes"], 1e9 * row["gflops"], row["provider"], case["workload"])
        for case in result["cases"]
        for row in case["providers"]
    ]
    lowest = min(min(x for x, *_ in points) / 2, gemm / copy / 4)
    highest = max(max(x for x, *_ in points) * 2, gemm / copy * 2)
    line = [lowest, gemm / copy, highest]
    axes.plot(line, [min(gemm, copy * x) / 1e9 for x in line], color="black")
    named = set()
    for x, y, provider, workload in points:
        ours = provider.startswith("vfrnn")
        label = None if provider in named else provider
        named.add(provider)
        marker = "o" if ours else "x"
        axes.plot(x, y / 1e9, marker, color=colour(provider), markersize=5, label=label, linestyle="none")
        if ours:
            axes.annotate(workload, (x, y / 1e9), xytext=(3, 3), textcoords="offset points", fontsize=5.5)
    axes.set(xscale="log", yscale="log", xlabel="flops per byte that must move", ylabel="GFLOP/s")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def growth(result: Json) -> Figure | None:
    """Time of forward and backward over T, B and n, with the exponents fitted."""
    rows = result.get("time", [])
    if not rows:
        return None
    figure, every_axes = _figure(len(rows))
    for axes, row in zip(every_axes, rows, strict=True):
        for curve in row["curves"]:
            label = f"{curve['provider']}: {row['over']}^{curve['exponent']:.2f}"
            label += f" ({curve['exponent_of_larger_half']:.2f} in the larger half)"
            axes.plot(row["values"], curve["seconds"], "o-", color=colour(curve["provider"]), label=label, markersize=4)
        fixed = ", ".join(f"{name} {value}" for name, value in row["fixed"].items())
        axes.set(xlabel=f"{row['over']}   ({fixed})", ylabel="seconds, forward + backward")
        _log_ticks(axes, row["values"])
        axes.legend(fontsize=6.5)
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
            axes.plot(
                row["values"], micro, "o-", color=colour(curve["provider"]), label=curve["provider"], markersize=4
            )
        axes.set(xlabel=row["over"], ylabel="microseconds per time step")
        _log_ticks(axes, row["values"])
        axes.legend(fontsize=7)
    return figure


def error_against_cost(result: Json) -> Figure | None:
    """Each exponential as a point: its error over its time; larger markers for larger n."""
    rows = result.get("accuracy", [])
    if not rows:
        return None
    kinds = ("forward", "orthogonality", "gradient")
    figure, every_axes = _figure(3)
    for axes, kind in zip(every_axes, kinds, strict=True):
        named = set()
        for row in rows:
            if kind in row["errors"]:
                label = None if row["provider"] in named else row["provider"]
                named.add(row["provider"])
                axes.plot(
                    row["median_ms"], max(row["errors"][kind], 1e-9), "o", color=colour(row["provider"]), label=label,
                    markersize=2 + row["n"] ** 0.5 / 3, alpha=0.7, markeredgewidth=0,
                )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="milliseconds (marker grows with n)", ylabel=f"{kind} error")
        axes.legend(fontsize=7)
    return figure


def memory(result: Json) -> Figure | None:
    """Peak of a training step over T; the line is one copy of the hidden states, which every layer returns."""
    rows = result.get("memory", [])
    if not rows:
        return None
    figure, (axes,) = _figure(width=7)
    for row in rows:
        label = f"{row['provider']}: {row['copies_of_states']:.2f} copies"
        megabytes = [value / 2**20 for value in row["bytes"]]
        axes.plot(row["steps"], megabytes, "o-", color=colour(row["provider"]), label=label, markersize=4)
    states = [value / 2**20 for value in rows[0]["state_bytes"]]
    axes.plot(rows[0]["steps"], states, ":", color="black", label="one copy of the hidden states")
    axes.set(xlabel="T   (B 128, n 170)", ylabel="MiB beyond the inputs, at the peak")
    axes.legend(fontsize=7)
    return figure


def long_memory(result: Json) -> Figure | None:
    """Peak and time of a training step on one very long sequence, of which the last state is wanted."""
    rows = result.get("long_memory", [])
    if not rows:
        return None
    figure, every_axes = _figure(2, width=5.2)
    colours = ("#D55E00", "#0072B2", "#009E73")
    for row, shade in zip(rows, colours, strict=True):
        megabytes = [max(value / 2**20, 0.1) for value in row["bytes"]]
        every_axes[0].plot(row["steps"], megabytes, "o-", color=shade, label=row["provider"], markersize=4)
        every_axes[1].plot(row["steps"], row["seconds"], "o-", color=shade, label=row["provider"], markersize=4)
    every_axes[0].set(ylabel="MiB beyond the inputs, at the peak")
    every_axes[1].set(ylabel="seconds a training step")
    for axes in every_axes:
        axes.set(xlabel="T   (B 1, n 64)", xscale="log", yscale="log")
        axes.legend(fontsize=7)
    return figure


def learning_curves(tasks: list[Json]) -> Figure | None:
    """Each task's test metric over epochs: the mean over seeds, and the range as a band."""
    if not tasks:
        return None
    figure, every_axes = _figure(len(tasks))
    for axes, task in zip(every_axes, tasks, strict=True):
        for model in task["models"]:
            runs = model["test_by_seed"]
            epochs = range(1, min(len(run) for run in runs) + 1)
            by_epoch = [[run[epoch - 1] for run in runs] for epoch in epochs]
            axes.plot(
                epochs, [statistics.fmean(values) for values in by_epoch], color=colour(model["title"]),
                label=model["title"],
            )  # fmt: skip
            axes.fill_between(
                epochs, [min(values) for values in by_epoch], [max(values) for values in by_epoch],
                color=colour(model["title"]), alpha=0.2, linewidth=0,
            )  # fmt: skip
        axes.axhline(task["baseline"], color="black", linestyle=":", linewidth=0.8)
        seeds = len(task["seeds"])
        axes.set(title=f"{task['name']} ({seeds} seeds)", xlabel="epoch", ylabel=f"test {task['metric']}")
        if task["metric"] != "accuracy":
            axes.set_yscale("log")
        axes.legend(fontsize=7)
    return figure


def learning_over_time(task: Json) -> Figure:
    """A task's test metric over the seconds of training: the mean over seeds, and the range as a band."""
    figure, (axes,) = _figure(width=7.5, height=4.2)
    for model in task["models"]:
        by_epoch = list(zip(*model["test_by_seed"], strict=True))
        seconds = [(k + 1) * model["seconds_per_epoch"] for k in range(len(by_epoch))]
        shade = colour(model["title"])
        axes.plot(seconds, [statistics.fmean(values) for values in by_epoch], color=shade, label=model["title"])
        lowest, highest = ([choose(values) for values in by_epoch] for choose in (min, max))
        axes.fill_between(seconds, lowest, highest, color=shade, alpha=0.2, linewidth=0)
    axes.axhline(task["baseline"], color="black", linestyle=":", linewidth=0.8)
    axes.axvline(task["equal_time_seconds"], color="black", linestyle="--", linewidth=0.8)
    axes.set(
        title=f"{task['name']} ({len(task['seeds'])} seeds; dashed: equal time)", xscale="log",
        xlabel="seconds of training", ylabel=f"test {task['metric']}",
    )  # fmt: skip
    if task["metric"] != "accuracy":
        axes.set_yscale("log")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def stages(rows: list[Json]) -> Figure:
    """Where one training step's time goes: a bar per stage."""
    figure, (axes,) = _figure(width=8, height=0.3 * len(rows) + 0.9)
    for y, row in enumerate(rows):
        axes.barh(y, row["milliseconds"], color="#0072B2" if row["inside"] else "#999999")
        axes.text(row["milliseconds"], y, f" {row['share']:.0%}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row["stage"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
    return figure


#: Title, what it shows, and the function of a run.
FIGURES: tuple[tuple[str, str, Callable[[Json], Figure | None]], ...] = (
    ("Ratios", "Our time over each peer's, measured in turns in one process.", ratio_bars),
    ("Roofline", "How far each workload is from what the machine can do.", roofline),
    ("Growth", "Time of forward and backward over T, B and n, with fitted exponents.", growth),
    ("Time per step", "Microseconds per time step.", time_per_step),
    ("Error against cost", "Exponentials in float32, against float64.", error_against_cost),
    ("Memory", "Peak memory of a training step over T.", memory),
    ("Long memory", "Peak memory and time of a training step on one very long sequence.", long_memory),
)


def anchor(title: str) -> str:
    """How a picture is called in the page's links and as a file."""
    return title.lower().replace(" ", "-")


def styled(draw: Callable[[], Figure | None]) -> Figure | None:
    """What `draw` draws, in the report's style."""
    with mpl.rc_context(STYLE):
        figure = draw()
    for axes in [] if figure is None else figure.axes:
        for k, artist in enumerate([*axes.lines, *axes.patches, *axes.collections]):
            artist.set_gid(f"data-{k}")  # what the check of the page looks for
    return figure
