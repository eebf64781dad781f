"""`python -m vfrnn_bench.tasks`: trains every seed, sums up, and goes on where it was interrupted."""

import sys

import pytest
from vfrnn_bench.tasks import __main__ as tasks
from vfrnn_bench.tasks.benchmarks import BENCHMARKS, MODELS, Benchmark
from vfrnn_bench.tasks.results import load_tasks


def test_learning_benchmarks_run_and_resume(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    pytest.importorskip("tqdm")
    tiny = Benchmark("tiny", "", "adding", {"length": 8, "epochs": 1, "steps_per_epoch": 2, "hidden_size": 6}, ("x",))
    monkeypatch.setitem(BENCHMARKS, "tiny", tiny)
    arguments = ["tasks", "tiny", "--seeds", "2", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    assert tasks.main() == 0
    (summary,) = load_tasks(tmp_path / "out")
    assert [model["model"] for model in summary["models"]] == list(MODELS)
    assert len(summary["models"][0]["test_by_seed"]) == 2
    assert "tiny: published: x" in capsys.readouterr().out
    assert tasks.main() == 0  # nothing is trained again
    assert "epochs" not in capsys.readouterr().out


def test_options_of_a_benchmark_reach_the_command_line(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(tasks, "vfrnn", lambda arguments: seen.append(arguments) or 0)
    assert tasks.train(BENCHMARKS["permuted-mnist"], 3, tmp_path, tmp_path / "images") == 0
    (arguments,) = seen
    assert arguments[:3] == ["train", "--task", "mnist"]
    assert "--permute" in arguments
    assert arguments[-2:] == ["--data", str(tmp_path / "images")]
    (tmp_path / "checkpoint.pt").touch()
    tasks.train(BENCHMARKS["digits"], 3, tmp_path, None)
    assert seen[-1] == ["train", "--resume", str(tmp_path)]
