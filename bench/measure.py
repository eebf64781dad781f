"""How a case is measured: its providers are checked against float64, then timed in turns, so that the noise of a
shared machine hits ours and the peers alike."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from vfrnn_bench.cases import Case
from vfrnn_bench.providers import Provider, Results, Run

from vfrnn_kernels.loader import build_info

Times = dict[str, list[float]]


def seconds(run: Run) -> float:
    """Of one call; work that a GPU still does is waited for."""
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleaved(runs: Mapping[str, Run], repeats: int, warm_up: int = 2) -> Times:
    """Seconds of each run, round by round, after the warm-up."""
    for run in runs.values():
        for _ in range(warm_up):
            run()
    times: Times = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run))
    return times


def ratio(times: Times, ours: str, peer: str) -> float:
    """Median over the rounds of our time over the peer's in the same round."""
    return statistics.median(a / b for a, b in zip(times[ours], times[peer], strict=True))


def spread(values: list[float]) -> float:
    """Half of the range between the quartiles, relative to the median."""
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def relative_error(found: Results, exact: Results) -> float:
    """The largest of the relative Frobenius errors of the results that both have; NaN for NaN."""
    errors = [
        torch.linalg.vector_norm(found[name].double() - exact[name]) / torch.linalg.vector_norm(exact[name])
        for name in found
        if name in exact
    ]
    return float(torch.stack(errors).max()) if errors else 0.0


def checked(case: Case, wanted: Callable[[str], bool]) -> tuple[dict[str, Provider], dict[str, float], dict[str, str]]:
    """The providers whose results are right, their errors, and why the others are not timed."""
    shared = None if case.exact is None else case.exact()
    right: dict[str, Provider] = {}
    errors: dict[str, float] = {}
    refused: dict[str, str] = {}
    for name, make in case.providers().items():
        if not wanted(name):
            continue
        try:
            provider = make()
            exact = provider.exact() if provider.exact is not None else shared
            assert exact is not None, f"{case.name}: {name} has nothing to be compared with"
            errors[name] = relative_error(provider.results(), exact)
        except (RuntimeError, ImportError, ValueError) as error:  # a peer that cannot run here is reported, not fatal
            refused[name] = str(error).splitlines()[0]
            continue
        if errors[name] <= provider.limit:
            right[name] = provider
        else:
            refused[name] = f"wrong: relative error {errors[name]:.1e}, allowed {provider.limit:.0e}"
    return right, errors, refused


def measure(case: Case, rounds: int, budget: float, ceiling: float, wanted: Callable[[str], bool]) -> dict[str, Any]:
    """All that is known of a case, as JSON.

    Args:
        rounds: at most so many; fewer, at least 5, where they would take more than `budget` seconds.
        ceiling: flops per second of a large matrix product.
        wanted: whether a provider takes part.
    """
    providers, errors, refused = checked(case, wanted)
    runs = {name: provider.run for name, provider in providers.items()}
    one_round = sum(interleaved(runs, 1, warm_up=1)[name][0] for name in runs) if runs else 0.0
    times = interleaved(runs, max(5, min(rounds, int(budget / max(one_round, 1e-9)))), warm_up=1)
    found = [
        {
            "provider": name,
            "median_ms": 1e3 * statistics.median(values),
            "spread": spread(values),
            "gflops": case.flops / statistics.median(values) / 1e9,
            "share_of_ceiling": case.flops / statistics.median(values) / ceiling,
            "error": errors[name],
        }
        for name, values in times.items()
    ]
    pairs = [pair for pair in case.targets if set(pair) <= set(times)]
    for ours in dict.fromkeys(name for name in times if name.startswith("vfrnn")):  # peers without a target too
        pairs += [(ours, peer) for peer in times if not peer.startswith("vfrnn") and (ours, peer) not in pairs]
    return {
        "workload": case.name,
        "group": case.group,
        "flops": case.flops,
        "minimal_bytes": case.minimal_bytes,
        "rounds": len(next(iter(times.values()), [])),
        "providers": found,
        "refused": refused,
        "ratios": [
            {"ours": ours, "peer": peer, "ratio": ratio(times, ours, peer), "target": case.targets.get((ours, peer))}
            for ours, peer in pairs
        ],
    }


def gemm_ceiling(device: torch.device, n: int = 1536, repeats: int = 5) -> float:
    """Flops per second of a large float32 product through PyTorch, the best of a few."""
    A, B = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
    out = torch.empty_like(A)
    return 2 * n**3 / min(interleaved({"mm": lambda: torch.mm(A, B, out=out)}, repeats)["mm"])


def copy_ceiling(device: torch.device, megabytes: int = 256, repeats: int = 5) -> float:
    """Bytes per second, read and written, of a large copy, the best of a few."""
    source = torch.ones(megabytes * 2**20 // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(interleaved({"copy": lambda: target.copy_(source)}, repeats)["copy"])


def machine(device: torch.device) -> dict[str, Any]:
    """What was measured, and on what."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "type": device.type,
        "commit": commit(),
        "isa": torch.ops.vfrnn_kernels.cpu_isa(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
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
