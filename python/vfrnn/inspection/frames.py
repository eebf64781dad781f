"""Predicted beside true frames: a film strip, and an animation."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vfrnn.inspection.drawing import SIGNED, STYLE, matplotlib, new_figure, png, styled
from vfrnn.inspection.page import Picture

#: Frames of the strip, at most; frames of the animation a second.
SHOWN, RATE = 5, 3
ROWS = ("true", "predicted", "difference")


def frame_pictures(true: Tensor, predicted: Tensor) -> list[Picture]:
    """The strip and the animation of two sequences of frames (T + 1, p, q), the first of which was given."""
    strip = png(styled(functools.partial(draw_strip, true, predicted)))
    errors = _errors(true, predicted)
    caption = (
        "One sequence of the test: the true frames, what the model makes of the first one, and predicted less true, in "
        f"the same colours. Relative error after {len(true) - 1} steps: {errors[-1]:.2f}."
    )
    return [
        Picture("animation", "Predicted beside true frames", caption, animation(true, predicted), "gif"),
        Picture("frames", "The same as a film strip", "From left to right in time.", strip),
    ]


def _errors(true: Tensor, predicted: Tensor) -> list[float]:
    """The relative error of each frame."""
    return ((predicted - true).flatten(1).norm(dim=1) / true.flatten(1).norm(dim=1).clamp(min=1e-300)).tolist()


def _options(true: Tensor) -> dict[str, Any]:
    size = float(true.abs().max()) or 1.0
    return {"origin": "lower", "cmap": SIGNED, "vmin": -size, "vmax": size, "interpolation": "bilinear"}


def _bare(axes: Any) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)


def draw_strip(true: Tensor, predicted: Tensor) -> Any:
    """Up to `SHOWN` frames, evenly spaced from the first to the last, in three rows."""
    count = min(SHOWN, len(true))
    times = torch.linspace(0, len(true) - 1, count).round().long().tolist()
    figure, panels = new_figure(3, count, width=1.25 * count + 0.9, height=4.2)
    image: Any = None
    for column, t in enumerate(times):
        for row, frame in enumerate((true[t], predicted[t], predicted[t] - true[t])):
            axes = panels[row][column]
            image = axes.imshow(frame.mT.numpy(), **_options(true))
            _bare(axes)
            if row == 0:
                axes.set_title("given" if t == 0 else f"{t} step{'s' * (t > 1)}", fontsize=10)
            if column == 0:
                axes.set_ylabel(ROWS[row])
    figure.colorbar(image, ax=panels.ravel().tolist(), label="value", shrink=0.6)
    return figure


def animation(true: Tensor, predicted: Tensor) -> bytes:
    """A GIF that runs through all frames, again and again.

    Raises:
        RuntimeError: matplotlib is missing.
    """
    mpl = matplotlib()
    from matplotlib.animation import PillowWriter

    errors = _errors(true, predicted)
    with mpl.rc_context(STYLE), tempfile.TemporaryDirectory() as folder:
        figure, (panels,) = new_figure(columns=3, width=7.2, height=3.0)
        images = []
        for axes, name in zip(panels, ROWS, strict=True):
            images.append(axes.imshow(true[0].mT.numpy(), **_options(true)))
            axes.set_title(name)
            _bare(axes)
        heading = figure.suptitle(" ")
        writer, path = PillowWriter(fps=RATE), Path(folder) / "frames.gif"
        writer.setup(figure, str(path), dpi=80)
        figure.canvas.draw()
        figure.set_layout_engine("none")  # the panels stay where they are
        for t in range(len(true)):
            for image, frame in zip(images, (true[t], predicted[t], predicted[t] - true[t]), strict=True):
                image.set_data(frame.mT.numpy())
            heading.set_text(f"step {t}, the given frame" if t == 0 else f"step {t}, relative error {errors[t]:.2f}")
            writer.grab_frame()
        writer.finish()
        return path.read_bytes()
