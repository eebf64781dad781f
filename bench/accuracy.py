"""Error against cost of the exponentials, float32: accuracy is a result of its own."""

from __future__ import annotations

import importlib.util
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from vfrnn_bench.exponential_providers import exponential_exact, exponential_providers, scipy_expm, skew
from vfrnn_bench.gpu.timing import clock_of
from vfrnn_bench.measure import orthogonality, relative_errors
from vfrnn_bench.providers import STEP, Results, Setting
from vfrnn_bench.timing import interleaved
from vfrnn_bench.workloads import Exponential

NORMS = (1.0, math.pi, 10.0, 50.0)
SIZES, QUICK_SIZES = (32, 64, 128, 190, 256, 512), (32, 128)


def errors(found: Results, exact: Results) -> dict[str, float]:
    """Forward: the largest entry of Q - exp(S). Orthogonality: that of Q^T Q - I, in float64. Gradient: relative,
    Frobenius, of its skew-symmetric part; absent where a provider has none."""
    result = {
        "forward": float((found["Q"].double() - exact["Q"]).abs().max()),
        "orthogonality": orthogonality(found["Q"]),
    }
    if "grad S" in found:
        result["gradient"] = relative_errors(skew(found), exact)["grad S"]
    return result


def accuracy(device: torch.device, sizes: Sequence[int], rounds: int = 5) -> Iterator[dict[str, Any]]:
    """One row per exponential: the errors and the time of each provider."""
    on = Setting(device)
    for n in sizes:
        for norm in NORMS:
            workload = Exponential(n, norm)
            exact = exponential_exact(workload, on)
            runs = {name: make().runs[STEP] for name, make in exponential_providers(workload, on).items()}
            if device.type == "cpu" and importlib.util.find_spec("scipy") is not None:
                S = workload.inputs()[0]["S"]
                runs["scipy.linalg.expm"] = lambda S=S: {"Q": scipy_expm(S)}
            results = {name: run() for name, run in runs.items()}
            times = interleaved(runs, rounds, warm_up=1, clock=clock_of(device))
            for name in runs:
                yield {
                    "provider": name,
                    "n": n,
                    "norm": norm,
                    "median_ms": 1e3 * statistics.median(times[name]),
                    "errors": errors(results[name], exact),
                }
