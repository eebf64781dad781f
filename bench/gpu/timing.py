"""How GPU times are taken: device events, warm-up, rounds that interleave the providers, ceilings of the machine.

A call starts on an idle device, so that the time its launches take in Python counts as it does for a user. On a CPU
(a dry run) the clock is the host's.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Run = Callable[[], Any]
Times = dict[str, list[float]]

#: A sample lasts at least this long; shorter calls are repeated within it.
SAMPLE_MS = 1.0
LEAST_ROUNDS, MOST_ROUNDS = 5, 60


def synchronize(device: torch.device) -> None:
    """Waits for the device; raises what went wrong on it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(device: torch.device, run: Run, calls: int = 1) -> float:
    """Of one call, the mean over `calls` in a row."""
    synchronize(device)
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / calls
    started = time.perf_counter()
    for _ in range(calls):
        run()
    return 1e3 * (time.perf_counter() - started) / calls


def interleaved(device: torch.device, runs: dict[str, Run], seconds: float) -> Times:
    """Milliseconds of each run, round by round, for about that long; at least LEAST_ROUNDS."""
    calls, round_ms = {}, 0.0
    for name, run in runs.items():
        for _ in range(2):
            run()
        once = milliseconds(device, run)
        calls[name] = max(1, min(20, math.ceil(SAMPLE_MS / once)))
        round_ms += calls[name] * once
    rounds = max(LEAST_ROUNDS, min(MOST_ROUNDS, int(1e3 * seconds / round_ms)))
    times: Times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(milliseconds(device, run, calls[name]))
    return times


def ratio(times: Times, ours: str, peer: str) -> float:
    """Median over the rounds of our time over the peer's in the same round."""
    return statistics.median(a / b for a, b in zip(times[ours], times[peer], strict=True))


def spread(values: list[float]) -> float:
    """Half of the range between the quartiles, relative to the median."""
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def graphed(run: Run) -> Run:
    """The run recorded as a CUDA graph; the recorded tensors are its result at every replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay() -> Any:
        graph.replay()
        return result

    return replay


def ceilings(device: torch.device, quick: bool) -> dict[str, float]:
    """What the machine reaches on random data: products in TFLOP/s, a copy in TB/s (read and written), launches."""
    found = {}
    n = 512 if quick else 8192
    dtypes = {"bf16": torch.bfloat16, "fp32": torch.float32, "tf32": torch.float32}
    before = torch.backends.cuda.matmul.allow_tf32
    for name, dtype in dtypes.items():
        A, B = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        found[f"gemm_{name}_tflops"] = 2 * n**3 / _best(device, lambda A=A, B=B: torch.mm(A, B)) / 1e9
    torch.backends.cuda.matmul.allow_tf32 = before
    source = torch.randn(2**20 if quick else 2**30, device=device)  # 4 GB: far beyond the L2 cache
    target = torch.empty_like(source)
    found["copy_tb_s"] = 2 * source.nbytes / _best(device, lambda: target.copy_(source)) / 1e9
    return found | launches(device)


def launches(device: torch.device, count: int = 1000) -> dict[str, float]:
    """Microseconds of a kernel that does next to nothing: launched by PyTorch, and as a node of a CUDA graph."""
    one = torch.zeros(1, device=device)

    def run() -> Tensor:
        for _ in range(count):
            one.add_(1)
        return one

    found = {"launch_us": 1e3 * _best(device, run) / count}
    if device.type == "cuda":
        found["graph_node_us"] = 1e3 * _best(device, graphed(run)) / count
    return found


def _best(device: torch.device, run: Run) -> float:
    return min(interleaved(device, {"": run}, 0.5)[""])
