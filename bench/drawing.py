"""How the pictures of the reports look: colours of two schemes, and SVG that is the same for the same numbers."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, OLIVE = (
    "#0072b2", "#d55e00", "#008a64", "#a8458f", "#b07800", "#2f8fc9", "#777700",
)  # fmt: skip
INK, GREY, GRID, PAPER = "#1a1a1a", "#5c5c5c", "#dadada", "#ffffff"

#: What each colour is on a dark page. Hues are those of Okabe and Ito, which stay apart for readers who see few of
#: them; every one of a line or a bar has a contrast of 3 to its page, and those of text 4.5.
DARK = {
    BLUE: "#4aa8e8", VERMILION: "#f58a42", GREEN: "#2fc79a", PURPLE: "#e08fcb", ORANGE: "#e8b13a", SKY: "#9ad4f5",
    OLIVE: "#d6d65c", INK: "#e8e8e8", GREY: "#a8adb2", GRID: "#3a4046", PAPER: "#15181b",
}  # fmt: skip

#: Colour and marker of a provider. Ours are dots on full lines, peers crosses on dashed ones.
COLOURS = {
    "vfrnn.RNN": BLUE,
    "vfrnn.VFRNN": GREEN,
    "vfrnn.OrthogonalRNN": SKY,
    "vfrnn.skew_expm": BLUE,
    "vfrnn.flow_recurrence": PURPLE,
    "vfrnn.VFRNN, all states": VERMILION,
    "vfrnn.VFRNN, return_sequence=False": BLUE,
    "vfrnn.OrthogonalRNN, identity, return_sequence=False": GREEN,
    "torch.nn.RNN": VERMILION,
    "orthogonal(torch.nn.RNN)": ORANGE,
    "torch.matrix_exp": VERMILION,
    "scipy.linalg.expm": PURPLE,
    "torch.nn.LSTM": PURPLE,
    "torch.nn.GRU": OLIVE,
    "torch.nn.RNN from the identity": VERMILION,
    "expRNN in geotorch": INK,
}
STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "vfrnn",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": INK,
}

#: Of a dark screen, in the page and in every picture that is a file. Paper is always light.
DARK_STYLE = (
    "@media screen and (prefers-color-scheme: dark) {\n"
    + "".join(
        f'[style*="{kind}: {light}"] {{ {kind}: {dark} !important }}\n'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    )
    + "}\n"
)


def colour(provider: str) -> str:
    return COLOURS.get(provider, GREY)


def line(provider: str) -> dict[str, Any]:
    """Arguments of a provider's line, which is told by its marker and dashes too."""
    ours = provider.startswith("vfrnn")
    return {
        "color": colour(provider),
        "marker": "o" if ours else "x",
        "linestyle": "-" if ours else "--",
        "markersize": 4,
    }


def styled(draw: Callable[[], Figure | None]) -> Figure | None:
    """What `draw` draws, in this style."""
    with mpl.rc_context(STYLE):
        figure = draw()
    drawn = [] if figure is None else figure.axes
    for k, artist in enumerate(a for axes in drawn for a in (*axes.lines, *axes.patches, *axes.collections)):
        artist.set_gid(f"data-{k}")  # what the check of the page looks for
    return figure


def svg(figure: Figure, name: str) -> str:
    """The picture as an element of a page, of which no other has the same identifiers.

    They are counted: Matplotlib makes them of coordinates whose last digits differ from one processor to the next. So
    coordinates have two decimals.
    """
    file = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    text = re.sub(r"<!--.*?-->\s*|<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    counted = {found: f"{name}-{k}" for k, found in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]+)"', text)))}
    counted = {found: f"{new}-data" if found.startswith("data-") else new for found, new in counted.items()}

    def within_a_tag(tag: re.Match[str]) -> str:
        inside = re.sub(r'(\bid="|href="#|url\(#)([^")]+)', lambda m: m[1] + counted.get(m[2], m[2]), tag[0])
        return re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}", inside)

    return re.sub(r"<[^>]+>", within_a_tag, text)


def svg_file(figure: Figure, name: str) -> str:
    """The picture as a file, which follows the scheme of its reader."""
    text = svg(figure, name)
    end = text.index(">") + 1
    return f"{text[:end]}\n<style>\n{DARK_STYLE}</style>{text[end:]}"
