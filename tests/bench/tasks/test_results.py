"""What the runs of a learning benchmark come to."""

import json

import pytest
from vfrnn_bench.tasks.benchmarks import BENCHMARKS
from vfrnn_bench.tasks.results import load_tasks, summarize

from tests.bench.small import log
from vfrnn.tasks.training import LAST_EPOCHS


def test_summary_over_seeds():
    summary = summarize(BENCHMARKS["digits"], [log(0), log(1), log(2)])
    last = sum(range(10 - LAST_EPOCHS, 10)) / LAST_EPOCHS
    model = summary["models"][0]
    assert (model["lowest"], model["mean"], model["highest"]) == (last, last + 1, last + 2)
    assert model["step_ms"] == 3.0
    assert summary["seeds"] == [0, 1, 2]
    assert model["divergence_scale_by_seed"] == [None] * 3


def test_summaries_are_read_by_name(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"name": name}))
    (tmp_path / "log.txt").write_text("")
    assert [task["name"] for task in load_tasks(tmp_path)] == ["a", "b"]
    with pytest.raises(OSError, match="none"):
        load_tasks(tmp_path / "none")
