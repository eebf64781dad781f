"""A run of the suite: what takes part, what it reports and returns."""

import pytest
from vfrnn_bench import accuracy, growth, long_memory, shared_machine, soak, suite
from vfrnn_bench.cases import LEFT_OUT_OF_QUICK, QUICK


def test_a_quick_suite_leaves_out_what_compiles():
    options = suite.SuiteOptions("quick")
    assert {case.name for case in options.cases()} == set(QUICK)
    assert not any(options.wants(name) for name in LEFT_OUT_OF_QUICK)
    assert options.wants("vfrnn.RNN")
    assert suite.SuiteOptions("quick", providers=("compiled",)).wants("compiled")
    assert not suite.SuiteOptions("full", providers=("geotorch",)).wants("loop")


def test_workloads_are_chosen_by_how_they_start():
    assert {case.name for case in suite.SuiteOptions("quick", workloads=("R2",)).cases()} == {
        "R2", "R2 inference", "R2 activation",
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"workload must start the name of one of: R1, .*; got 'R9'"):
        suite.SuiteOptions("quick", workloads=("R9",)).cases()


def test_a_whole_run_reports_as_many_steps_as_it_says(monkeypatch):
    options = suite.SuiteOptions("quick")
    monkeypatch.setattr(suite, "gemm_ceiling", lambda device: 1e11)
    monkeypatch.setattr(suite, "copy_ceiling", lambda device: 1e10)
    monkeypatch.setattr(suite, "measure", lambda case, *rest: {"workload": case.name})
    monkeypatch.setattr(accuracy, "accuracy", lambda device, sizes: [{"n": n} for n in sizes])
    monkeypatch.setattr(growth, "time_growth", lambda device, sizes: [{"over": over} for over in sizes])
    monkeypatch.setattr(growth, "memory_growth", lambda steps: [{"provider": p} for p in growth.MEMORY_PROVIDERS])
    monkeypatch.setattr(long_memory, "long_memory", lambda steps: [{"provider": kind} for kind in long_memory.KINDS])
    monkeypatch.setattr(shared_machine, "shared_machine", lambda names: [{"workload": name} for name in names])
    monkeypatch.setattr(soak, "soak", lambda steps: [{"layer": name} for name in soak.LAYERS for _ in range(2)])
    heard = []
    result = suite.run(options, lambda kind, row: heard.append(kind))
    assert [case["workload"] for case in result["cases"]] == [case.name for case in options.cases()]
    assert len([kind for kind in heard if kind != "machine"]) == suite.count_steps(options)
    assert [row["n"] for row in result["accuracy"]] == list(accuracy.QUICK_SIZES)
    assert {"time", "memory", "long_memory", "shared_machine", "soak", "machine", "suite", "ceiling"} <= set(result)


def test_chosen_workloads_are_all_that_is_measured(monkeypatch):
    monkeypatch.setattr(suite, "gemm_ceiling", lambda device: 1e11)
    monkeypatch.setattr(suite, "copy_ceiling", lambda device: 1e10)
    options = suite.SuiteOptions("quick", workloads=("E(32) norm 1",))
    heard = []
    result = suite.run(options, lambda kind, row: heard.append(kind))
    assert heard == ["machine", "case", "case"]  # of norm 1 and norm 10
    assert suite.count_steps(options) == 2
    assert "time" not in result
