"""Colours that are readable in both schemes and to colour-blind readers, and pictures that are the same each time."""

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("matplotlib")
from vfrnn_bench import drawing, figures

from tests.bench.small import result

MARKS = [drawing.BLUE, drawing.VERMILION, drawing.GREEN, drawing.PURPLE, drawing.ORANGE, drawing.SKY, drawing.OLIVE]
SCHEMES = {"light": lambda colour: colour, "dark": drawing.DARK.__getitem__}
#: Of linear RGB, for readers without the cones of long, middle or short waves (Machado, Oliveira, Fernandes 2009).
BLINDNESS = {
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def linear(colour: str) -> list[float]:
    values = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    return [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]


def contrast(one: str, other: str) -> float:
    """Of the Web Content Accessibility Guidelines: 1 to 21."""
    low, high = sorted(
        sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear(c), strict=True)) for c in (one, other)
    )
    return (high + 0.05) / (low + 0.05)


def lab(colour: list[float]) -> list[float]:
    """CIELAB of linear RGB."""
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1.0, 1.089)
    xyz = [sum(a * v for a, v in zip(row, colour, strict=True)) / w for row, w in zip(to_xyz, white, strict=True)]
    x, y, z = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (max(v, 0.0) for v in xyz))
    return [116 * y - 16, 500 * (x - y), 200 * (y - z)]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_colour_stands_out_from_the_page(scheme):
    of = SCHEMES[scheme]
    assert min(contrast(of(mark), of(drawing.PAPER)) for mark in MARKS) >= 3
    assert min(contrast(of(text), of(drawing.PAPER)) for text in (drawing.INK, drawing.GREY)) >= 4.5


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_ours_and_the_peer_of_every_bar_stay_apart_for_colour_blind_readers(scheme, blindness):
    seen = [
        lab([sum(a * v for a, v in zip(row, linear(SCHEMES[scheme](c)), strict=True)) for row in BLINDNESS[blindness]])
        for c in (drawing.BLUE, drawing.VERMILION)
    ]
    assert sum((a - b) ** 2 for a, b in zip(*seen, strict=True)) ** 0.5 > 30  # 2.3 is just noticeable


def test_lines_are_told_by_marker_and_dashes_too():
    ours, peer = drawing.line("vfrnn.RNN"), drawing.line("torch.nn.RNN")
    assert all(ours[key] != peer[key] for key in ("color", "marker", "linestyle"))
    assert drawing.colour("another") == drawing.GREY
    assert len({*MARKS, drawing.INK, drawing.GREY}) == len(MARKS) + 2
    assert set(drawing.COLOURS.values()) <= set(drawing.DARK)


def test_identifiers_are_counted_and_coordinates_short():
    text = drawing.svg(drawing.styled(lambda: figures.growth(result())), "growth")
    names = re.findall(r'\bid="([^"]+)"', text)
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"growth-\d+(-data)?", name) for name in names)
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
    assert used
    assert set(used) <= set(names)
    assert not re.search(r"<[^>]*\d\.\d{3,}[^>]*>", text)


def test_every_colour_of_a_file_has_one_in_the_dark():
    text = drawing.svg_file(drawing.styled(lambda: figures.memory(result())), "memory")
    body = text.split("</style>", 1)[1]
    used = set(re.findall(r"(?:fill|stroke): (#\w+)", body))
    assert drawing.INK in used
    assert used <= set(drawing.DARK)


@pytest.mark.slow
def test_another_process_draws_the_same():
    code = """
from tests.bench.small import result
from vfrnn_bench import drawing, figures
print(*(drawing.svg(drawing.styled(lambda: draw(result())), "x") for _, _, draw in figures.FIGURES))
"""
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    )  # fmt: skip
    assert first == second
