"""How a part is measured on a GPU: what a provider does to the device's context, or to this process, is in the file of
results before it happens, so that the same command again goes on behind it."""

from __future__ import annotations

import faulthandler
import gc
import statistics
import sys
import time
import traceback
from typing import Any

import torch
from vfrnn_bench.cases import OURS, Case
from vfrnn_bench.gpu.cases import PARTS
from vfrnn_bench.gpu.results_file import WHOLE_CASE, ResultsFile
from vfrnn_bench.gpu.timing import clock_of, synchronize
from vfrnn_bench.measure import check
from vfrnn_bench.providers import STEP, Provider
from vfrnn_bench.timing import Budget, Times, ratio, spread, within

BROKEN_CONTEXT = 75

#: A provider or a case that takes longer than this does not return.
LONGEST_SECONDS = 75

#: A sample lasts at least this long, seconds.
SAMPLE = 1e-3


def guard(file: ResultsFile, case: Case, provider: str) -> None:
    """From here on the process ends by itself if this takes too long."""
    file.begin(case.key, provider)
    faulthandler.dump_traceback_later(LONGEST_SECONDS, exit=True)


def uses_cudnn(provider: Provider) -> bool | None:
    """Whether its results come out of cuDNN, as the profiler sees it; None where there is no profiler."""
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profile:
            provider.runs[STEP]()
        return any("cudnn" in event.key for event in profile.key_averages())
    except RuntimeError:
        return None


def measure(case: Case, device: torch.device, file: ResultsFile, seconds: float) -> list[dict[str, Any]]:
    """Rows of one case: a provider and a mode each. What fails is written down and left out."""
    ready: dict[str, Provider] = {}
    errors: dict[str, dict[str, float]] = {}
    cudnn: dict[str, bool | None] = {}
    guard(file, case, WHOLE_CASE)
    exact = None if case.exact is None else case.exact()
    for name, make in case.providers().items():
        if file.has_failed(case.key, name):
            continue
        guard(file, case, name)
        try:
            provider = make()
            errors[name] = check(case, provider, exact)
            if name.startswith("torch.nn.RNN") and device.type == "cuda":
                cudnn[name] = uses_cudnn(provider)
            synchronize(device)
            ready[name] = provider
        except Exception as error:
            file.end()
            traceback.clear_frames(error.__traceback__)
            broken = not answers(device)
            file.fail(case.key, name, explain(error), broken)
            print(f"{case.key}: {name} FAILED: {explain(error)}", flush=True)
            if broken:
                sys.exit(BROKEN_CONTEXT)
    del exact
    guard(file, case, WHOLE_CASE)
    rows = []
    for mode in case.modes:
        runs = {name: provider.runs[mode] for name, provider in ready.items() if mode in provider.runs}
        times = within(Budget(seconds / len(case.modes), most=60, sample=SAMPLE), runs, clock_of(device))
        rows += [row(case, mode, name, times, errors[name], cudnn.get(name)) for name in runs]
    return rows


def row(case: Case, mode: str, name: str, times: Times, errors: dict[str, float], cudnn: bool | None) -> dict[str, Any]:
    """All that is known of a provider in one mode, as JSON."""
    median = 1e3 * statistics.median(times[name])
    peers = [peer for peer in times if not peer.startswith(OURS)] if name.startswith(OURS) else []
    targets = {peer: case.target(name, peer) for peer in peers if mode == case.modes[-1]}
    found = {
        "part": case.group,
        "case": case.name,
        "dtype": case.dtype,
        **case.sizes,
        "mode": mode,
        "provider": name,
        "median_ms": median,
        "us_per_step": 1e3 * median / case.steps,
        "spread": spread(times[name]),
        "rounds": len(times[name]),
        "ratios": {peer: ratio(times, name, peer) for peer in peers},
        "targets": {peer: target for peer, target in targets.items() if target is not None},
        "errors": errors,
    }
    return found if cudnn is None else found | {"cudnn": cudnn}


def explain(error: Exception) -> str:
    """The error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]


def answers(device: torch.device) -> bool:
    """Whether the device still works in this process; what was left on it is given back."""
    gc.collect()
    try:
        synchronize(device)
        return float(torch.ones(1, device=device).sum()) == 1
    except RuntimeError:
        return False


def run_part(part: str, device: torch.device, file: ResultsFile, seconds: float, quick: bool) -> None:
    """Every case of the part that is not done yet; none is begun after so many seconds.

    Raises:
        SystemExit: the device's context is broken.
    """
    deadline = time.monotonic() + seconds
    for case in PARTS[part](device, quick):
        if file.is_done(case.key):
            continue
        if time.monotonic() > deadline:
            file.skip(case.key)
            continue
        try:
            rows = measure(case, device, file, 0.1 if quick else 0.6)
        except Exception as error:
            file.fail(case.key, WHOLE_CASE, explain(error))
            print(f"{case.key} FAILED: {explain(error)}", flush=True)
            rows = []
        faulthandler.cancel_dump_traceback_later()
        file.end()
        file.finish(case.key, rows)
        print(*(line(r) for r in rows), sep="\n", flush=True)
        torch.compiler.reset()
        if not answers(device):
            sys.exit(BROKEN_CONTEXT)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def line(r: dict[str, Any]) -> str:
    """A row as the run prints it."""
    ratios = ", ".join(f"{value:.3f} of {peer}" for peer, value in r["ratios"].items())
    return f"{r['case']} {r['dtype']} {r['mode']}: {r['provider']} {r['median_ms']:.4f} ms {ratios}".rstrip()
