"""Workloads and results small enough for a test."""

from __future__ import annotations

import functools

import torch
from vfrnn_bench.cases import Case
from vfrnn_bench.long_memory import KINDS
from vfrnn_bench.machine import machine
from vfrnn_bench.providers import STEP, Provider, Setting
from vfrnn_bench.tasks.benchmarks import BENCHMARKS
from vfrnn_bench.tasks.protocol import Rates, Trained, Tried
from vfrnn_bench.tasks.results import summarize
from vfrnn_bench.workloads import Exponential, Frame, InputField, Irregular, Mesh, Sequence

CPU = torch.device("cpu")
ON_CPU = Setting(CPU)
SEQUENCE = Sequence("small", "", T=5, B=3, n=8, i=2)
EXPONENTIAL = Exponential(12, 1.0)
FRAME = Frame(23, 4)
FIELDS = (
    Mesh("generator", n=7, m=5, d=2, learned="bwNGv"),
    Mesh("flow", n=7, m=5, d=2, learned="hvbwNG", B=3),
    InputField("input", T=4, B=2, n=7, m=5, d=2, i=3),
    Irregular("irregular", T=4, B=2, n=7, i=3),
)


def case(**made) -> Case:
    """One of made-up providers: a name with the tensor that its run returns, which should be a 1."""
    one = {"output": torch.ones(2, dtype=torch.float64)}

    def provider(value: torch.Tensor) -> Provider:
        return Provider({STEP: lambda: {"output": value}}, 1e-3)

    providers = {name: functools.partial(provider, value) for name, value in made.items()}
    return Case("case", "group", 1e6, 1e3, lambda: providers, lambda: one)


def result() -> dict:
    """What a whole run gives, made up."""
    case = {
        "workload": "R1", "group": "recurrence", "flops": 1e9, "minimal_bytes": 1e7, "rounds": 3, "refused": {"x": "y"},
        "providers": [
            {"provider": name, "median_ms": ms, "spread": 0.1, "gflops": 9.0, "share_of_ceiling": 0.5, "error": 1e-7,
             "least_share": least}
            for name, ms, least in (("vfrnn.RNN", 1.0, 0.6), ("torch.nn.RNN", 2.0, None))
        ],
        "ratios": [{"ours": "vfrnn.RNN", "peer": "torch.nn.RNN", "ratio": 0.5, "target": 0.4}],
    }  # fmt: skip
    curve = {"provider": "vfrnn.RNN", "seconds": [1.0, 2.0], "exponent": 1.0, "exponent_of_larger_half": 1.0}
    time = [{"over": over, "fixed": {"T": 3}, "values": [1, 2], "curves": [curve]} for over in "TBn"]
    memory = {
        "provider": "vfrnn.RNN", "steps": [1, 2], "bytes": [8, 16], "state_bytes": [4, 8], "copies_of_states": 2.0,
    }  # fmt: skip
    long_memory = [{"provider": kind, "steps": [10, 20], "bytes": [1e5, 1e6], "seconds": [0.1, 0.2]} for kind in KINDS]
    shared = {"workload": "R4", "threads": 8, "neighbours": 2, "ratio": 0.5, "target": 1.0}
    soak = {"layer": "recurrence", "sequence": True, "steps": 10, "grown_mib": 3.0, "target": 50.0}
    error = {"forward": 1e-7, "orthogonality": 1e-7, "gradient": 1e-6}
    return {
        "machine": machine(CPU), "suite": "quick", "ceiling": {"gemm_flops": 1e11, "copy_bytes": 1e10},
        "cases": [case], "time": time, "memory": [memory], "long_memory": long_memory,
        "shared_machine": [shared | {"median_ms": {"vfrnn.RNN": 1.0, "torch.nn.RNN": 2.0}}], "soak": [soak],
        "accuracy": [{"provider": "vfrnn.skew_expm", "n": 8, "norm": 1.0, "median_ms": 0.1, "errors": error}],
    }  # fmt: skip


#: The same without what was measured.
EMPTY = {"cases": [], "time": [], "memory": [], "long_memory": [], "shared_machine": [], "soak": [], "accuracy": []}


def log(seed: int, model: str) -> dict:
    """As `vfrnn train` writes it, of a model over ten epochs."""
    epochs = [{"validation": 0.1 * k, "test": seed + k, "step_ms": 2.0, "steps": 50} for k in range(10)]
    row = {"model": model, "title": model, "parameters": 7, "divergence_scale": None, "measures": {"other": 1.0}}
    options = {"seed": seed, "epochs": 10, "task_options": {"batch_size": 4, "seed": seed, "data": "/a/b"}}
    options["model_options"] = {"hidden_size": 8}
    return {
        "options": options, "metric": "accuracy", "larger_is_better": True, "baseline": 0.1, "summary": [row],
        "epochs": {model: epochs},
    }  # fmt: skip


def task_summary(name: str, seeds: int) -> dict:
    """Of a VFRNN whose epochs take 0.1 s, and of an LSTM that is four times as slow."""
    rates = {"vfrnn": Rates(0.1, 0.01), "lstm": Rates(0.1, None)}
    trained = [
        Trained(model, found, (Tried(found, 0.7),), tuple(log(seed, model) for seed in range(seeds)))
        for model, found in rates.items()
    ]
    timing = {model: [{"step_ms": ms, "steps": 50}] for model, ms in (("vfrnn", 2.0), ("lstm", 8.0))}
    return summarize(BENCHMARKS[name], trained, timing, {"geotorch": "because"})
