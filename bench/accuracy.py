"""Error against cost of the exponentials, float32: accuracy is a result of its own."""

from __future__ import annotations

import functools
import importlib.util
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from vfrnn_bench.measure import interleaved
from vfrnn_bench.providers import Results, exponential_exact, exponential_providers, scipy_expm
from vfrnn_bench.workloads import Exponential

NORMS = (1.0, math.pi, 10.0, 50.0)
SIZES, QUICK_SIZES = (32, 64, 128, 190, 256, 512), (32, 128)


def errors(found: Results, exact: Results) -> dict[str, float]:
    """Forward: the largest entry of Q - exp(S). Orthogonality: that of Q^T Q - I, in float64. Gradient: relative,
    Frobenius, of its skew-symmetric part; absent where a provider has none."""
    Q = found["output 0"].double()
    I = torch.eye(Q.shape[-1], dtype=torch.float64, device=Q.device)
    result = {
        "forward": float((Q - exact["output 0"]).abs().max()),
        "orthogonality": float((Q.mT @ Q - I).abs().max()),
    }
    if "grad S" in found:
        difference = torch.linalg.vector_norm(found["grad S"].double() - exact["grad S"])
        result["gradient"] = float(difference / torch.linalg.vector_norm(exact["grad S"]))
    return result


def accuracy(device: torch.device, sizes: Sequence[int], rounds: int = 5) -> Iterator[dict[str, Any]]:
    """One row per exponential: the errors and the time of each provider."""
    for n in sizes:
        for norm in NORMS:
            workload = Exponential(n, norm)
            exact = exponential_exact(workload, device)
            found = {name: make() for name, make in exponential_providers(workload, device).items()}
            runs = {name: provider.run for name, provider in found.items()}
            results = {name: provider.results() for name, provider in found.items()}
            if device.type == "cpu" and importlib.util.find_spec("scipy") is not None:
                S = workload.inputs()[0]
                runs["scipy.linalg.expm"] = functools.partial(scipy_expm, S)
                results["scipy.linalg.expm"] = {"output 0": scipy_expm(S)}
            times = interleaved(runs, rounds, warm_up=1)
            for name in runs:
                yield {
                    "provider": name,
                    "n": n,
                    "norm": norm,
                    "median_ms": 1e3 * statistics.median(times[name]),
                    "errors": errors(results[name], exact),
                }
