"""`make bench-cpu`: every workload against every peer on this CPU, with the targets, as one table and as JSON.

A ratio is the median over rounds of (our time / the peer's time) of the same round. Where both compute the same
function, results are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.growth import memory_growth, time_growth
from bench.measure import gemm_ceiling, interleaved, machine, ratio, spread
from bench.providers import (
    Runs,
    activation_runs,
    exponential_runs,
    inference_runs,
    mesh_runs,
    recurrence_runs,
    training_step_runs,
)
from bench.workloads import EXPONENTIALS, MESHES, SEQUENCES, Exponential


@dataclass(frozen=True)
class Case:
    """One workload: who runs it, how many flops it takes, and the largest ratio that (ours, peer) may have."""

    name: str
    make_runs: Callable[[], Runs]
    flops: float
    targets: dict[tuple[str, str], float]
    same_function: bool = True


def cases() -> Iterator[Case]:
    """Everything that is measured, with the project's targets."""
    recurrence = {"R1": 0.5, "R2": 0.45, "R3": 0.75, "R4": 0.1, "R5": 0.35}
    step = {"R1": 0.6, "R2": 0.6, "R3": 0.33, "R5": 0.33}
    ours, field, peer, orthogonal = "vfrnn.RNN", "vfrnn.VFRNN", "torch.nn.RNN", "orthogonal(torch.nn.RNN)"
    for w in SEQUENCES:
        yield Case(w.name, lambda w=w: recurrence_runs(w), w.flops, {(ours, peer): recurrence[w.name]})
    for w in SEQUENCES[:2]:
        yield Case(f"{w.name} inference", lambda w=w: inference_runs(w), w.forward_flops, {(ours, peer): 0.6})
    for w in SEQUENCES:
        targets = {("vfrnn modrelu", "vfrnn tanh"): 1.05}
        yield Case(f"{w.name} activation", lambda w=w: activation_runs(w), w.flops, targets, same_function=False)
    for w in SEQUENCES:
        targets = {("vfrnn.VFRNN", "vfrnn.OrthogonalRNN"): 1.1}
        if w.name in step:
            targets |= {(model, orthogonal): step[w.name] for model in ("vfrnn.OrthogonalRNN", field)}
        name = w.name.replace("R", "S")
        yield Case(name, lambda w=w: training_step_runs(w), w.flops, targets, same_function=False)
    for e in EXPONENTIALS:
        pair = ("vfrnn.skew_expm", "torch.matrix_exp")
        yield Case(e.name, lambda e=e: exponential_runs(e), e.flops, {pair: exponential_target(e)})
    for m in MESHES:
        name = "vfrnn.field_generator" if m.B == 0 else "vfrnn.field_flow"
        yield Case(m.name, lambda m=m: mesh_runs(m), m.flops, {(name, "eager"): 0.5, (name, "compiled"): 1.0})


def exponential_target(e: Exponential) -> float:
    """The largest ratio to torch.matrix_exp."""
    if e.batch > 1:
        return 0.25
    if e.n < 128:
        return 0.4
    return 0.2 if e.norm <= 10 else 0.3


def measure(case: Case, repeats: int, ceiling: float) -> list[dict]:
    """One row per (ours, peer)."""
    runs = case.make_runs()
    if case.same_function:
        results = [run() for run in runs.values()]
        for other in results[1:]:
            torch.testing.assert_close(results[0], other, rtol=1e-3, atol=1e-3)
    times = interleaved(runs, repeats)
    median = {name: statistics.median(values) for name, values in times.items()}
    pairs = list(case.targets)
    for ours in dict.fromkeys(pair[0] for pair in pairs):  # peers without a target are listed too
        pairs += [(ours, peer) for peer in runs if not peer.startswith("vfrnn") and (ours, peer) not in pairs]
    return [
        {
            "workload": case.name,
            "provider": ours,
            "median_ms": 1e3 * median[ours],
            "spread": spread(times[ours]),
            "gflops": case.flops / median[ours] / 1e9,
            "share_of_ceiling": case.flops / median[ours] / ceiling,
            "peer": peer,
            "peer_median_ms": 1e3 * median[peer],
            "ratio": ratio(times, ours, peer),
            "target": case.targets.get((ours, peer)),
        }
        for ours, peer in pairs
    ]


COLUMNS = ("workload", "ours", "ms", "GFLOP/s", "of GEMM", "peer", "ms", "ratio", "target")
LAYOUT = "{:<19} {:<21} {:>8} {:>8} {:>8}   {:<25} {:>8} {:>7} {:>7}"


def line(row: dict) -> str:
    """A row of the table; a target that is missed is marked."""
    target = row["target"]
    ours = (row["workload"], row["provider"], f"{row['median_ms']:.2f}", f"{row['gflops']:.1f}")
    peer = (f"{row['share_of_ceiling']:.0%}", row["peer"], f"{row['peer_median_ms']:.2f}", f"{row['ratio']:.3f}")
    text = LAYOUT.format(*ours, *peer, "" if target is None else f"{target:.2f}")
    return text.rstrip() + ("  missed" if target is not None and row["ratio"] > target else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="rounds of every workload (default 9)")
    parser.add_argument("--workload", nargs="*", help="only workloads whose name starts so")
    parser.add_argument("--out", type=Path, help="write JSON here")
    arguments = parser.parse_args()
    ceiling = gemm_ceiling()
    about = machine()
    print(f"{about['cpu']}, {about['isa']}, {about['threads']} threads; GEMM {ceiling / 1e9:.0f} GFLOP/s")
    print(LAYOUT.format(*COLUMNS))
    rows: list[dict] = []
    for case in cases():
        if arguments.workload and not case.name.startswith(tuple(arguments.workload)):
            continue
        # short ones are cheap to repeat, and noisy
        repeats = 3 * arguments.repeats if case.flops < 1e9 else arguments.repeats
        for row in measure(case, repeats, ceiling):
            print(line(row), flush=True)
            rows.append(row)
        torch.compiler.reset()
    result = {"machine": about, "gemm_gflops": ceiling / 1e9, "rows": rows}
    if not arguments.workload:
        result |= {"memory": memory_growth(), "time": time_growth()}
        for row in result["memory"]:
            print(f"memory of {row['workload']} beyond inputs and results, in copies of hs: ", end="")
            print(f"{row['copies']:.2f} (target 1.1), slope over T {row['slope_over_T']:.2f}")
        for row in result["time"]:
            costs = zip(row["values"], row["relative_cost"], strict=True)
            print(f"time per step and sample over {row['over']}:", ", ".join(f"{v}: {cost:.2f}" for v, cost in costs))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
