"""A leak is seen, and work without one is not blamed."""

import os
import subprocess
import sys
import threading

import pytest
import torch
from vfrnn_bench import endurance
from vfrnn_bench.levels import Memory

LEAKS = {
    "heap": "kept.append(torch.ones(2**13))",  # 32 KiB
    "blocks": "kept.append([object() for _ in range(200)])",
    "descriptors": "kept.append(os.open(os.devnull, os.O_RDONLY))",
    "threads": "threading.Thread(target=threading.Event().wait, daemon=True).start()",
}
#: Cycles of layers that train, with one line more.
SCRIPT = """
import os, random, sys, threading
import torch
from vfrnn_bench import endurance, levels, mixed_work

levels.PATIENCE = 0.05  # for what never ends
kept, trained = [], mixed_work.Trained()
works = {"training": trained.training, "packed": trained.packed, "leak": lambda draw: exec(sys.argv[1])}
found = endurance.Run()
for found in endurance.cycles(works, {}, 1e9):
    if len(found.cycles) == 40:
        break
print(*(verdict.quantity for verdict in found.judged() if not verdict.level))
os._exit(0)  # threads may wait for ever
"""


def rose(leak: str) -> list[str]:
    environment = {**os.environ, "GLIBC_TUNABLES": endurance.EXACT, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-u", "-c", SCRIPT, leak], capture_output=True, text=True, check=True, env=environment
    )
    return result.stdout.split()


@pytest.mark.slow
@pytest.mark.parametrize("quantity", LEAKS)
def test_a_leak_is_seen(quantity):
    assert quantity in rose(LEAKS[quantity])


@pytest.mark.slow
def test_work_without_a_leak_is_level():
    assert rose("None") == []


def test_work_apart_is_taken_out_of_the_levels():
    kept = []
    apart = {"keeps a MiB": lambda draw: kept.append(torch.ones(2**18))}
    *_, found = endurance.cycles({"nothing": lambda draw: None}, apart, 0.0)
    assert len(found.cycles) == endurance.LEAST
    (call,) = found.apart["keeps a MiB"]
    assert call.heap == pytest.approx(2**20, rel=0.1)


def test_the_first_cycle_is_of_the_largest_sizes():
    drawn = []
    for found in endurance.cycles({"draw": lambda draw: drawn.append(draw.randint(1, 40))}, {}, 1e9):
        if len(found.cycles) == 30:
            break
    assert drawn[0] == 40
    assert len(set(drawn)) > 5


def test_the_table_names_what_rose(monkeypatch, capsys):
    threads, end = [], threading.Event()

    def leak(draw):
        threads.append(threading.Thread(target=end.wait))
        threads[-1].start()

    monkeypatch.setattr(endurance, "works", lambda: {"leak": leak})
    monkeypatch.setattr(endurance, "works_of_torch", lambda: {"nothing": lambda draw: None})
    monkeypatch.setattr("vfrnn_bench.levels.PATIENCE", 0.05)
    try:
        assert endurance.main(["--minutes", "0.02"]) == 1
    finally:
        end.set()
        for thread in threads:
            thread.join()
    said = capsys.readouterr().out
    assert "| descriptors |" in said
    (row,) = (line for line in said.splitlines() if line.startswith("| threads |"))
    assert row.endswith("| ROSE |")


def test_calls_of_work_apart_are_averaged_without_the_first():
    found = endurance.Run([endurance.here()] * 8, {"export": [Memory(heap=9e9), Memory(heap=1024), Memory(heap=3072)]})
    assert "| export | 2 | 2.0 | 0 |" in endurance.table(found)
