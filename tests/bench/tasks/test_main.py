"""`python -m vfrnn_bench.tasks`: trains every model by the protocol, sums up, and does not train again."""

import sys

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")
from vfrnn_bench.tasks import __main__ as tasks
from vfrnn_bench.tasks.benchmarks import BENCHMARKS, Benchmark, Published
from vfrnn_bench.tasks.results import load_tasks

MODELS = ("vfrnn", "lstm")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command on a tiny benchmark with the given models."""

    def command(*models, **changes):
        train = {"length": 8, "epochs": 2, "steps_per_epoch": 2, "hidden_size": 6, **changes}
        published = (Published("x", "6 units", "0.1", "a paper"),)
        absent = {"identity-rnn": "a reason"}
        tiny = Benchmark("tiny", "", "adding", train, published, models, absent, lrs=(1e-2, 1e-3))
        monkeypatch.setitem(BENCHMARKS, "tiny", tiny)
        arguments = ["tasks", "tiny", "--seeds", "2", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", arguments)
        return tasks.main()

    return command


def test_learning_benchmarks_run_and_are_not_run_again(tmp_path, capsys, run):
    assert run(*MODELS) == 0
    (summary,) = load_tasks(tmp_path / "out")
    assert [model["model"] for model in summary["models"]] == list(MODELS)
    assert [len(model["tried"]) for model in summary["models"]] == [4, 2]
    assert all(len(model["test_by_seed"]) == 2 for model in summary["models"])
    assert all(model["seconds_per_epoch"] > 0 for model in summary["models"])
    assert summary["absent"] == {"identity-rnn": "a reason"}
    assert (tmp_path / "out" / "tiny.svg").read_text().startswith("<svg")
    output = capsys.readouterr().out
    assert "The published result of x (6 units) is 0.1: a paper." in output
    assert "identity-rnn is absent: a reason" in output
    assert run(*MODELS) == 0
    assert "epochs\n" not in capsys.readouterr().out
    assert load_tasks(tmp_path / "out") == [summary]
    assert run(*MODELS, "gru") == 0  # a model that came later: the others are not run again
    trained = [line for line in capsys.readouterr().out.splitlines() if line.startswith("adding: ")]
    assert len(trained) == 3
    assert all(line.startswith("adding: gru") for line in trained)


def test_a_model_whose_package_is_missing_is_absent(tmp_path, capsys, run, monkeypatch):
    monkeypatch.setattr(tasks, "missing", lambda model: "not there" if model == "geotorch" else None)
    assert run("gru", "geotorch", epochs=1) == 0
    assert "geotorch is absent: not there" in capsys.readouterr().out
    assert run("geotorch") == 1
    assert "tiny: no model was trained" in capsys.readouterr().err
