"""How time and memory grow: linear in T and B, and nothing beside the hidden states."""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
from pathlib import Path

from bench.measure import seconds
from bench.providers import inference_runs, recurrence_runs
from bench.workloads import SEQUENCES, Sequence

STEPS, SAMPLES = (100, 1000, 10_000), (32, 128, 512)


def _time(workload: Sequence) -> float:
    run = recurrence_runs(workload)["vfrnn.RNN"]
    run()
    return statistics.median(seconds(run) for _ in range(5))


def time_growth() -> list[dict]:
    """Time per step and sample over T and over B, relative to the first."""
    base = Sequence("growth", "time over T and B", T=STEPS[0], B=SAMPLES[0], n=128, i=8)
    rows = []
    for name, values in (("T", STEPS), ("B", SAMPLES)):
        costs = [_time(dataclasses.replace(base, **{name: value})) / value for value in values]
        rows.append({"over": name, "values": values, "relative_cost": [cost / costs[0] for cost in costs]})
    return rows


def memory(workload: Sequence) -> float:
    """Peak memory of forward and backward beyond inputs and results, in copies of the hidden states. Linux only.

    Measured in a process of its own, which has run nothing else.
    """
    command = [sys.executable, "-m", "bench.growth", json.dumps(dataclasses.asdict(workload))]
    root = Path(__file__).parents[1]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout)


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def _own_memory(workload: Sequence) -> float:
    small = dataclasses.replace(workload, T=2, B=2)
    recurrence_runs(small)["vfrnn.RNN"]()  # what a first call loads is not what a sequence costs
    inference_runs(small)["vfrnn.RNN"]()
    run = recurrence_runs(workload)["vfrnn.RNN"]
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = _kilobytes("VmRSS")
    result = run()
    peak = 1024 * (_kilobytes("VmHWM") - before)
    return (peak - 4 * result.numel()) / workload.state_bytes


def memory_growth() -> list[dict]:
    """The peak of R2, and its slope over T, in copies of the hidden states."""
    R2 = next(workload for workload in SEQUENCES if workload.name == "R2")
    longer = dataclasses.replace(R2, T=2 * R2.T)
    first, second = memory(R2), memory(longer)
    # copies of a longer sequence are larger: the slope is that of bytes over bytes
    return [{"workload": "R2", "copies": first, "slope_over_T": 2 * second - first}]


if __name__ == "__main__":
    print(_own_memory(Sequence(**json.loads(sys.argv[1]))))
