"""The protocol: the same grid for all, the choice by validation alone, runs that are not run again."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
from vfrnn_bench.tasks import protocol
from vfrnn_bench.tasks.benchmarks import BENCHMARKS, Benchmark
from vfrnn_bench.tasks.protocol import DIVERGED, Rates, Runs, Trained, Tried, best, missing, settings

from vfrnn.tasks.models import WITH_GENERATORS

ONE = Benchmark("one", "", "adding", {"length": 8}, lrs=(0.1, 0.2))
#: Of its runs, as far as the protocol reads them.
OPTIONS = {"task_options": {"length": 8}, "model_options": {}}


@pytest.fixture
def made_up(monkeypatch):
    """Installs runs that only write a log, whose validation metric is outcome(lr, seed); returns the list of them."""

    def install(outcome):
        seen = []

        def train(arguments):
            value = {name: arguments[arguments.index(name) + 1] for name in ("--out", "--model", "--lr", "--seed")}
            run = float(value["--lr"]), int(value["--seed"])
            seen.append(run)
            folder = Path(value["--out"])
            folder.mkdir(parents=True)
            epochs = [{"validation": outcome(*run), "test": 100 - outcome(*run)}] * 6
            log = {"larger_is_better": True, "epochs": {value["--model"]: epochs}, "options": OPTIONS}
            (folder / "log.json").write_text(json.dumps(log))

        monkeypatch.setattr(protocol, "vfrnn_train", train)
        return seen

    return install


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_grid_has_at_most_six_settings_with_the_same_rates_for_all(name):
    for model in BENCHMARKS[name].models:
        grid = settings(BENCHMARKS[name], model)
        assert len(set(grid)) == len(grid) <= 6
        assert {rates.lr for rates in grid} == set(BENCHMARKS[name].lrs)
        assert all((rates.generator_lr is None) == (model not in WITH_GENERATORS) for rates in grid)
        assert len({rates.folder for rates in grid}) == len(grid)


def test_ratios_of_the_grid_are_one_and_a_tenth():
    assert settings(ONE, "vfrnn") == [Rates(0.1, 0.1), Rates(0.1, 0.01), Rates(0.2, 0.2), Rates(0.2, 0.02)]
    assert [str(rates) for rates in settings(ONE, "lstm")] == ["0.1", "0.2"]


def test_the_best_setting_is_that_of_the_metrics_sense():
    tried = [Tried(Rates(lr, None), value) for lr, value in ((1.0, 0.5), (2.0, None), (3.0, 0.7))]
    assert best(tried, larger_is_better=True) == Rates(3.0, None)
    assert best(tried, larger_is_better=False) == Rates(1.0, None)
    assert best(tried[1:2], larger_is_better=True) is None


def test_rates_are_chosen_by_validation_and_seed_0_is_not_trained_again(tmp_path, made_up):
    seen = made_up(lambda lr, seed: lr)  # the test metric would choose the other one
    found = Runs(ONE, tmp_path).model("lstm", 3)
    assert found.rates == Rates(0.2, None)
    assert [(t.rates.lr, t.validation) for t in found.tried] == [(0.1, pytest.approx(0.1)), (0.2, pytest.approx(0.2))]
    assert seen == [(0.1, 0), (0.2, 0), (0.2, 1), (0.2, 2)]
    assert len(found.logs) == 3
    assert Runs(ONE, tmp_path).model("lstm", 3) == found
    assert len(seen) == 4  # nothing was trained again


def test_a_setting_at_which_a_seed_diverges_is_not_chosen(tmp_path, made_up):
    def outcome(lr, seed):
        if (lr, seed) == (0.2, 1):
            raise FloatingPointError("the loss is nan")
        return lr

    seen = made_up(outcome)
    found = Runs(ONE, tmp_path).model("lstm", 2)
    assert found.rates == Rates(0.1, None)
    assert [t.validation for t in found.tried] == [pytest.approx(0.1), None]
    (why,) = tmp_path.rglob(DIVERGED)
    assert why.read_text() == "the loss is nan\n"
    before = len(seen)
    assert Runs(ONE, tmp_path).model("lstm", 2).rates == Rates(0.1, None)
    assert len(seen) == before


def test_a_model_that_diverges_everywhere_has_no_rates(tmp_path, made_up):
    def outcome(lr, seed):
        raise FloatingPointError("the loss is nan")

    made_up(outcome)
    assert Runs(ONE, tmp_path).model("vfrnn", 1) is None


def test_options_of_a_benchmark_reach_the_command_line(tmp_path, monkeypatch):
    seen = []

    def train(arguments):
        seen.append(arguments)
        raise FloatingPointError

    monkeypatch.setattr(protocol, "vfrnn_train", train)
    (tmp_path / "vfrnn" / "lr-0.01-generator-0.001" / "seed-3").mkdir(parents=True)
    runs = Runs(BENCHMARKS["permuted-mnist"], tmp_path, tmp_path / "images")
    assert runs.run("vfrnn", Rates(0.01, 0.001), 3) is None
    (arguments,) = seen
    assert arguments[:2] == ["--task", "mnist"]
    assert "--permute" in arguments
    assert arguments[-10:] == [
        "--model", "vfrnn", "--lr", "0.01", "--seed", "3", "--generator-lr", "0.001",
        "--data", str(tmp_path / "images"),
    ]  # fmt: skip


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    folder = tmp_path / "lstm" / "lr-0.1" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").touch()

    def train(arguments):
        assert arguments[:2] == ["--resume", str(folder)]
        (folder / "log.json").write_text(json.dumps({"options": OPTIONS}))

    monkeypatch.setattr(protocol, "vfrnn_train", train)
    assert Runs(ONE, tmp_path).run("lstm", Rates(0.1, None), 0) == {"options": OPTIONS}


def test_a_run_of_other_options_is_not_taken_for_one_of_the_benchmark(tmp_path, made_up):
    made_up(lambda lr, seed: lr)
    Runs(ONE, tmp_path).run("lstm", Rates(0.1, None), 0)
    longer = replace(ONE, train={"length": 9})
    with pytest.raises(RuntimeError, match=r"seed-0 must hold a run with length 9, got one with 8: delete it"):
        Runs(longer, tmp_path).run("lstm", Rates(0.1, None), 0)


def test_a_choice_that_changed_is_timed_again(tmp_path):
    train = {"length": 4, "epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "hidden_size": 4}
    runs = Runs(Benchmark("one", "", "adding", train), tmp_path)

    def timed(lr):
        rates = Rates(lr, None)
        return runs.timing([Trained("gru", rates, (), (runs.run("gru", rates, 0),))])

    first = timed(0.1)
    assert [epoch["steps"] for epoch in first["gru"]] == [1, 1, 1]
    assert timed(0.1) == first  # to the last digit: kept
    assert timed(0.2) != first


def test_series_of_an_archive_are_a_task_of_their_own(tmp_path, monkeypatch):
    seen = []

    def train(arguments):
        seen.append(arguments)
        raise FloatingPointError

    monkeypatch.setattr(protocol, "vfrnn_train", train)
    (tmp_path / "gru" / "lr-0.01" / "seed-0").mkdir(parents=True)
    assert Runs(BENCHMARKS["OSULeaf"], tmp_path, tmp_path / "OSULeaf").run("gru", Rates(0.01, None), 0) is None
    assert "--task" not in seen[0]
    assert seen[0][-2:] == ["--data", str(tmp_path / "OSULeaf")]


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    assert missing("lstm") is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'vfrnn-kernels[bench]'" in missing("geotorch")
