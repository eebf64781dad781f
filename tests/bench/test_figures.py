"""Pictures are drawn from the JSON of a run, and not without data."""

import pytest

pytest.importorskip("matplotlib")
from vfrnn_bench import figures
from vfrnn_bench.drawing import styled

from tests.bench.small import EMPTY, result, task_summary


@pytest.mark.parametrize(("title", "draw"), [(title, draw) for title, _, draw in figures.FIGURES])
def test_every_picture_of_a_run(title, draw):
    figure = styled(lambda: draw(result()))
    assert all(axes.lines or axes.patches for axes in figure.axes)
    assert styled(lambda: draw(result() | EMPTY)) is None


def test_learning_curves():
    (axes,) = figures.learning_curves([task_summary("digits", 2)]).axes
    assert "2 seeds" in axes.get_title()
    assert figures.learning_curves([]) is None


def test_learning_over_time_ends_where_each_models_training_does():
    (axes,) = figures.learning_over_time(task_summary("digits", 2)).axes
    fast, slow, _, equal = axes.lines
    assert (fast.get_xdata()[-1], slow.get_xdata()[-1]) == (1.0, 4.0)
    assert list(equal.get_xdata()) == [1.0, 1.0]
    assert [tuple(line.get_ydata()[:2]) for line in (fast, slow)] == [(0.5, 1.5)] * 2
    assert len(axes.collections) == 2


def test_stages():
    rows = [{"stage": "a", "milliseconds": 1.0, "share": 0.5, "inside": True}]
    (axes,) = figures.stages(rows).axes
    assert len(axes.patches) == 1


def test_a_title_as_a_link():
    assert figures.anchor("Error against cost") == "error-against-cost"
