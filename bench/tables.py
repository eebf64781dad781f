"""What a run prints: a line when a part is done, and the table of ratios at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table
from vfrnn_bench.names import counted, listed, provider

Json = dict[str, Any]


def lines(kind: str, row: Json) -> Iterator[str]:
    """Of one part of the run, `kind` as suite.run names it."""
    if kind == "machine":
        m, ceiling = row["machine"], row["ceiling"]
        isa = f" ({m['isa']})" if m["isa"] else ""
        yield f"This runs on {m['device']}{isa} with {counted(m['threads'], 'thread')} and torch {m['torch']}."
        yield (
            f"A large matrix product reaches {ceiling['gemm_flops'] / 1e9:.0f} GFLOP/s here, a large copy "
            f"{ceiling['copy_bytes'] / 1e9:.1f} GB/s."
        )
    elif kind == "case":
        workload = row["workload"]
        times = [f"{p['median_ms']:.3g} ms by {provider(p['provider'], workload)}" for p in row["providers"]]
        if times:
            yield f"{workload} takes {listed(times)}."
        for name, reason in row["refused"].items():
            yield f"  {provider(name, workload)} was not timed: {reason}"
    elif kind == "time":
        for curve in row["curves"]:
            yield (
                f"The time of {curve['provider']} grows as {row['over']} to the power {curve['exponent']:.2f}, in the "
                f"larger half {curve['exponent_of_larger_half']:.2f}."
            )
    elif kind == "memory":
        copies = f"{row['copies_of_states']:.2f} copies of the hidden states"
        yield f"The memory of {provider(row['provider'])} grows over T by {copies}."
    elif kind == "long memory":
        peaks = [f"{b / 2**20:.0f} MiB at T {T}" for T, b in zip(row["steps"], row["bytes"], strict=True)]
        yield f"{provider(row['provider'])} takes {listed(peaks)}."
    elif kind == "shared machine":
        times = listed([f"{ms:.3g} ms by {name}" for name, ms in row["median_ms"].items()])
        beside = counted(row["neighbours"], "busy process", "es")
        yield f"{row['workload']} with {counted(row['threads'], 'thread')} beside {beside} takes {times}."
    elif kind == "soak":
        what = "all states" if row["sequence"] else "the last state"
        yield f"{row['layer']} with {what} grew by {row['grown_mib']:.0f} MiB in {row['steps']} steps."


def ratios(result: Json) -> Table:
    """Every pair of ours and a peer, with the share of the machine's rate and the target."""
    said = "The share is of the rate of a large matrix product; the ratio is our time over the peer's."
    table = Table(title="Our time over the peer's", caption=said)
    for name in ("workload", "ours"):
        table.add_column(name, no_wrap=True)
    for name in ("ms", "GFLOP/s", "share"):
        table.add_column(name, justify="right")
    table.add_column("peer", no_wrap=True)
    for name in ("ms", "ratio", "target"):
        table.add_column(name, justify="right")
    for case in result["cases"]:
        by_name = {row["provider"]: row for row in case["providers"]}
        for row in case["ratios"]:
            ours, peer, target = by_name[row["ours"]], by_name[row["peer"]], row["target"]
            share, least = f"{ours['share_of_ceiling']:.0%}", ours["least_share"]
            if least is not None:
                share += f" of {least:.0%}" + (" missed" if ours["share_of_ceiling"] < least else "")
            style = "" if target is None else "green" if row["ratio"] <= target else "red"
            table.add_row(
                case["workload"], row["ours"], f"{ours['median_ms']:.3f}", f"{ours['gflops']:.1f}",
                share, row["peer"], f"{peer['median_ms']:.3f}",
                f"[{style}]{row['ratio']:.3f}[/]" if style else f"{row['ratio']:.3f}",
                "" if target is None else f"{target:.2f}" + (" missed" if row["ratio"] > target else ""),
            )  # fmt: skip
    return table
