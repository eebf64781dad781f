"""How a case is measured: its providers are checked against float64, then timed in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from vfrnn_bench.cases import Case
from vfrnn_bench.machine import large_product
from vfrnn_bench.providers import Provider, Results
from vfrnn_bench.timing import Budget, Clock, Times, host_clock, ratio, spread, within

#: What takes part in the turns where a share of its rate is aimed at.
LARGE_PRODUCT = "large product"


def relative_errors(found: Results, exact: Results) -> dict[str, float]:
    """Of each result that both have: Frobenius, in float64, relative to the exact one; NaN for NaN.

    Raises:
        ValueError: a shape differs, or they have nothing in common.
    """
    errors = {}
    for name, right in exact.items():
        if name not in found:
            continue
        value = found[name].detach().to(right.device, torch.float64)
        if value.shape != right.shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, must be {tuple(right.shape)}")
        errors[name] = float(torch.linalg.vector_norm(value - right) / torch.linalg.vector_norm(right))
    if exact and not errors:
        raise ValueError(f"none of the results {sorted(found)} is among the exact {sorted(exact)}")
    return errors


def orthogonality(Q: Tensor) -> float:
    """The largest entry of |Q^T Q - I|, in float64."""
    Q = Q.double()
    return float((Q.mT @ Q - torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device)).abs().max())


def check(case: Case, provider: Provider, shared: Results | None) -> dict[str, float]:
    """The errors of a provider's results by name, the larger of the modes'; the orthogonality of Q where there is one.

    Args:
        shared: the case's float64 results.

    Raises:
        ValueError: one is larger than allowed, or there is nothing to be compared with.
    """
    exact = shared if provider.exact is None else provider.exact()
    if exact is None:
        raise ValueError(f"{case.name} has no results to be compared with")
    exact = case.compared(exact)
    errors: dict[str, float] = {}
    for mode in case.modes:
        if mode not in provider.runs:
            continue
        found = case.compared(provider.runs[mode]())
        for name, error in relative_errors(found, exact).items():
            if not error <= provider.limit:  # NaN too
                raise ValueError(f"wrong: relative error {error:.1e} of {name}, allowed {provider.limit:.0e}")
            errors[name] = max(errors.get(name, 0.0), error)
        if "Q" in found:
            errors["orthogonality"] = orthogonality(found["Q"])
    return errors


def checked(
    case: Case, wanted: Callable[[str], bool]
) -> tuple[dict[str, Provider], dict[str, dict[str, float]], dict[str, str]]:
    """The providers whose results are right, their errors, and why the others are not timed."""
    shared = None if case.exact is None else case.exact()
    right: dict[str, Provider] = {}
    errors: dict[str, dict[str, float]] = {}
    refused: dict[str, str] = {}
    for name, make in case.providers().items():
        if not wanted(name):
            continue
        try:
            provider = make()
            errors[name] = check(case, provider, shared)
            right[name] = provider
        except (RuntimeError, ImportError, ValueError) as error:  # a peer that cannot run here is reported, not fatal
            refused[name] = str(error).splitlines()[0]
    return right, errors, refused


def measure(
    case: Case, budget: Budget, ceiling: float, wanted: Callable[[str], bool], clock: Clock = host_clock
) -> dict[str, Any]:
    """All that is known of a case of one mode, as JSON.

    Args:
        ceiling: flops per second of a large matrix product; a case with shares has one in its own turns.
        wanted: whether a provider takes part.
    """
    (mode,) = case.modes
    providers, errors, refused = checked(case, wanted)
    runs = {name: provider.runs[mode] for name, provider in providers.items()}
    product, flops = large_product(torch.device("cpu")) if case.shares and runs else (None, 0.0)
    times = within(budget, runs | ({LARGE_PRODUCT: product} if product else {}), clock)
    if product:
        ceiling = flops / statistics.median(times.pop(LARGE_PRODUCT))
    found = [
        {
            "provider": name,
            "median_ms": 1e3 * statistics.median(values),
            "spread": spread(values),
            "gflops": case.flops / statistics.median(values) / 1e9,
            "share_of_ceiling": case.flops / statistics.median(values) / ceiling,
            "least_share": case.shares.get(name),
            "error": max((error for kind, error in errors[name].items() if kind != "orthogonality"), default=0.0),
        }
        for name, values in times.items()
    ]
    return {
        "workload": case.name,
        "group": case.group,
        "flops": case.flops,
        "minimal_bytes": case.minimal_bytes,
        "rounds": len(next(iter(times.values()), [])),
        "providers": found,
        "refused": refused,
        "ratios": [
            {"ours": ours, "peer": peer, "ratio": ratio(times, ours, peer), "target": case.target(ours, peer)}
            for ours, peer in pairs(case, times)
        ],
    }


def pairs(case: Case, times: Times) -> list[tuple[str, str]]:
    """Ours and a peer: those with a target first, ours among themselves where they have one; then all the others."""
    found = [pair for pair in case.targets if set(pair) <= set(times)]
    for ours in (name for name in times if name.startswith("vfrnn")):
        found += [(ours, peer) for peer in times if not peer.startswith("vfrnn") and (ours, peer) not in found]
    return found
