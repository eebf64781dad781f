"""The pictures with bars: the one that the report starts with, and every ratio beside its target."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory
from vfrnn_bench import names
from vfrnn_bench.drawing import BLUE, GREY, INK, VERMILION
from vfrnn_bench.runs import Pair, between, pairs

Json = dict[str, Any]

#: In one picture: more are not compared at a glance.
MOST = 12

GROUPS = {
    "recurrence": "Training step of a layer",
    "inference": "Forward pass of a layer",
    "activation": "Activations",
    "training step": "Training step of a model",
    "exponential": "Exponential and its gradient",
    "frame": "Orthonormal columns and their gradient",
    "field": "Fields",
}


@dataclass(frozen=True)
class Bar:
    """A bar of the first picture, from and to the values that it spans where there are several."""

    label: str
    value: float
    text: str
    ours: bool = True
    span: tuple[float, float] | None = None


#: Of the first panel: group, ours, peer, and how the bar is called; "{}" is the peer's full name.
_SPEED = (
    ("recurrence", "vfrnn.RNN", "torch.nn.RNN", "vfrnn.RNN training, beside {}"),
    ("inference", "vfrnn.RNN", "torch.nn.RNN", "vfrnn.RNN inference, beside {}"),
    ("training step", "vfrnn.VFRNN", "orthogonal(torch.nn.RNN)", "vfrnn.VFRNN, beside orthogonal torch.nn.RNN"),
    ("training step", "vfrnn.VFRNN", "geotorch, cached", "vfrnn.VFRNN, beside {}"),
    ("exponential", "vfrnn.skew_expm", "torch.matrix_exp", "vfrnn.skew_expm, beside {}"),
    ("frame", "vfrnn.parametrizations.orthogonal", "torch.linalg.qr", "vfrnn.parametrizations.orthogonal, beside {}"),
)


def _speed_bars(result: Json) -> Iterator[Bar]:
    for group, ours, peer, label in _SPEED:
        speeds = sorted(1 / pair.ratio for pair in between(result, group, ours, peer))
        if speeds:
            middle = statistics.median(speeds)
            text = f"{names.speed(1 / middle)} times"
            yield Bar(label.format(names.provider(peer)), middle, text, span=(speeds[0], speeds[-1]))


def _error_bars(result: Json) -> Iterator[Bar]:
    for name in ("vfrnn.skew_expm", "torch.matrix_exp"):
        errors = [
            row["errors"]["gradient"]
            for row in result.get("accuracy", [])
            if row["provider"] == name and "gradient" in row["errors"]
        ]
        if errors:
            yield Bar(name, max(errors), names.power(max(errors)), name.startswith("vfrnn"))


def _memory_bars(result: Json) -> Iterator[Bar]:
    for row in result.get("memory", []):
        name, copies = row["provider"], row["copies_of_states"]
        if name != "vfrnn.flow_recurrence":
            label = "orthogonal torch.nn.RNN" if name == "orthogonal(torch.nn.RNN)" else name
            yield Bar(label, copies, f"{copies:.1f} copies", name.startswith("vfrnn"))


def summary(result: Json) -> Figure | None:
    """How much faster, how exact and how much memory: a panel each, those that were measured."""
    panels = [
        (title, bars, scale)
        for title, bars, scale in (
            ("How many times as fast as the peer?", list(_speed_bars(result)), "log"),
            ("How large is the worst error of a gradient?", list(_error_bars(result)), "linear"),
            ("How much memory, in copies of the hidden states?", list(_memory_bars(result)), "linear"),
        )
        if bars
    ]
    if not panels:
        return None
    slot, head, foot, width = 0.4, 0.36, 0.12, 4.9
    height = sum(len(bars) * slot + head + foot for _, bars, _ in panels)
    figure, top = Figure(figsize=(width, height), layout="none"), height
    for title, bars, scale in panels:
        tall = len(bars) * slot
        top -= head + tall
        axes = figure.add_axes((0.02, top / height, 0.96, tall / height))
        top -= foot
        _panel(axes, bars, scale)
        axes.set_title(title, loc="left", x=0, fontweight="bold", fontsize=9.5, color=INK)
    return figure


def _panel(axes: Any, bars: Sequence[Bar], scale: str) -> None:
    """A line of text above each bar, from the left, so that the picture is narrow enough for a telephone."""
    reach = max(max(bar.value, *(bar.span or (0.0,))) for bar in bars)
    base = 1.0 if scale == "log" else 0.0
    lowest = min([base, *(bar.span[0] for bar in bars if bar.span)])
    axes.set(xscale=scale, ylim=(len(bars) - 0.5, -0.55))
    axes.set_xlim(lowest / 1.15 if scale == "log" else 0, reach * 1.6 if scale == "log" else reach * 1.08)
    along = {"transform": axes.get_yaxis_transform(), "fontsize": 8.5, "va": "bottom"}
    for y, bar in enumerate(bars):
        axes.barh(y + 0.2, bar.value - base, left=base, height=0.34, color=BLUE if bar.ours else VERMILION)
        if bar.span and bar.span[0] < bar.span[1]:
            low, high, middle = *bar.span, y + 0.2
            ends = [middle - 0.1, middle + 0.1, middle]
            axes.plot([low] * 3 + [high] * 3, ends + ends[::-1], color=INK, linewidth=1.2)
        axes.text(0, y - 0.06, bar.label, **along)
        axes.text(1, y - 0.06, bar.text, **along, ha="right", fontweight="bold")
        axes.plot([base] * 2, [y - 0.02, y + 0.42], color=INK, linewidth=1.2)
    axes.set_axis_off()


# ---- every ratio -----------------------------------------------------------------------------------------------------


def pictures(result: Json) -> Iterator[tuple[str, list[Pair]]]:
    """Title and bars of each picture of ratios: a group of workloads, peer after peer, in parts of at most MOST."""
    found = pairs(result)
    for group in dict.fromkeys(pair.group for pair in found):
        parts: list[list[Pair]] = []
        rows = [pair for pair in found if pair.group == group]
        for peer in dict.fromkeys(pair.peer for pair in rows):
            ours = list(dict.fromkeys(pair.ours for pair in rows))
            of_peer = sorted((pair for pair in rows if pair.peer == peer), key=lambda pair: ours.index(pair.ours))
            if parts and len(parts[-1]) + len(of_peer) <= MOST:
                parts[-1] += of_peer
                continue
            count = math.ceil(len(of_peer) / MOST)
            size = math.ceil(len(of_peer) / count)
            parts += [of_peer[k * size : (k + 1) * size] for k in range(count)]
        for k, part in enumerate(parts):
            title = GROUPS.get(group, group)
            yield (f"{title}, {k + 1} of {len(parts)}" if len(parts) > 1 else title), part


def ratio_bars(rows: Sequence[Pair]) -> Figure:
    """Our time over each peer's, a bar per pair, under the two that are compared; a tick where the target is."""
    headings = [_heading(row) for row in rows]
    labels = [names.workload(row.workload) for row in rows]
    left = 0.2 + 0.064 * max(map(len, labels))  # inches, at 8 points
    y, places, tops = 0.0, [], []
    for k, heading in enumerate(headings):
        if k == 0 or headings[k - 1] != heading:
            lines = textwrap.wrap(heading, 84)
            tops.append((y + 0.25, "\n".join(lines)))
            y += 0.4 + 0.6 * len(lines)
        places.append(y + 0.5)
        y += 1
    height, foot, width = 0.27 * y, 0.6, 6.4
    figure = Figure(figsize=(width, height + foot), layout="none")
    axes = figure.add_axes((left / width, foot / (height + foot), 0.9 - left / width, height / (height + foot)))
    largest = max(max(row.ratio, row.target or 0) for row in rows)
    axes.set(ylim=(y, 0), xlim=(0, max(1.05, 1.08 * largest)))
    at_the_left = blended_transform_factory(figure.transFigure, axes.transData)
    for top, heading in tops:
        axes.text(0.01, top, heading, transform=at_the_left, fontsize=8, fontweight="bold", va="top")
    for place, row in zip(places, rows, strict=True):
        _ratio_bar(axes, place, row)
    axes.axvline(1, color=GREY, linewidth=0.9, linestyle=":")
    axes.set_yticks(places, labels, fontsize=8, color=INK)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    figure.text(
        0.01,
        0.06 / (height + foot),
        "Time over the peer's: left of 1 is faster. The upright tick is the target.",
        fontsize=8.5,
    )
    return figure


def _heading(row: Pair) -> str:
    return f"{names.provider(row.ours)}, beside {names.provider(row.peer, row.workload)}"


def _ratio_bar(axes: Any, y: float, row: Pair) -> None:
    axes.barh(y, row.ratio, color=VERMILION if row.missed else BLUE, height=0.62)
    end = row.ratio
    if row.target is not None:
        axes.plot([row.target] * 2, [y - 0.42, y + 0.42], color=INK, linewidth=2)
        if -0.02 < (row.target - row.ratio) / axes.get_xlim()[1] < 0.16:  # the number would lie under the tick
            end = max(row.ratio, row.target)
    number = f"{row.ratio:.2f}" if row.ratio >= 0.01 else f"{row.ratio:.3f}"
    axes.annotate(
        f"{number} missed" if row.missed else number, (end, y), xytext=(5, 0), textcoords="offset points", va="center",
        fontsize=8, fontweight="bold" if row.missed else "normal",
    )  # fmt: skip
