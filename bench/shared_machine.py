"""Training steps with more threads than CPUs while other jobs keep the CPUs busy: a container with a quota, a notebook
beside a job. `python -m vfrnn_bench.shared_machine JSON` measures one workload, in a fresh process.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from vfrnn_bench.layer_providers import recurrence_providers
from vfrnn_bench.providers import STEP, Setting
from vfrnn_bench.timing import interleaved, ratio
from vfrnn_bench.workloads import SEQUENCES
from vfrnn_bench.workloads import Sequence as Workload

PROVIDERS = ("vfrnn.RNN", "torch.nn.RNN")
#: Where threads meet after every step, and where samples are split.
WORKLOADS = {w.name: w for w in (*SEQUENCES, Workload("B 2", "two streams", T=784, B=2, n=256, i=10))}
NAMES, QUICK_NAMES = ("R1", "R4", "R5", "B 2"), ("B 2",)
THREADS = 8
#: Our time over torch.nn.RNN's.
TARGET = 1.0


def shared_machine(names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Of each workload: milliseconds of a training step, ours and torch.nn.RNN's in turns, and their ratio."""
    for name in names:
        command = [sys.executable, "-m", "vfrnn_bench.shared_machine", json.dumps({"name": name})]
        yield json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """So many processes that never rest."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def measure(name: str, rounds: int = 5) -> dict[str, Any]:
    """One workload, in this process, beside a busy neighbour for every CPU."""
    torch.set_num_threads(THREADS)
    found = recurrence_providers(WORKLOADS[name], Setting(torch.device("cpu")))
    runs = {provider: found[provider]().runs[STEP] for provider in PROVIDERS}
    busy = len(os.sched_getaffinity(0))
    with neighbours(busy):
        times = interleaved(runs, rounds, warm_up=1)
    return {
        "workload": name,
        "threads": THREADS,
        "neighbours": busy,
        "median_ms": {provider: 1e3 * statistics.median(values) for provider, values in times.items()},
        "ratio": ratio(times, *PROVIDERS),
        "target": TARGET,
    }


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
