"""The pictures of layers, one per quantity, with every layer and direction in it, and their table of facts."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vfrnn.inspection.drawing import HEIGHT, WIDTH, colour, legend, new_figure, png, styled
from vfrnn.inspection.layer import LayerInspection
from vfrnn.inspection.page import Picture

Layers = Sequence[LayerInspection]

HEAD = ("layer", "n", "dt", "median angle", "memory of its planes, steps", "singular values", "departure", "divergence")
#: Upper ends of the bars of half-lives, in steps.
HALF_LIVES = (1, 3, 10, 30, 100, 300, 1000)
#: Marks on an axis of angles, and how many steps one turn then takes.
TURNS = (
    (0, math.pi / 4, math.pi / 2, 3 * math.pi / 4, math.pi),
    ("0\n", "π/4\n(8 steps)", "π/2\n(4 steps)", "3π/4\n", "π\n(2 steps)"),
)
#: What is outside is drawn at the edge: float32 has forgotten it, or it has exploded.
SMALLEST, LARGEST = 1e-8, 1e8


def layer_facts(layers: Layers) -> list[list[str]]:
    """The table: its head, and a row for every layer."""
    rows = [list(HEAD)]
    for layer in layers:
        angle = f"{float(layer.angles.median()):.3g} rad" if layer.angles.numel() else "no plane"
        low, high = float(layer.singular_values[-1]), float(layer.singular_values[0])
        rows.append(
            [
                layer.title, str(layer.hidden_size), "" if layer.dt is None else f"{layer.dt:g}", angle, _memory(layer),
                f"{low:.3g} to {high:.3g}", f"{layer.departure:.3g}", _divergence(layer),
            ]
        )  # fmt: skip
    return rows


def _memory(layer: LayerInspection) -> str:
    kept, growing = layer.half_lives.isinf(), layer.half_lives < 0
    forgetting = layer.half_lives[~kept & ~growing]
    words = [f"{int(kept.sum())} kept"] if kept.any() else []
    if growing.any():
        words.append(f"{int(growing.sum())} growing (median doubling {-float(layer.half_lives[growing].median()):.3g})")
    if forgetting.numel():
        words.append(f"{forgetting.numel()} forgetting (median half-life {float(forgetting.median()):.3g})")
    return ", ".join(words)


def _divergence(layer: LayerInspection) -> str:
    if layer.divergence is None:
        return "no field"
    if not bool(layer.divergence.any()):
        return "0"
    low, high = float(layer.divergence.min()), float(layer.divergence.max())
    return f"{low:.3g} to {high:.3g}" + (
        "" if layer.divergence_scale is None else f" (scale {layer.divergence_scale:.3g})"
    )


def _plain(value: float, _: int) -> str:
    return f"{value:g}"


def _array(values: Tensor) -> Any:
    return values.numpy()


def angles(layers: Layers) -> Any:
    """Histograms of the rotation angles per step, one above the other."""
    rows = len(layers)
    figure, panels = new_figure(rows, 1, height=HEIGHT if rows == 1 else 1.2 + 1.3 * rows)
    for k, (axes, layer) in enumerate(zip(panels[:, 0], layers, strict=True)):
        planes = layer.angles.numel()
        counts, edges = torch.histogram(layer.angles, bins=max(8, min(32, planes // 3)), range=(0.0, math.pi + 1e-9))
        axes.stairs(_array(100 * counts / max(1, planes)), _array(edges), color=colour(k), fill=True)
        axes.set(xlim=(0, math.pi), xticks=TURNS[0])
        axes.set_xticklabels(TURNS[1] if k == rows - 1 else [])
        if rows > 1:
            axes.set_title(layer.title, loc="left")
    figure.supylabel("share of the planes, %", fontsize=11)
    panels[-1, 0].set_xlabel("angle per step, radians (steps of one turn)")
    return figure


def eigenvalues(layers: Layers) -> Any:
    """The eigenvalues of the step matrix in the complex plane."""
    figure, ((axes,),) = new_figure(width=4.8, height=4.4)
    turn = torch.linspace(0, 2 * math.pi, 361, dtype=torch.float64)
    axes.plot(_array(turn.cos()), _array(turn.sin()), color="#888888", linewidth=1, zorder=1)
    for k, layer in enumerate(layers):
        both = torch.cat([layer.eigenvalues, layer.eigenvalues.conj().resolve_conj()])
        axes.scatter(
            _array(both.real), _array(both.imag), s=10, color=colour(k), alpha=0.7, linewidths=0, label=layer.title,
            zorder=2,
        )  # fmt: skip
    axes.set(xlabel="real part", ylabel="imaginary part", aspect="equal")
    axes.margins(0.08)
    legend(figure, axes)
    return figure


def half_lives(layers: Layers) -> Any:
    """Bars: after how many steps half of a plane is forgotten."""
    figure, ((axes,),) = new_figure(width=WIDTH + 0.4)
    names = ["< 1", *(f"{a}–{b}" for a, b in itertools.pairwise(HALF_LIVES)), "> 1000"]
    names += ["kept", "grows"]
    width = 0.8 / len(layers)
    for k, layer in enumerate(layers):
        kept, growing = layer.half_lives.isinf(), layer.half_lives < 0
        bins = torch.bucketize(layer.half_lives, torch.tensor(HALF_LIVES, dtype=torch.float64), right=True)
        bins = torch.where(kept, len(names) - 2, torch.where(growing, len(names) - 1, bins))
        share = 100 * torch.bincount(bins, minlength=len(names)).double() / len(bins)
        at = torch.arange(len(names)) - 0.4 + width * (k + 0.5)
        axes.bar(_array(at), _array(share), width, color=colour(k), label=layer.title)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set(xlabel="steps until half is forgotten", ylabel="share of the planes, %")
    axes.grid(axis="x", visible=False)
    legend(figure, axes)
    return figure


def singular_values(layers: Layers) -> Any:
    """The singular values of the step matrix, descending."""
    figure, ((axes,),) = new_figure()
    lowest, highest = 0.8, 1.2
    for k, layer in enumerate(layers):
        n, values = layer.hidden_size, layer.singular_values
        name = f"{layer.title}: departure {layer.departure:.3g}" if len(layers) > 1 else layer.title
        at = torch.linspace(100 / n, 100, n, dtype=torch.float64)
        axes.plot(_array(at), _array(values), color=colour(k), label=name, marker="o" if n < 9 else "")
        lowest, highest = min(lowest, float(values[-1])), max(highest, float(values[0]))
    axes.axhline(1, color="#888888", linewidth=1, zorder=1)
    axes.set(xlabel="singular values, largest first, %", ylabel="stretch in one step")
    if highest > 20 * max(lowest, 1e-300):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(_plain)
        axes.set_ylim(max(lowest / 1.5, SMALLEST), highest * 1.5)
    else:
        margin = 0.05 * (highest - lowest)
        axes.set_ylim(lowest - margin, highest + margin)
    if len(layers) == 1:
        axes.set_title(f"departure from normality (Henrici): {layers[0].departure:.3g}")
    legend(figure, axes)
    return figure


def divergences(layers: Layers) -> Any:
    """The divergence that acts at every node, descending; None where none acts."""
    acting = [(k, layer) for k, layer in enumerate(layers) if layer.divergence is not None and layer.divergence.any()]
    if not acting:
        return None
    figure, ((axes,),) = new_figure()
    for k, layer in acting:
        if layer.divergence is not None:
            values = layer.divergence.sort(descending=True).values
            at = torch.linspace(100 / len(values), 100, len(values), dtype=torch.float64)
            axes.plot(_array(at), _array(values), color=colour(k), label=layer.title)
            if len(acting) == 1:
                axes.fill_between(_array(at), 0, _array(values), color=colour(k), alpha=0.25, linewidth=0)
    axes.axhline(0, color="#888888", linewidth=1, zorder=1)
    axes.set(xlabel="nodes, largest divergence first, %", ylabel="divergence δ, per unit of time")
    legend(figure, axes)
    return figure


def gradients(layers: Layers) -> Any:
    """The norm of the gradient over the lag."""
    figure, ((axes,),) = new_figure()
    values = []
    for k, layer in enumerate(layers):
        lags, linear = layer.lags, layer.linear_gradient.clamp(SMALLEST, LARGEST)
        values.append(linear)
        if layer.gradient is not None:
            true = layer.gradient.clamp(SMALLEST, LARGEST)
            values.append(true.flatten())
            low, high = true.min(1).values, true.max(1).values
            axes.fill_between(lags, _array(low), _array(high), color=colour(k), alpha=0.2, linewidth=0)
            axes.plot(lags, _array(true.log().mean(1).exp()), color=colour(k), linewidth=3, alpha=0.6)
        axes.plot(lags, _array(linear), "--", color=colour(k), linewidth=1.5)
        if len(layers) > 1:
            axes.plot([], [], color=colour(k), label=layer.title)
    if any(layer.gradient is not None for layer in layers):
        axes.plot([], [], color="#444444", linewidth=3, alpha=0.6, label="on the example")
    axes.plot([], [], "--", color="#444444", linewidth=1.5, label="powers of M")
    every = torch.cat(values)
    every = every[~every.isnan()]
    axes.axhline(1, color="#888888", linewidth=1, zorder=1)
    axes.set(xscale="log", yscale="log", xlabel="lag k, steps back", ylabel="norm of ∂h(T) / ∂h(T−k)")
    axes.set_ylim(min(float(every.min()) / 2, 0.1), max(float(every.max()) * 2, 10))
    longest = max(layer.lags[-1] for layer in layers)
    marks = [factor * 10**decade for decade in range(7) for factor in ((1, 2, 5) if longest <= 100 else (1,))]
    marks = [mark for mark in marks if mark <= longest]
    axes.set_xticks(marks, [str(mark) for mark in marks])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(_plain)
    legend(figure, axes, least=1)
    return figure


#: Name, title, caption and the function that draws it.
PICTURES: tuple[tuple[str, str, str, Callable[[Layers], Any]], ...] = (
    (
        "angles",
        "Rotation angles",
        "By how much one step turns the planes of the state. Small angles are slow modes, which tell distant steps "
        "apart; an angle of π changes sign at every step.",
        angles,
    ),
    (
        "eigenvalues",
        "Eigenvalues of the step matrix",
        "A point on the circle is a plane that is turned and kept for ever; inside it is forgotten, outside it grows.",
        eigenvalues,
    ),
    (
        "half-lives",
        "Half-lives of memory",
        "How long the planes remember, from the moduli of those eigenvalues, without the nonlinearity. “kept”: the "
        "modulus is 1 to rounding. “grows”: it is larger.",
        half_lives,
    ),
    (
        "singular-values",
        "Singular values of the step matrix",
        "By how much one step stretches the directions of the state. All are 1 where it is orthogonal. The departure "
        "from normality is 0 where the eigenvalues tell all of the powers of the matrix; where it is large, a state "
        "may grow for a while although every eigenvalue forgets.",
        singular_values,
    ),
    (
        "divergence",
        "Divergence per node",
        "A node with a positive divergence forgets: a step of the time dt scales it by exp(−dt δ / 2). One with a "
        "negative divergence is amplified.",
        divergences,
    ),
    (
        "gradient",
        "Gradient over the lag",
        "How much of a change k steps ago still reaches the last state, at most: 1 is kept, 0.1 is a tenth. Dashed: "
        "the powers of the step matrix. Solid, where there is an example: the recurrence with its nonlinearity, the "
        "geometric mean over the sequences, and their range as a band. "
        f"What is below {SMALLEST:g} or above {LARGEST:g} is drawn there.",
        gradients,
    ),
)


def layer_pictures(layers: Layers) -> list[Picture]:
    """All pictures of these layers that there are."""
    found = []
    for name, title, caption, draw in PICTURES:
        figure = styled(functools.partial(draw, layers))
        if figure is not None:
            found.append(Picture(name, title, caption, png(figure)))
    return found
