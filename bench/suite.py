"""A whole run of the suite: every part in turn, as one JSON-ready dictionary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from vfrnn_bench import accuracy, growth, long_memory, shared_machine, soak
from vfrnn_bench.cases import LEFT_OUT_OF_QUICK, QUICK, Case, cases
from vfrnn_bench.gpu.timing import clock_of
from vfrnn_bench.machine import copy_ceiling, gemm_ceiling, machine
from vfrnn_bench.measure import measure
from vfrnn_bench.timing import Budget

#: Seconds that a sample lasts: a call of less than that is measured as a model makes it, one after the other.
SAMPLE = 0.02

Report = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class SuiteOptions:
    """What to run.

    Attributes:
        workloads: only those whose name is one of these or starts so; then nothing but the cases is measured.
        providers: only peers whose name contains one of these; ours always run.
    """

    suite: Literal["quick", "full"] = "quick"
    device: str = "cpu"
    workloads: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()

    @property
    def quick(self) -> bool:
        return self.suite == "quick"

    def cases(self) -> list[Case]:
        """The workloads that take part.

        Raises:
            ValueError: a name given matches no workload.
        """
        every = list(cases(self.device))
        for name in self.workloads:
            if not any(case.name.startswith(name) for case in every):
                known = ", ".join(case.name for case in every)
                raise ValueError(f"workload must start the name of one of: {known}; got {name!r}")
        if self.workloads:
            return [case for case in every if case.name.startswith(self.workloads)]
        return [case for case in every if not self.quick or case.name in QUICK]

    def wants(self, provider: str) -> bool:
        if provider.startswith("vfrnn"):
            return True
        if self.providers:
            return any(name in provider for name in self.providers)
        return not (self.quick and provider in LEFT_OUT_OF_QUICK)


def count_steps(options: SuiteOptions) -> int:
    """How many steps `run` reports."""
    if options.workloads:
        return len(options.cases())
    on_cpu = 0
    if options.device == "cpu":
        shared = shared_machine.QUICK_NAMES if options.quick else shared_machine.NAMES
        on_cpu = len(growth.MEMORY_PROVIDERS) + len(long_memory.KINDS) + len(shared) + 2 * len(soak.LAYERS)
    return len(options.cases()) + len(growth.SIZES) + on_cpu + 1


def _sizes(options: SuiteOptions) -> tuple[dict[str, tuple[int, ...]], tuple[int, ...], tuple[int, ...]]:
    if options.quick:
        return growth.QUICK_SIZES, growth.QUICK_MEMORY_STEPS, accuracy.QUICK_SIZES
    return growth.SIZES, growth.MEMORY_STEPS, accuracy.SIZES


def run(options: SuiteOptions, report: Report) -> dict[str, Any]:
    """Measure everything. `report` hears of each step when it is done: its kind and its result.

    Raises:
        ValueError: a workload is not known.
    """
    device = torch.device(options.device)
    selected = options.cases()
    gemm = gemm_ceiling(device)
    result: dict[str, Any] = {
        "machine": machine(device),
        "suite": options.suite,
        "ceiling": {"gemm_flops": gemm, "copy_bytes": copy_ceiling(device)},
        "cases": [],
    }
    report("machine", result)
    budget, clock = Budget(0.0 if options.quick else 4.0, sample=SAMPLE), clock_of(device)
    for case in selected:
        result["cases"].append(measure(case, budget, gemm, options.wants, clock))
        report("case", result["cases"][-1])
        torch.compiler.reset()
    if options.workloads:
        return result
    sizes, steps, exponentials = _sizes(options)
    result |= {"accuracy": list(accuracy.accuracy(device, exponentials)), "time": [], "memory": []}
    report("accuracy", result)
    for row in growth.time_growth(device, sizes):
        result["time"].append(row)
        report("time", row)
    if device.type == "cpu":
        for row in growth.memory_growth(steps):
            result["memory"].append(row)
            report("memory", row)
        result |= {"long_memory": [], "shared_machine": [], "soak": []}
        for row in long_memory.long_memory(long_memory.QUICK_STEPS if options.quick else long_memory.STEPS):
            result["long_memory"].append(row)
            report("long memory", row)
        for row in shared_machine.shared_machine(shared_machine.QUICK_NAMES if options.quick else shared_machine.NAMES):
            result["shared_machine"].append(row)
            report("shared machine", row)
        for row in soak.soak(soak.QUICK_STEPS if options.quick else soak.STEPS):
            result["soak"].append(row)
            report("soak", row)
    return result
