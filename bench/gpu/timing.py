"""How times are taken on a GPU: by the device's events. And runs recorded as CUDA graphs.

A sample starts on an idle device, so that the time its launches take in Python counts as it does for a user.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from vfrnn_bench.providers import Provider
from vfrnn_bench.timing import Clock, Run, host_clock


def synchronize(device: torch.device) -> None:
    """Waits for the device; raises what went wrong on it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock_of(device: torch.device) -> Clock:
    """Events of a GPU; the host's clock of a CPU."""
    return event_clock if device.type == "cuda" else host_clock


def event_clock(run: Run, calls: int = 1) -> float:
    """Seconds of one call on the current GPU, the mean over `calls` in a row."""
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / calls


def graphed(run: Callable[[], Any]) -> Callable[[], Any]:
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


def in_graph(provider: Provider, *modes: str) -> Provider:
    """The provider with its runs, or those of `modes` alone, as CUDA graphs."""
    return replace(provider, runs={mode: graphed(provider.runs[mode]) for mode in modes or provider.runs})
