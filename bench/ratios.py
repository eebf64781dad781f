"""`make bench`: our time over each peer's, interleaved in one process, as a table and as JSON under bench/results/.

A ratio is the median over repeats of (our time / the peer's time) of the same round, so that noise hits both.
Results are compared before anything is timed where both compute the same function.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from bench.providers import Run, exponential_runs, recurrence_runs, training_step_runs
from bench.workloads import EXPONENTIALS, SEQUENCES
from vfrnn_kernels.loader import build_info


def interleaved(runs: dict[str, Run], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run, round by round, after one warm-up each."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def measure(workload: str, runs: dict[str, Run], repeats: int, *, same_result: bool) -> list[dict]:
    """One row per provider of ours: medians and the ratio to the peer, which is the last provider."""
    if same_result:
        results = [run() for run in runs.values()]
        torch.testing.assert_close(results[0], results[-1], rtol=1e-3, atol=1e-3)
    times = interleaved(runs, repeats)
    *ours, peer = runs
    return [
        {
            "workload": workload,
            "provider": name,
            "peer": peer,
            "median_ms": 1e3 * statistics.median(times[name]),
            "peer_median_ms": 1e3 * statistics.median(times[peer]),
            "ratio": statistics.median(a / b for a, b in zip(times[name], times[peer], strict=True)),
        }
        for name in ours
    ]


def cpu_name() -> str:
    """As the kernel tells it; the machine type where it does not."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str:
    """Of the working tree, as git names it; empty outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, help="write JSON here")
    arguments = parser.parse_args()
    rows: list[dict] = []

    def add(new: list[dict]) -> None:
        for row in new:
            print(
                f"{row['workload']:<24} {row['provider']:<22} {row['median_ms']:9.2f} ms   "
                f"{row['peer']:<26} {row['peer_median_ms']:9.2f} ms   ratio {row['ratio']:.3f}",
                flush=True,
            )
        rows.extend(new)

    for sequence in SEQUENCES:
        add(measure(sequence.name, recurrence_runs(sequence), arguments.repeats, same_result=True))
    for sequence in SEQUENCES:
        name = sequence.name.replace("R", "S")
        add(measure(name, training_step_runs(sequence), arguments.repeats, same_result=False))
    for exponential in EXPONENTIALS:
        add(measure(exponential.name, exponential_runs(exponential), arguments.repeats, same_result=True))
    if arguments.out:
        machine = {
            "cpu": cpu_name(),
            "commit": commit(),
            "isa": torch.ops.vfrnn_kernels.cpu_isa(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "build": build_info(),
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
