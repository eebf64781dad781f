"""What the runs of a learning benchmark come to."""

import json

import pytest
from vfrnn_bench.tasks.results import equal_time, load_tasks, seconds_per_epoch, table

from tests.bench.small import task_summary
from vfrnn.tasks.training import LAST_EPOCHS


def test_summary_over_seeds():
    summary = task_summary("digits", 3)
    last = sum(range(10 - LAST_EPOCHS, 10)) / LAST_EPOCHS
    model = summary["models"][0]
    assert (model["lowest"], model["mean"], model["highest"]) == (last, last + 1, last + 2)
    assert model["step_ms"] == 2.0
    assert model["rates"] == {"lr": 0.1, "generator_lr": 0.01}
    assert model["tried"] == [{"lr": 0.1, "generator_lr": 0.01, "validation": 0.7}]
    assert summary["seeds"] == [0, 1, 2]
    assert model["divergence_scale_by_seed"] == [None] * 3
    assert model["measures_by_seed"] == [{"other": 1.0}] * 3
    assert summary["options"] == {
        "epochs": 10, "task_options": {"batch_size": 4, "data": "b"}, "model_options": {"hidden_size": 8},
    }  # fmt: skip


def test_seconds_of_an_epoch_are_those_of_its_median_step():
    epochs = [{"step_ms": ms, "steps": 50} for ms in (2.0, 1000.0, 4.0)]
    assert seconds_per_epoch(epochs) == 0.2


def test_equal_time_is_the_last_epoch_that_fits():
    curves = [[0.1, 0.2, 0.3, 0.4], [0.3, 0.4, 0.5, 0.8]]
    found = equal_time(curves, 1.0, 2.5)
    assert found == {"epochs": 2, "mean": pytest.approx(0.3), "lowest": 0.2, "highest": 0.4}
    assert equal_time(curves, 1.0, 100.0)["epochs"] == 4
    assert equal_time(curves, 1.0, 0.9) is None
    assert equal_time(curves, 0.1, 0.3)["epochs"] == 3  # though 3 * 0.1 > 0.3 as floating-point numbers


def test_the_fastest_model_sets_the_equal_time():
    summary = task_summary("digits", 2)
    assert summary["equal_time_seconds"] == pytest.approx(1.0)
    fast, slow = summary["models"]
    assert (fast["equal_time"]["epochs"], slow["equal_time"]["epochs"]) == (10, 2)
    assert slow["equal_time"]["mean"] == 1.5


def test_the_table_tells_rates_times_who_is_absent_and_what_was_published():
    lines = table(task_summary("permuted-mnist", 2)).splitlines()
    assert lines[2].split() == [
        "vfrnn", "750.0", "%", "700.0", "%", "to", "800.0", "%", "0.1", "/", "0.01", "7", "0.1", "950.0", "%", "(10",
        "of", "10)",
    ]  # fmt: skip
    assert lines[3].endswith("150.0 % (2 of 10)")
    assert "geotorch is absent: because." in lines
    assert any("result of LEM (128 units, 68k parameters) is 96.6 %: Rusch" in line for line in lines)


def test_a_model_without_an_epoch_in_the_equal_time_is_told():
    summary = task_summary("digits", 1)
    summary["models"][1]["equal_time"] = None
    assert "no epoch fits" in table(summary)


def test_summaries_are_read_by_name(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"name": name}))
    (tmp_path / "log.txt").write_text("")
    assert [task["name"] for task in load_tasks(tmp_path)] == ["a", "b"]
    with pytest.raises(OSError, match="none"):
        load_tasks(tmp_path / "none")
