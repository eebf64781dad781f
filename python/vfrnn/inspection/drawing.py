"""What all pictures share: matplotlib, imported when the first one is drawn, their style and their file."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

#: Colours that stay apart for readers who see few of them (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#000000")
#: Blue and red about white, for values of both signs.
SIGNED = "RdBu_r"
STYLE = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 2,
}
#: Inches of a picture of one panel: on a telephone's screen its letters are as large as the page's small ones.
WIDTH, HEIGHT, DPI = 5.6, 3.8, 150


def matplotlib() -> Any:
    """The package.

    Raises:
        RuntimeError: it is missing.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise RuntimeError("the pictures need matplotlib: pip install 'vfrnn-kernels[train]'") from error
    return mpl


def new_figure(rows: int = 1, columns: int = 1, *, width: float = WIDTH, height: float = HEIGHT) -> tuple[Any, Any]:
    """A matplotlib figure of that many panels, and its panels (rows, columns)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def styled(draw: Callable[[], Any]) -> Any:
    """What `draw` draws, in our style.

    Raises:
        RuntimeError: matplotlib is missing.
    """
    with matplotlib().rc_context(STYLE):
        return draw()


def png(figure: Any) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    with matplotlib().rc_context(STYLE):
        figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


def colour(k: int) -> str:
    """Of the k-th layer."""
    return COLOURS[k % len(COLOURS)]


def legend(figure: Any, axes: Any, *, least: int = 2) -> None:
    """What the lines of a panel are, below the picture, where there are at least so many to tell apart."""
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) >= least:
        columns = 1 if max(map(len, labels)) > 24 else 2
        figure.set_figheight(figure.get_figheight() + 0.23 * -(-len(labels) // columns))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
