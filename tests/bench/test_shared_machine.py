"""Steps beside busy processes."""

import os

from vfrnn_bench import shared_machine

from tests.bench.small import SEQUENCE


def test_both_are_measured_beside_neighbours(monkeypatch):
    monkeypatch.setitem(shared_machine.WORKLOADS, "small", SEQUENCE)
    monkeypatch.setattr(shared_machine.torch, "set_num_threads", lambda threads: None)
    row = shared_machine.measure("small", rounds=1)
    assert set(row["median_ms"]) == set(shared_machine.PROVIDERS)
    assert row["neighbours"] == len(os.sched_getaffinity(0))
    assert row["ratio"] > 0


def test_neighbours_end_with_what_they_stand_beside(monkeypatch):
    started, popen = [], shared_machine.subprocess.Popen
    monkeypatch.setattr(
        shared_machine.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1]
    )
    with shared_machine.neighbours(2):
        assert [process.poll() for process in started] == [None, None]
    assert all(process.poll() is not None for process in started)


def test_a_row_for_every_workload(monkeypatch):
    class Done:
        stdout = "{}"

    monkeypatch.setattr(shared_machine.subprocess, "run", lambda *a, **k: Done)
    assert list(shared_machine.shared_machine(shared_machine.NAMES)) == [{}] * len(shared_machine.NAMES)
    assert set(shared_machine.NAMES) <= set(shared_machine.WORKLOADS)
