"""Several runs of the suite read as one, the worst of them: two instruction sets, or a machine that was busy once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


#: Which row of several runs is told: what it is about, and what is largest in it.
_WORST: dict[str, tuple[tuple[str, ...], Callable[[Json], float]]] = {
    "memory": (("provider",), lambda row: row["copies_of_states"]),
    "long_memory": (("provider",), lambda row: row["bytes"][-1]),
    "shared_machine": (("workload",), lambda row: row["ratio"]),
    "soak": (("layer", "sequence"), lambda row: row["grown_mib"]),
}


def worst(runs: Sequence[Json]) -> Json:
    """The same as the JSON of one run. Ratios, shares, errors and memory are the worst of all runs; times,
    their curves and the rates of the machine are of the first run that has them. `read` says of how many runs,
    instruction sets and commits."""
    merged = {key: value for run in reversed(runs) for key, value in run.items()} | {
        "machine": runs[0]["machine"],
        "ceiling": runs[0]["ceiling"],
        "suite": runs[0]["suite"],
        "cases": [_worst_case(name, runs) for name in _names(runs)],
        "accuracy": [row for run in runs for row in run.get("accuracy", [])],
    }
    machines = [run["machine"] for run in runs]
    merged["read"] = {
        "runs": len(runs),
        "isas": list(dict.fromkeys(m["isa"] for m in machines if m["isa"])),
        "commits": list(dict.fromkeys(m["commit"] for m in machines if m["commit"])),
        "limited": any(m.get("limits") for m in machines),
    }
    for part, (key, value) in _WORST.items():
        merged[part] = _largest([row for run in runs for row in run.get(part, [])], key, value)
    return merged


def _names(runs: Sequence[Json]) -> list[str]:
    return list(dict.fromkeys(case["workload"] for run in runs for case in run["cases"]))


def _worst_case(name: str, runs: Sequence[Json]) -> Json:
    found = [case for run in runs for case in run["cases"] if case["workload"] == name]
    providers = [row for case in found for row in case["providers"]]
    merged = []
    for row in _first(providers, ("provider",)):
        same = [other for other in providers if other["provider"] == row["provider"]]
        share, error = min(r["share_of_ceiling"] for r in same), max(r["error"] for r in same)
        merged.append(row | {"share_of_ceiling": share, "error": error})
    ratios = _largest([row for case in found for row in case["ratios"]], ("ours", "peer"), lambda row: row["ratio"])
    refused = {provider: reason for case in reversed(found) for provider, reason in case["refused"].items()}
    return found[0] | {"providers": merged, "ratios": ratios, "refused": refused}


def _first(rows: Sequence[Json], key: Sequence[str]) -> list[Json]:
    """A row of each key, in the order of the first."""
    return list({tuple(row[name] for name in key): row for row in reversed(rows)}.values())[::-1]


def _largest(rows: Sequence[Json], key: Sequence[str], value: Callable[[Json], float]) -> list[Json]:
    """The row of each key whose value is largest, in the order of the first."""
    found: dict[tuple[Any, ...], Json] = {}
    for row in rows:
        name = tuple(row[part] for part in key)
        if name not in found or value(row) > value(found[name]):
            found[name] = row
    return list(found.values())


@dataclass(frozen=True)
class Pair:
    """Our time over a peer's on one workload."""

    group: str
    workload: str
    ours: str
    peer: str
    ratio: float
    target: float | None

    @property
    def missed(self) -> bool:
        return self.target is not None and self.ratio > self.target


def pairs(result: Json, wanted: Callable[[Pair], bool] = lambda pair: True) -> list[Pair]:
    """Every ratio of a run, of those that are wanted."""
    every = [
        Pair(case["group"], case["workload"], row["ours"], row["peer"], row["ratio"], row["target"])
        for case in result["cases"]
        for row in case["ratios"]
    ]
    return [pair for pair in every if wanted(pair)]


def between(result: Json, group: str, ours: str, peer: str) -> list[Pair]:
    """The ratios of one of ours and one peer in one group of workloads. On a GPU, where every backend of ours has a
    name of its own, those of the first backend."""
    found = pairs(
        result, lambda p: (p.group, p.peer) == (group, peer) and (p.ours == ours or p.ours.startswith(f"{ours} "))
    )
    return [pair for pair in found if pair.ours == found[0].ours]
