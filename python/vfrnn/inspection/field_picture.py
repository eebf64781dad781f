"""The picture of a field on a grid: its velocities as arrows over their divergence, and the truth beside it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vfrnn.inspection.drawing import SIGNED, new_figure, png, styled
from vfrnn.inspection.grid import GridField
from vfrnn.inspection.layer import LayerInspection
from vfrnn.inspection.page import Picture

#: Arrows along the longer side, at most: more of them cannot be told apart.
ARROWS = 16
CAPTION = (
    "How one step carries the values of the state over the grid: arrows in nodes per step, over their divergence. Red: "
    "values spread out there; blue: they gather."
)


def field_pictures(layers: Sequence[LayerInspection], truth: GridField | None = None) -> list[Picture]:
    """A picture for every layer whose field is on a grid. The truth is drawn beside the only layer of its shape."""
    found = []
    on_grids = [(layer, layer.grid) for layer in layers if layer.grid is not None]
    for k, (layer, grid) in enumerate(on_grids):
        panels, caption = [("learned", grid)], CAPTION
        if layer.divergence_scale is not None:
            caption += f" The divergence acts {layer.divergence_scale:.3g} times (1 is the flow of the arrows)."
        elif layer.divergence is not None:
            caption += " In an orthogonal layer this divergence does not act."
        if truth is not None and len(on_grids) == 1 and truth.velocity.shape == grid.velocity.shape:
            panels.append(("true", truth))
            error = float((grid.velocity - truth.velocity).norm() / truth.velocity.norm())
            caption += f" The learned velocities differ from the true ones by {100 * error:.0f} % (root mean square)."
        name = "field" if len(on_grids) == 1 else f"field-{k}"
        title = "The field that was learned" if len(on_grids) == 1 else f"The field of {layer.title}"
        found.append(Picture(name, title, caption, png(styled(functools.partial(draw_fields, panels)))))
    return found


def draw_fields(panels: Sequence[tuple[str, GridField]]) -> Any:
    """The fields beside each other, with the same scale of arrows and colours."""
    shape = panels[0][1].divergence.shape
    ratio = shape[1] / shape[0]
    figure, (every,) = new_figure(
        columns=len(panels), width=3.0 * len(panels) + 1.2, height=min(6.0, max(2.4, 2.6 * ratio + 1.0))
    )
    stride = max(1, -(-max(shape) // ARROWS))
    fastest = max(float(field.velocity.norm(dim=-1).max()) for _, field in panels) or 1.0
    colours = max(float(field.divergence.abs().max()) for _, field in panels) or 1.0
    image: Any = None
    for axes, (name, field) in zip(every, panels, strict=True):
        image = axes.imshow(
            field.divergence.mT.numpy(), origin="lower", cmap=SIGNED, vmin=-colours, vmax=colours,
            interpolation="bilinear",
        )  # fmt: skip
        centres, arrows = _thinned(field.velocity, stride)
        # The longest arrow reaches from one to the next.
        quiver = axes.quiver(
            *centres, *arrows, angles="xy", scale_units="xy", scale=fastest / stride, pivot="mid", width=0.006,
            color="#1a1a1a",
        )  # fmt: skip
        axes.set(xlim=(0, shape[0] - 1), ylim=(0, shape[1] - 1))
        axes.set_title(name, loc="left")
        axes.set_xlabel("first axis, nodes")
        axes.grid(visible=False)
        axes.locator_params(integer=True, nbins=6)
        if axes is every[0]:
            axes.set_ylabel("second axis, nodes")
    length = _round_length(fastest)
    unit = f"{length:g} node{'s' * (length != 1)} a step"
    every[-1].quiverkey(
        quiver, 0.9, 1.065, length, unit, labelpos="W", coordinates="axes", fontproperties={"size": 9.5}
    )
    figure.colorbar(image, ax=list(every), label="divergence per step", shrink=0.85)
    return figure


def _thinned(velocity: Tensor, stride: int) -> tuple[list[Any], list[Any]]:
    """Every `stride`-th cell's centre and velocity, for a quiver."""
    p, q, _ = velocity.shape
    rows, columns = (torch.arange(stride // 2, size, stride) for size in (p, q))
    arrows = velocity[rows][:, columns]
    x, y = torch.meshgrid(rows + 0.5, columns + 0.5, indexing="ij")
    return [x.numpy(), y.numpy()], [arrows[..., 0].numpy(), arrows[..., 1].numpy()]


def _round_length(fastest: float) -> float:
    """The largest of 1, 2, 5, 10, ... that is not above it, for the key."""
    decade = 10.0 ** math.floor(math.log10(fastest))
    return max(factor * decade for factor in (1, 2, 5) if factor == 1 or factor * decade <= fastest)
