"""What a run prints."""

import io

import pytest

pytest.importorskip("rich", reason="needs vfrnn-kernels[bench]")
from rich.console import Console
from vfrnn_bench import tables

from tests.bench.small import result


def test_a_line_when_a_step_is_done():
    r = result()
    assert "GFLOP/s" in list(tables.lines("machine", r))[1]
    lines = list(tables.lines("case", r["cases"][0]))
    assert lines == ["R1 takes 1 ms by vfrnn.RNN and 2 ms by torch.nn.RNN.", "  x was not timed: y"]
    assert list(tables.lines("time", r["time"][0])) == [
        "The time of vfrnn.RNN grows as T to the power 1.00, in the larger half 1.00."
    ]
    assert next(tables.lines("memory", r["memory"][0])).endswith("by 2.00 copies of the hidden states.")
    assert "MiB at T 10" in next(tables.lines("long memory", r["long_memory"][0]))
    assert list(tables.lines("accuracy", r)) == []


def test_the_table_of_ratios():
    out = io.StringIO()
    Console(file=out, width=140).print(tables.ratios(result()))
    assert "0.500" in out.getvalue()
    assert "0.40 missed" in out.getvalue()
    assert "The share is of the rate of a large matrix product" in out.getvalue()
