"""python -m vfrnn_bench.gpu OUT PART --seconds N: measures one part (ceilings, exponential, recurrence, steps, loops),
or reports on what results.json holds (report).

An exit code other than 0: the device's context broke (an illegal address, say), or a kernel did not return. The same
command again goes on behind the provider that did it.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import statistics
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
from vfrnn_bench.gpu.cases import Case, Provider, Results
from vfrnn_bench.gpu.parts import PARTS
from vfrnn_bench.gpu.record import WHOLE_CASE, Record, about
from vfrnn_bench.gpu.report import report
from vfrnn_bench.gpu.timing import Times, ceilings, interleaved, ratio, spread, synchronize

BROKEN_CONTEXT = 75

#: A provider or a case that takes longer than this does not return.
LONGEST_SECONDS = 75


def relative_errors(found: Results, exact: Results) -> dict[str, float]:
    """Frobenius, in float64, relative to the exact result."""
    errors = {}
    for name, right in exact.items():
        value = found[name].detach().to(right.device, torch.float64)
        if value.shape != right.shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, must be {tuple(right.shape)}")
        errors[name] = float((value - right).norm() / right.norm())
    return errors


def orthogonality(found: Results) -> dict[str, float]:
    """max |Q^T Q - I| where there is a Q."""
    if "Q" not in found:
        return {}
    Q = found["Q"].double()
    return {"orthogonality": float((Q.mT @ Q - torch.eye(Q.shape[-1], device=Q.device)).abs().max())}


def check(provider: Provider, exact: Results) -> dict[str, float]:
    """Errors of a provider's results.

    Raises:
        ValueError: they are too large.
    """
    if provider.exact is not None:
        exact = provider.exact()
    found = provider.results()
    errors = relative_errors(found, exact)
    wrong = {name: f"{error:.1e}" for name, error in errors.items() if not error <= provider.limit}  # NaN too
    if wrong:
        raise ValueError(f"wrong: relative errors {wrong}, at most {provider.limit:.0e} is allowed")
    return errors | orthogonality(found)


def guard(record: Record, case: Case, provider: str) -> None:
    """From here on the process ends by itself if this takes too long."""
    record.begin(case.key, provider)
    faulthandler.dump_traceback_later(LONGEST_SECONDS, exit=True)


def uses_cudnn(provider: Provider) -> bool | None:
    """Whether its results come out of cuDNN, as the profiler sees it; None where there is no profiler."""
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            provider.runs["step"]()
        return any("cudnn" in event.key for event in profile.key_averages())
    except RuntimeError:
        return None


def measure(case: Case, device: torch.device, record: Record, seconds: float) -> list[dict[str, Any]]:
    """Rows of one case: a provider and a mode each. What fails is recorded and left out."""
    ready: dict[str, Provider] = {}
    errors: dict[str, dict[str, float]] = {}
    cudnn: dict[str, bool | None] = {}
    guard(record, case, WHOLE_CASE)
    exact = case.exact()
    for name, make in case.providers().items():
        if record.has_failed(case.key, name):
            continue
        guard(record, case, name)
        try:
            provider = make()
            errors[name] = check(provider, exact)
            if name.startswith("torch.nn.RNN") and device.type == "cuda":
                cudnn[name] = uses_cudnn(provider)
            synchronize(device)
            ready[name] = provider
        except Exception as error:
            record.end()
            traceback.clear_frames(error.__traceback__)
            broken = not answers(device)
            record.fail(case.key, name, explain(error), broken)
            print(f"{case.key}: {name} FAILED: {explain(error)}", flush=True)
            if broken:
                sys.exit(BROKEN_CONTEXT)
    del exact
    guard(record, case, WHOLE_CASE)
    rows = []
    modes = list(dict.fromkeys(mode for provider in ready.values() for mode in provider.runs))
    for mode in modes:
        runs = {name: provider.runs[mode] for name, provider in ready.items() if mode in provider.runs}
        times = interleaved(device, runs, seconds / len(modes))
        rows += [row(case, mode, name, times, errors[name], cudnn.get(name)) for name in runs]
    return rows


def row(case: Case, mode: str, name: str, times: Times, errors: dict[str, float], cudnn: bool | None) -> dict[str, Any]:
    median = statistics.median(times[name])
    peers = [peer for peer in times if not peer.startswith("vfrnn")] if name.startswith("vfrnn") else []
    found = {
        "part": case.part,
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
        "targets": {peer: case.targets[mode, peer] for peer in peers if (mode, peer) in case.targets},
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


def run_part(part: str, device: torch.device, record: Record, seconds: float, quick: bool) -> None:
    deadline = time.monotonic() + seconds
    for case in PARTS[part](device, quick):
        if record.is_done(case.key):
            continue
        if time.monotonic() > deadline:
            record.skip(case.key)
            continue
        try:
            rows = measure(case, device, record, 0.1 if quick else 0.6)
        except Exception as error:
            record.fail(case.key, WHOLE_CASE, explain(error))
            print(f"{case.key} FAILED: {explain(error)}", flush=True)
            rows = []
        faulthandler.cancel_dump_traceback_later()
        record.end()
        record.finish(case.key, rows)
        print(*(line(r) for r in rows), sep="\n", flush=True)
        torch.compiler.reset()
        if not answers(device):
            sys.exit(BROKEN_CONTEXT)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def line(r: dict[str, Any]) -> str:
    ratios = ", ".join(f"{value:.3f} of {peer}" for peer, value in r["ratios"].items())
    return f"{r['case']} {r['dtype']} {r['mode']}: {r['provider']} {r['median_ms']:.4f} ms {ratios}".rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("part", choices=("ceilings", *PARTS, "report"))
    parser.add_argument("--seconds", type=float, default=60, help="after so many, no further case is begun")
    parser.add_argument("--device", default="cuda", help="cpu only to try this program out")
    parser.add_argument("--quick", action="store_true", help="a few tiny cases")
    parser.add_argument("--note", action="append", default=[], help="lines for the head of the report")
    arguments = parser.parse_args()
    # The peers' remarks on the layout of their weights; what fails is recorded.
    warnings.simplefilter("ignore")
    device = torch.device(arguments.device)
    record = Record(arguments.out)
    if arguments.part == "report":
        report(record, arguments.out, arguments.note)
    elif arguments.part == "ceilings":
        record.data["about"] = about(device)
        record.save()
        record.data["ceilings"] = ceilings(device, arguments.quick)
        record.save()
    else:
        run_part(arguments.part, device, record, arguments.seconds, arguments.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
