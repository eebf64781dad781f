"""How times are taken: interleaved, so that the noise of a shared machine hits ours and the peers alike."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from bench.providers import Run, Runs
from vfrnn_kernels.loader import build_info

Times = dict[str, list[float]]


def interleaved(runs: Runs, repeats: int, warm_up: int = 2) -> Times:
    """Seconds of each run, round by round, after the warm-up."""
    for run in runs.values():
        for _ in range(warm_up):
            run()
    times: Times = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run))
    return times


def seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ratio(times: Times, ours: str, peer: str) -> float:
    """Median over the rounds of our time over the peer's in the same round."""
    return statistics.median(a / b for a, b in zip(times[ours], times[peer], strict=True))


def spread(values: list[float]) -> float:
    """Half of the range between the quartiles, relative to the median."""
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def gemm_ceiling(n: int = 1536, repeats: int = 5) -> float:
    """Flops per second of a large product through PyTorch, the best of a few."""
    A, B = torch.randn(n, n), torch.randn(n, n)
    out = torch.empty(n, n)

    def run() -> torch.Tensor:
        return torch.mm(A, B, out=out)

    return 2 * n**3 / min(interleaved({"mm": run}, repeats)["mm"])


def machine() -> dict[str, Any]:
    """What was measured, and on what."""
    return {
        "cpu": cpu_name(),
        "commit": commit(),
        "isa": torch.ops.vfrnn_kernels.cpu_isa(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "build": build_info(),
    }


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
