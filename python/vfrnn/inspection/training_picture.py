"""The picture of a training: the distribution of the rotation angles and the divergence, epoch by epoch."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from vfrnn.inspection.drawing import HEIGHT, WIDTH, colour, legend, new_figure, png, styled
from vfrnn.inspection.page import Picture
from vfrnn.inspection.records import QUANTILES, LayerRecord

Epochs = Sequence[Sequence[LayerRecord]]  # what was recorded after each epoch, a record for every layer

#: Pairs of quantiles that bound a band, the widest first, and how dark it is.
BANDS = ((0.0, 1.0, 0.12), (0.05, 0.95, 0.2), (0.25, 0.75, 0.35))


def draw_angles(epochs: Epochs) -> Any:
    """Bands of quantiles over the epochs, a panel for every layer that has planes; None where none has."""
    layers = [k for k, record in enumerate(epochs[0]) if record.angles]
    if not layers:
        return None
    figure, panels = new_figure(len(layers), 1, height=1.2 + (HEIGHT - 1.2) * len(layers))
    at = range(1, len(epochs) + 1)
    for axes, k in zip(panels[:, 0], layers, strict=True):
        quantiles = {q: [records[k].angles[j] for records in epochs] for j, q in enumerate(QUANTILES)}
        for low, high, alpha in BANDS:
            axes.fill_between(at, quantiles[low], quantiles[high], color=colour(k), alpha=alpha, linewidth=0)
        axes.plot(at, quantiles[0.5], color=colour(k), marker="o" if len(epochs) == 1 else "")
        top = max(quantiles[1.0])
        if top > 0.5 * math.pi:
            axes.set_ylim(0, 1.02 * math.pi)
            axes.set_yticks([0, math.pi / 2, math.pi], ["0", "π/2", "π"])
        else:
            axes.set_ylim(0, 1.1 * top or 1.0)
        axes.set_ylabel("angle per step, radians")
        if len(layers) > 1:
            axes.set_title(epochs[0][k].name)
        _whole_epochs(axes, len(epochs))
    panels[-1, 0].set_xlabel("epoch")
    return figure


def draw_divergence(epochs: Epochs) -> Any:
    """Divergence and its scale over the epochs; None where no layer has a scale."""
    layers = [k for k, record in enumerate(epochs[0]) if record.divergence_scale is not None]
    if not layers:
        return None
    figure, ((left, right),) = new_figure(columns=2, width=1.4 * WIDTH, height=0.9 * HEIGHT)
    at, marker = range(1, len(epochs) + 1), "o" if len(epochs) == 1 else ""
    for k in layers:
        for axes, name in ((left, "divergence_scale"), (right, "divergence")):
            values = [getattr(records[k], name) for records in epochs]
            axes.plot(at, values, color=colour(k), label=epochs[0][k].name, marker=marker)
    left.axhline(0, color="#888888", linewidth=1, zorder=1)
    left.set(xlabel="epoch", ylabel="divergence scale")
    right.set(xlabel="epoch", ylabel="divergence δ, root mean square", ylim=(0, None))
    for axes in (left, right):
        _whole_epochs(axes, len(epochs))
    legend(figure, left)
    return figure


def _whole_epochs(axes: Any, count: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(1 if count > 1 else 0.5, max(count, 1.5))


#: Name, title, caption and the function that draws it.
PICTURES: tuple[tuple[str, str, str, Callable[[Epochs], Any]], ...] = (
    (
        "angles-over-training",
        "Rotation angles over training",
        "By how much a step turns the planes of the state, after every epoch: the line is the median, the bands hold "
        "half, nine tenths and all of the planes.",
        draw_angles,
    ),
    (
        "divergence-over-training",
        "Divergence over training",
        "The root mean square of the divergence that acts on the state, and the learned scale in it: at 0 the "
        "network is orthogonal, at 1 the state follows the flow of its field.",
        draw_divergence,
    ),
)


def training_pictures(epochs: Epochs) -> list[Picture]:
    """The pictures of what was recorded; none where nothing was."""
    found = []
    for name, title, caption, draw in PICTURES if epochs and epochs[0] else ():
        figure = styled(functools.partial(draw, epochs))
        if figure is not None:
            found.append(Picture(name, title, caption, png(figure)))
    return found
