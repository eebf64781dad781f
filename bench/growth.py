"""How time and memory grow with T, B and n. `python -m vfrnn_bench.growth JSON` measures one peak, in a fresh process.

Time of forward and backward of a tanh layer, ours and torch.nn.RNN in turns; an exponent is the slope of log time over
log size, by least squares, over all sizes and over the larger half.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from vfrnn_bench.field_providers import field_providers
from vfrnn_bench.gpu.timing import clock_of
from vfrnn_bench.layer_providers import MODELS, model_provider, recurrence_providers
from vfrnn_bench.providers import STEP, Setting
from vfrnn_bench.timing import interleaved
from vfrnn_bench.workloads import InputField
from vfrnn_bench.workloads import Sequence as Workload

PROVIDERS = ("vfrnn.RNN", "torch.nn.RNN")
BASE = Workload("growth", "time over T, B and n", T=100, B=32, n=128, i=8)
SIZES = {
    "T": (100, 300, 1000, 3000, 10_000),
    "B": (1, 4, 16, 64, 128, 256, 512),
    "n": (16, 32, 64, 128, 256, 512, 1024),
}
QUICK_SIZES = {"T": (100, 1000, 4000), "B": (1, 16, 128), "n": (16, 64, 256)}
MEMORY_PROVIDERS = ("vfrnn.RNN", "torch.nn.RNN", "vfrnn.VFRNN", "orthogonal(torch.nn.RNN)", "vfrnn.flow_recurrence")
MEMORY_STEPS = (250, 500, 1000, 2000, 4000)
QUICK_MEMORY_STEPS = (500, 1500)


def exponent(sizes: Sequence[float], times: Sequence[float]) -> float:
    """p of the power law time = c size^p that fits best."""
    x, y = [math.log(size) for size in sizes], [math.log(time) for time in times]
    return statistics.linear_regression(x, y).slope


def time_growth(device: torch.device, sizes: dict[str, tuple[int, ...]]) -> Iterator[dict[str, Any]]:
    """Seconds over each of T, B and n, the other two fixed."""
    for over, values in sizes.items():
        seconds: dict[str, list[float]] = {name: [] for name in PROVIDERS}
        for value in values:
            workload = dataclasses.replace(BASE, **{over: value})
            found = recurrence_providers(workload, Setting(device))
            runs = {name: found[name]().runs[STEP] for name in PROVIDERS}
            times = interleaved(runs, 5, warm_up=1, clock=clock_of(device))
            for name in PROVIDERS:
                seconds[name].append(statistics.median(times[name]))
        half = (len(values) - 1) // 2
        yield {
            "over": over,
            "fixed": {name: getattr(BASE, name) for name in ("T", "B", "n", "i") if name != over},
            "values": values,
            "curves": [
                {
                    "provider": name,
                    "seconds": seconds[name],
                    "exponent": exponent(values, seconds[name]),
                    "exponent_of_larger_half": exponent(values[half:], seconds[name][half:]),
                }
                for name in PROVIDERS
            ],
        }


def memory_growth(steps: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Peak memory of a training step beyond its inputs over T, in bytes; CPU and Linux only."""
    for provider in MEMORY_PROVIDERS:
        workloads = [_memory_workload(provider, T) for T in steps]
        peaks = [peak_memory(provider, workload) for workload in workloads]
        states = [workload.state_bytes for workload in workloads]
        slope = statistics.linear_regression(states, peaks).slope
        yield {"provider": provider, "steps": steps, "bytes": peaks, "state_bytes": states, "copies_of_states": slope}


def _memory_workload(provider: str, T: int) -> Workload | InputField:
    if provider == "vfrnn.flow_recurrence":
        return InputField("memory", T=T, B=128, n=170, m=16, d=2, i=1)
    return Workload("memory", "peak over T", T=T, B=128, n=170, i=1)


def peak_memory(provider: str, workload: Workload | InputField) -> float:
    """Bytes at the peak of a step beyond what was there before: the result is part of it. In a fresh process."""
    arguments = json.dumps({"provider": provider, "workload": dataclasses.asdict(workload)})
    command = [sys.executable, "-m", "vfrnn_bench.growth", arguments]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def _own_peak(provider: str, workload: Workload | InputField) -> float:
    def run_of(w: Any) -> Any:
        on = Setting(torch.device("cpu"))
        if provider in MODELS:
            return model_provider(MODELS[provider], w, on).runs[STEP]
        return (field_providers if isinstance(w, InputField) else recurrence_providers)(w, on)[provider]().runs[STEP]

    run_of(dataclasses.replace(workload, T=2, B=2))()  # what a first call loads is not what a sequence costs
    return peak(run_of(workload))


def peak(run: Callable[[], Any]) -> float:
    """Bytes at the peak of `run` beyond what was there before, in this process."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = _kilobytes("VmRSS")
    run()
    return 1024 * (_kilobytes("VmHWM") - before)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    kind = InputField if given["provider"] == "vfrnn.flow_recurrence" else Workload
    print(_own_peak(given["provider"], kind(**given["workload"])))
