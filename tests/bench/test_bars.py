"""Pictures of bars: at most twelve, each as long as its number."""

import json

import pytest

pytest.importorskip("matplotlib")
from matplotlib.patches import Rectangle
from vfrnn_bench import bars
from vfrnn_bench.drawing import BLUE, INK, VERMILION, styled
from vfrnn_bench.readme import MACHINE, ROOT
from vfrnn_bench.runs import Pair, pairs, worst

from tests.bench.small import EMPTY, result


def drawn(figure) -> list:
    return [patch for axes in figure.axes for patch in axes.patches if isinstance(patch, Rectangle)]


@pytest.fixture(scope="module")
def measured():
    return worst([json.loads(path.read_text()) for path in (ROOT / "bench/results" / MACHINE).glob("full-*.json")])


def test_no_picture_has_more_than_twelve_bars_and_none_is_lost(measured):
    assert len(drawn(bars.summary(measured))) == bars.MOST
    pictures = list(bars.pictures(measured))
    assert all(len(rows) <= bars.MOST for _, rows in pictures)
    assert len({title for title, _ in pictures}) == len(pictures)
    shown = [pair for _, rows in pictures for pair in rows]
    assert sorted(shown, key=str) == sorted(pairs(measured), key=str)


def test_one_peer_with_many_workloads_is_split():
    case = result()["cases"][0]
    many = {"cases": [case | {"workload": f"R{k}"} for k in range(25)]}
    assert [(title, len(rows)) for title, rows in bars.pictures(many)] == [
        (f"Training step of a layer, {part} of 3", count) for part, count in ((1, 9), (2, 9), (3, 7))
    ]


def test_a_panel_for_each_thing_that_was_measured():
    figure = bars.summary(result())
    assert len(figure.axes) == 3
    speed, error, memory = drawn(figure)
    assert (speed.get_x(), speed.get_width()) == (1, 1)  # twice as fast
    assert (error.get_width(), memory.get_width()) == (1e-6, 2.0)
    assert len(bars.summary(result() | {"memory": [], "accuracy": []}).axes) == 1
    assert bars.summary(result() | EMPTY) is None


def test_the_target_of_a_ratio_is_a_tick_and_a_miss_is_said():
    rows = [
        Pair("recurrence", name, "vfrnn.RNN", "torch.nn.RNN", ratio, 0.4)
        for name, ratio in (("R1", 0.5), ("R2", 0.004))
    ]
    (axes,) = styled(lambda: bars.ratio_bars(rows)).axes
    assert [bar.get_width() for bar in axes.patches] == [0.5, 0.004]
    assert [list(line.get_xdata()) for line in axes.lines if line.get_color() == INK] == [[0.4, 0.4]] * 2
    assert [bar.get_facecolor() for bar in axes.patches] == [rgba(VERMILION), rgba(BLUE)]
    written = [text.get_text() for text in axes.texts]
    assert written == ["vfrnn.RNN, beside torch.nn.RNN", "0.50 missed", "0.004"]


def rgba(colour):
    from matplotlib.colors import to_rgba

    return to_rgba(colour)
