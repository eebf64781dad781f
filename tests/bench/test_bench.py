"""The bench suite: registries, what it measures, what it writes."""

import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch

from vfrnn.cli import main as vfrnn
from vfrnn.tasks.training import LAST_EPOCHS

pytest.importorskip("rich", reason="needs vfrnn-kernels[bench]")
from vfrnn_bench import accuracy, figures, growth, measure, profile, readme, report, suite
from vfrnn_bench.cases import LEFT_OUT_OF_QUICK, QUICK, cases
from vfrnn_bench.long_memory import KINDS
from vfrnn_bench.providers import Provider, exponential_exact
from vfrnn_bench.tasks import __main__ as tasks
from vfrnn_bench.tasks.benchmarks import BENCHMARKS, MODELS, Benchmark
from vfrnn_bench.tasks.results import load_tasks, summarize
from vfrnn_bench.workloads import SEQUENCES, Exponential, Sequence

CASES = {case.name: case for case in cases()}
CPU = torch.device("cpu")
SMALL = Sequence("small", "", T=5, B=3, n=8, i=2)


def test_names_are_unique_and_quick_ones_exist():
    assert len(CASES) == len(list(cases()))
    assert set(QUICK) <= set(CASES)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a peer, where it is installed
def test_targets_name_providers():
    for case in CASES.values():
        assert {name for pair in case.targets for name in pair} <= set(case.providers())


def test_minimal_bytes_and_flops():
    R1 = SEQUENCES[0]
    states = R1.T * R1.B * R1.n
    assert R1.flops == 6 * states * (R1.n + R1.i)
    assert 3 * 4 * states < R1.minimal_bytes < 3.5 * 4 * states
    assert Exponential(64, 1.0).minimal_bytes == 4 * 4 * 64**2


def test_a_case_is_measured_in_turns_and_told_as_json():
    row = measure.measure(CASES["E(32) norm 1"], rounds=6, budget=5.0, ceiling=1e11, wanted=lambda name: True)
    assert row["rounds"] == 6
    assert [p["provider"] for p in row["providers"]] == ["vfrnn.skew_expm", "torch.matrix_exp"]
    (ratio,) = row["ratios"]
    assert ratio["target"] == 0.4
    assert ratio["ratio"] > 0
    assert row["providers"][0]["error"] < 1e-6
    assert json.loads(json.dumps(row)) == row


def test_a_provider_that_is_wrong_is_not_timed(monkeypatch):
    case = CASES["E(32) norm 1"]
    good = case.providers()

    def wrong():
        made = good["vfrnn.skew_expm"]()
        return Provider(made.run, lambda: {k: 1.01 * t for k, t in made.results().items()}, limit=made.limit / 10)

    def broken():
        raise RuntimeError("not on this machine\nand more")

    providers = {"vfrnn.skew_expm": wrong, "peer": good["torch.matrix_exp"], "broken": broken}
    changed = type(case)(case.name, case.group, case.flops, case.minimal_bytes, lambda: providers, case.exact)
    row = measure.measure(changed, rounds=5, budget=1.0, ceiling=1e11, wanted=lambda name: True)
    assert [p["provider"] for p in row["providers"]] == ["peer"]
    assert row["refused"]["vfrnn.skew_expm"].startswith("wrong: relative error 1.0e-02")
    assert row["refused"]["broken"] == "not on this machine"


def test_nan_is_wrong():
    exact = {"Q": torch.ones(2, dtype=torch.float64)}
    assert math.isnan(measure.relative_error({"Q": torch.tensor([1.0, math.nan])}, exact))
    assert measure.relative_error({"Q": torch.tensor([1.0, 2.0])}, exact) == pytest.approx(math.sqrt(0.5))


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_exponents(p):
    sizes = (10, 100, 1000)
    assert growth.exponent(sizes, [3e-6 * size**p for size in sizes]) == pytest.approx(p)


def test_growth_over_one_size():
    (row,) = growth.time_growth(CPU, {"T": (2, 4)})
    assert [curve["provider"] for curve in row["curves"]] == list(growth.PROVIDERS)
    assert row["fixed"] == {"B": 32, "n": 128, "i": 8}


def test_errors_of_exponentials():
    workload = Exponential(12, 1.0)
    exact = exponential_exact(workload, CPU)
    assert max(accuracy.errors(exact, exact).values()) < 1e-14
    off = {"output 0": exact["output 0"] + 1e-3, "grad S": 1.5 * exact["grad S"]}
    errors = accuracy.errors(off, exact)
    assert errors["forward"] == pytest.approx(1e-3)
    assert errors["gradient"] == pytest.approx(0.5)
    assert errors["orthogonality"] > 1e-3


def test_a_quick_suite_leaves_out_what_compiles():
    options = suite.SuiteOptions("quick")
    assert {case.name for case in options.cases()} == set(QUICK)
    assert not any(options.wants(name) for name in LEFT_OUT_OF_QUICK)
    assert options.wants("vfrnn.RNN")
    assert suite.SuiteOptions("quick", providers=("compiled",)).wants("compiled")
    assert not suite.SuiteOptions("full", providers=("geotorch",)).wants("loop")


def test_command_line(tmp_path, capsys):
    out = tmp_path / "bench"
    assert vfrnn(["bench", "--workload", "E(32) norm 1", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    result = json.loads((out / "results.json").read_text())
    assert [case["workload"] for case in result["cases"]] == ["E(32) norm 1", "E(32) norm 10"]
    assert "torch.matrix_exp" in printed
    assert "GFLOP/s" in printed
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 2
    assert vfrnn(["bench", "--workload", "R9"]) == 1
    assert "workload must start the name of one of" in capsys.readouterr().err
    assert vfrnn(["bench", "--device", "nowhere"]) == 1
    assert "--device nowhere" in capsys.readouterr().err


def whole_result():
    """A result with every part, made up."""
    case = {
        "workload": "R1", "group": "recurrence", "flops": 1e9, "minimal_bytes": 1e7, "rounds": 3, "refused": {"x": "y"},
        "providers": [
            {"provider": name, "median_ms": ms, "spread": 0.1, "gflops": 9.0, "share_of_ceiling": 0.5, "error": 1e-7}
            for name, ms in (("vfrnn.RNN", 1.0), ("torch.nn.RNN", 2.0))
        ],
        "ratios": [{"ours": "vfrnn.RNN", "peer": "torch.nn.RNN", "ratio": 0.5, "target": 0.4}],
    }  # fmt: skip
    curve = {"provider": "vfrnn.RNN", "seconds": [1.0, 2.0], "exponent": 1.0, "exponent_of_larger_half": 1.0}
    time = [{"over": over, "fixed": {"T": 3}, "values": [1, 2], "curves": [curve]} for over in "TBn"]
    memory = {
        "provider": "vfrnn.RNN",
        "steps": [1, 2],
        "bytes": [8, 16],
        "state_bytes": [4, 8],
        "copies_of_states": 2.0,
    }
    long_memory = [{"provider": kind, "steps": [10, 20], "bytes": [1e5, 1e6], "seconds": [0.1, 0.2]} for kind in KINDS]
    error = {"forward": 1e-7, "orthogonality": 1e-7, "gradient": 1e-6}
    return {
        "machine": measure.machine(CPU), "suite": "quick", "ceiling": {"gemm_flops": 1e11, "copy_bytes": 1e10},
        "cases": [case], "time": time, "memory": [memory], "long_memory": long_memory,
        "accuracy": [{"provider": "vfrnn.skew_expm", "n": 8, "norm": 1.0, "median_ms": 0.1, "errors": error}],
    }  # fmt: skip


def log(seed):
    """As `vfrnn train` writes it, of two models over ten epochs."""
    epochs = [{"epoch": k + 1, "loss": 1.0, "validation": 0.5, "test": seed + k, "step_ms": 2.0} for k in range(10)]
    row = {"parameters": 7, "step_ms": 2.0 + seed, "divergence_scale": None}
    rows = [row | {"model": name, "title": name} for name in ("vfrnn", "lstm")]
    options = {"seed": seed, "epochs": 10, "task_options": {"batch_size": 4}, "model_options": {"hidden_size": 8}}
    return {
        "options": options, "metric": "accuracy", "baseline": 0.1, "versions": {}, "threads": 1, "summary": rows,
        "epochs": {"vfrnn": epochs, "lstm": epochs},
    }  # fmt: skip


def test_summary_over_seeds():
    summary = summarize(BENCHMARKS["digits"], [log(0), log(1), log(2)])
    last = sum(range(10 - LAST_EPOCHS, 10)) / LAST_EPOCHS
    model = summary["models"][0]
    assert (model["lowest"], model["mean"], model["highest"]) == (last, last + 1, last + 2)
    assert model["step_ms"] == 3.0
    assert summary["seeds"] == [0, 1, 2]
    assert model["divergence_scale_by_seed"] == [None] * 3


def test_every_picture_of_the_report_has_data():
    result = whole_result()
    summary = summarize(BENCHMARKS["permuted-digits"], [log(0), log(1)])
    page = report.page(result, [summary])
    assert page.count("<svg") == len(figures.FIGURES) + 1
    assert all(section.count('id="data-') >= 1 for section in page.split("<svg")[1:])
    assert 'class="missed">0.500' in page
    assert not re.search(r"""(src|href)=["'](?!#|data:)|url\((?!#)|@import""", page)  # nothing is fetched


def test_pictures_without_data_are_left_out():
    empty = whole_result() | {"cases": [], "time": [], "memory": [], "long_memory": [], "accuracy": []}
    assert "<svg" not in report.page(empty, [])


def test_stages_of_a_step():
    rows = profile.profile(SMALL, CPU, rounds=3)
    assert rows[-1]["stage"] == "whole step"
    stages = [row["stage"] for row in rows]
    for name in ("exponential", "field generator", "input product", "recurrence forward", "recurrence backward"):
        assert name in stages
    assert all(row["milliseconds"] >= 0 for row in rows)


def test_profile_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(profile, "workload", lambda name: SMALL)
    assert vfrnn(["profile", "--workload", "R1", "--out", str(tmp_path)]) == 0
    assert "recurrence backward" in capsys.readouterr().out
    assert (tmp_path / "stages.png").stat().st_size > 1000
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {"forward", "backward", "optimizer", "vfrnn_kernels::recurrence"} <= {e.get("name") for e in events}


def test_profile_of_an_unknown_workload(capsys):
    assert vfrnn(["profile", "--workload", "R9"]) == 1
    assert "workload must be one of R1, R2" in capsys.readouterr().err


def test_learning_benchmarks_run_and_resume(tmp_path, capsys, monkeypatch):
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


def test_the_readme_shows_what_was_measured():
    results = readme.Results(readme.ROOT / "bench" / "results" / readme.MACHINE)
    text = Path(readme.ROOT / "README.md").read_text()
    assert set(readme.BLOCKS) == {match[1] for match in readme.BLOCK.findall(text)}
    assert readme.refreshed(text, results) == text, "make results"
