"""How a part is measured on a GPU, on made-up cases on the CPU."""

from dataclasses import replace

import pytest
import torch
from vfrnn_bench.gpu import measure
from vfrnn_bench.gpu.results_file import WHOLE_CASE, ResultsFile
from vfrnn_bench.providers import FORWARD, STEP, Provider

from tests.bench import small

ONE = torch.ones(2)


@pytest.fixture(autouse=True)
def no_guard(monkeypatch):
    """pytest-timeout has the one timer of faulthandler."""
    monkeypatch.setattr(measure.faulthandler, "dump_traceback_later", lambda *args, **kwargs: None)
    monkeypatch.setattr(measure.faulthandler, "cancel_dump_traceback_later", lambda: None)


def run(monkeypatch, file, *cases, seconds=60):
    monkeypatch.setitem(measure.PARTS, "group", lambda device, quick: iter(cases))
    measure.run_part("group", small.CPU, file, seconds, quick=True)


def test_a_row_for_every_provider_and_mode(tmp_path, monkeypatch):
    file = ResultsFile(tmp_path)

    def provider():
        return Provider({mode: lambda: {"output": ONE} for mode in (FORWARD, STEP)}, 1e-3)

    case = replace(
        small.case(), modes=(FORWARD, STEP), sizes={"n": 2}, steps=4, targets={("vfrnn", "peer"): 0.5},
        providers=lambda: {"vfrnn.op cpu": provider, "peer": provider},
    )  # fmt: skip
    run(monkeypatch, file, case)
    rows = ResultsFile(tmp_path).data["rows"]
    assert [(row["mode"], row["provider"]) for row in rows] == [
        (FORWARD, "vfrnn.op cpu"), (FORWARD, "peer"), (STEP, "vfrnn.op cpu"), (STEP, "peer"),
    ]  # fmt: skip
    assert [row["targets"] for row in rows] == [{}, {}, {"peer": 0.5}, {}]
    ours = rows[2]
    assert ours["n"] == 2
    assert ours["us_per_step"] == pytest.approx(1e3 * ours["median_ms"] / 4)
    assert set(ours["ratios"]) == {"peer"}
    assert ours["errors"] == {"output": 0.0}


def test_what_is_wrong_or_fails_is_written_down_and_left_out(tmp_path, monkeypatch, capsys):
    file = ResultsFile(tmp_path)
    case = small.case(**{"vfrnn.op cpu": 1.1 * ONE, "peer": ONE})

    def broken():
        raise KeyError("anything")

    run(monkeypatch, file, replace(case, providers=lambda: case.providers() | {"broken": broken}))
    assert [row["provider"] for row in file.data["rows"]] == ["peer"]
    failures = {failure["provider"]: failure for failure in file.data["failures"]}
    assert failures["vfrnn.op cpu"]["error"].startswith("ValueError: wrong: relative error")
    assert failures["broken"]["error"] == "KeyError: 'anything'"
    assert not any(failure["fatal"] for failure in failures.values())
    assert "broken FAILED" in capsys.readouterr().out


def test_a_case_without_exact_results_fails_alone(tmp_path, monkeypatch):
    def nothing():
        raise RuntimeError("out of memory")

    file = ResultsFile(tmp_path)
    run(monkeypatch, file, replace(small.case(), name="first", exact=nothing), small.case(peer=ONE))
    assert file.data["failures"][0]["provider"] == WHOLE_CASE
    assert file.data["done"] == ["group first fp32", "group case fp32"]


def test_a_broken_context_ends_the_process_and_the_next_goes_on_behind_it(tmp_path, monkeypatch):
    file = ResultsFile(tmp_path)
    case = small.case(**{"vfrnn.op cpu": 1.1 * ONE, "peer": ONE})
    with monkeypatch.context() as broken:
        broken.setattr(measure, "answers", lambda device: False)
        with pytest.raises(SystemExit) as stop:
            run(monkeypatch, file, case)
    assert stop.value.code == measure.BROKEN_CONTEXT
    again = ResultsFile(tmp_path)
    assert again.data["failures"][0]["fatal"]
    run(monkeypatch, again, case)
    assert [row["provider"] for row in again.data["rows"]] == ["peer"]
    assert len(again.data["failures"]) == 1


def test_no_case_is_begun_after_its_time_or_twice(tmp_path, monkeypatch):
    file = ResultsFile(tmp_path)
    run(monkeypatch, file, small.case(peer=ONE), seconds=-1)
    assert file.data["skipped"] == ["group case fp32"]
    run(monkeypatch, file, small.case(peer=ONE))
    run(monkeypatch, file, small.case(peer=ONE))
    assert len(file.data["rows"]) == 1


def test_whether_cudnn_computes():
    assert measure.uses_cudnn(Provider({STEP: lambda: {"output": ONE + 1}}, 1e-3)) is False


def test_a_line_of_the_run():
    row = {"case": "R1", "dtype": "fp32", "mode": STEP, "provider": "vfrnn.RNN cuda", "median_ms": 1.0}
    assert measure.line(row | {"ratios": {"torch.nn.RNN": 0.5}}).endswith("1.0000 ms 0.500 of torch.nn.RNN")
    assert measure.line(row | {"ratios": {}}).endswith("1.0000 ms")


def test_an_error_is_told_in_one_line():
    assert measure.explain(RuntimeError("a\n  b")) == "RuntimeError: a b"
