"""What a run comes to, in whole sentences made of its numbers: how much faster, how exact, how much memory, and what
missed its target. Each function gives nothing where the run has not measured it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from vfrnn_bench import names
from vfrnn_bench.runs import Pair, between, pairs

Json = dict[str, Any]

#: What the first sentence compares: the group of workloads, ours, the peer, and how the two are said.
COMPARED = (
    ("recurrence", "vfrnn.RNN", "torch.nn.RNN", "a training step of {ours}", "one of {peer}"),
    ("training step", "vfrnn.VFRNN", "orthogonal(torch.nn.RNN)", "one of {ours}", "one of {peer}"),
    ("exponential", "vfrnn.skew_expm", "torch.matrix_exp", "{ours}", "{peer}"),
)
#: What the first sentence has named in full.
ORTHOGONAL = "the orthogonal torch.nn.RNN"
ISAS = {"avx2": "AVX2", "avx512": "AVX-512", "neon": "NEON", "baseline": "the baseline of the processor"}


def first(result: Json) -> list[tuple[str, str]]:
    """What the report starts with: three questions and the sentences that answer them."""
    found = (
        ("How much faster?", speed(result)),
        ("How exact?", exactness(result)),
        ("How much memory?", memory(result)),
    )
    return [(question, sentence) for question, sentence in found if sentence]


def machine(result: Json) -> str:
    """Where and how it was measured."""
    m, read = result["machine"], result["read"]
    text = f"Measured on {m['device']} with {names.counted(m['threads'], 'thread')}"
    if read["isas"] and m["type"] == "cpu":
        text += f", on {names.listed([ISAS.get(isa, isa) for isa in read['isas']])}"
    text += f", with PyTorch {m['torch']}, in float32, on {m['date']}."
    if read["runs"] > 1:
        text += f" Each speed is the worst of {read['runs']} runs; errors and memory are the worst of the runs that "
        text += "measured them." + (
            " The peers were held to the same instruction set as vfrnn." if read["limited"] else ""
        )
    return text


def speed(result: Json) -> str:
    """Ours beside the peers that its readers use today; numbers are rounded down."""
    parts = []
    for group, ours, peer, we, they in COMPARED:
        found = between(result, group, ours, peer)
        if found:
            what = we.format(ours=names.provider(ours)), they.format(peer=names.provider(peer))
            parts.append(f"{what[0]} is {_times(found)} as {what[1]} ({_over(found)})")
    if not parts:
        return ""
    if parts[0].startswith("one of"):
        parts[0] = "a training step" + parts[0].removeprefix("one")
    sentence = names.listed(parts)
    return f"On {result['machine']['device']}, {sentence}."


def _times(found: list[Pair]) -> str:
    slowest, fastest = max(p.ratio for p in found), min(p.ratio for p in found)
    ends = list(dict.fromkeys((names.speed(slowest), names.speed(fastest))))
    return f"{' to '.join(ends)} times as fast"


def _over(found: list[Pair]) -> str:
    if len(found) == 1:
        return "1 workload"
    return f"median {names.speed(1 / statistics.median(1 / p.ratio for p in found))}, {len(found)} workloads"


def exactness(result: Json) -> str:
    """The exponential, and the layers, each beside its peer."""
    parts = [part for part in (_exponentials(result), _layers(result)) if part]
    return f"Compared with float64, the largest errors in float32 are {'; '.join(parts)}." if parts else ""


def _exponentials(result: Json) -> str:
    rows = result.get("accuracy", [])
    largest = {}
    for name in ("vfrnn.skew_expm", "torch.matrix_exp"):
        errors = [row["errors"] for row in rows if row["provider"] == name]
        if not errors:
            return ""
        largest[name] = [names.power(max(e[kind] for e in errors)) for kind in ("forward", "gradient")]
    ours, peer = largest.values()
    sizes, norms = ([row[key] for row in rows] for key in ("n", "norm"))
    over = f"over n {min(sizes)} to {max(sizes)} and spectral norms {min(norms):g} to {max(norms):g}"
    theirs = f"(torch.matrix_exp: {peer[0]} and {peer[1]})"
    return f"{ours[0]} in vfrnn.skew_expm and {ours[1]} in its gradient {theirs}, {over}"


def _layers(result: Json) -> str:
    parts = []
    ours, peer = (_error(result, "recurrence", name) for name in ("vfrnn.RNN", "torch.nn.RNN"))
    if ours is not None and peer is not None:
        parts.append(f"{names.power(ours)} in vfrnn.RNN (torch.nn.RNN: {names.power(peer)})")
    ours, peer = (_error(result, "training step", name) for name in ("vfrnn.VFRNN", "orthogonal(torch.nn.RNN)"))
    if ours is not None and peer is not None:
        tanh = _error(result, "activation", "vfrnn tanh")
        text = f"{names.power(ours)} in vfrnn.VFRNN with modReLU ({ORTHOGONAL} with tanh: {names.power(peer)}"
        text += "" if tanh is None else f"; {names.provider('vfrnn tanh')}: {names.power(tanh)}"
        parts.append(f"{text})")
    return f"for a training step, {names.listed(parts)}" if parts else ""


def _error(result: Json, group: str, name: str) -> float | None:
    found = [
        row["error"]
        for case in result["cases"]
        if case["group"] == group
        for row in case["providers"]
        if row["provider"] == name
    ]
    return max(found, default=None)


def memory(result: Json) -> str:
    """Of a training step, over its number of steps."""
    rows = {row["provider"]: row for row in result.get("memory", [])}
    parts = []
    for ours, peer in (("vfrnn.RNN", "torch.nn.RNN"), ("vfrnn.VFRNN", "orthogonal(torch.nn.RNN)")):
        if ours in rows and peer in rows:
            copies = [f"{rows[name]['copies_of_states']:.1f}" for name in (ours, peer)]
            they = peer if peer == "torch.nn.RNN" else ORTHOGONAL
            copy = "" if parts else " copies of the hidden states"
            parts.append(f"{copies[0]}{copy} in {ours} ({they}: {copies[1]})")
    sentence = f"A training step takes {names.listed(parts)}" if parts else ""
    long = {row["provider"]: row for row in result.get("long_memory", [])}
    every, last = (long.get(f"vfrnn.VFRNN, {kind}") for kind in ("all states", "return_sequence=False"))
    if every and last:
        peaks = [f"{row['bytes'][-1] / 2**20:.0f} MiB" for row in (last, every)]
        sentence += "; with" if sentence else "With"
        sentence += f" return_sequence=False, vfrnn.VFRNN trains on {last['steps'][-1]:,} steps in {peaks[0]}"
        sentence += f" beyond its input, where all states take {peaks[1]}"
    return sentence + "." if sentence else ""


def targets(result: Json) -> str:
    """How many were missed."""
    times = [pair for pair in pairs(result) if pair.target is not None]
    shares = list(_shares(result))
    if not times and not shares:
        return ""
    counts = (
        (len(times), sum(pair.missed for pair in times), "for time"),
        (len(shares), sum(share < least for *_, share, least in shares), "for the share of the machine's rate"),
    )
    if not any(missed for _, missed, _ in counts):
        return f"All targets were met: {names.listed([f'{count} {what}' for count, _, what in counts if count])}."
    told = names.listed(
        [f"{missed} of {names.counted(count, 'target')} {what}" for count, missed, what in counts if count]
    )
    return f"Missed{' in at least one run' if result['read']['runs'] > 1 else ''}: {told}."


def misses(result: Json) -> list[str]:
    """Each pair that missed, its workloads together; then the shares."""
    by_pair: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs(result, lambda pair: pair.missed):
        by_pair.setdefault((pair.ours, names.provider(pair.peer, pair.workload)), []).append(pair)
    found = []
    for (ours, peer), rows in by_pair.items():
        each = names.listed([_missed(row, k == 0) for k, row in enumerate(rows)])
        found.append(f"Beside {peer}, {names.provider(ours)} is {each}.")
    by_ours: dict[str, list[str]] = {}
    for workload, ours, share, least in _shares(result):
        if share < least:
            rows = by_ours.setdefault(ours, [])
            target = f"{'' if rows else 'target '}{100 * least:.0f} %"
            rows.append(f"{100 * share:.1f} % for {names.workload(workload)} ({target})")
    return found + [
        f"Of the rate of a large matrix product, {names.provider(ours)} reaches {names.listed(rows)}."
        for ours, rows in by_ours.items()
    ]


def _missed(pair: Pair, first: bool) -> str:
    """The words that the first of several has are understood in the others."""
    assert pair.target is not None
    times, target = (" times as fast", "target ") if first else ("", "")
    return f"{1 / pair.ratio:.2f}{times} for {names.workload(pair.workload)} ({target}{1 / pair.target:.2f})"


def _shares(result: Json) -> Iterator[tuple[str, str, float, float]]:
    for case in result["cases"]:
        for row in case["providers"]:
            if row["least_share"] is not None:
                yield case["workload"], row["provider"], row["share_of_ceiling"], row["least_share"]


def slower(result: Json) -> str:
    """Which peers are faster than ours, by the worst of the runs."""
    by_pair: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs(result, lambda pair: not pair.peer.startswith("vfrnn")):
        by_pair.setdefault((pair.ours, names.provider(pair.peer, pair.workload)), []).append(pair)
    parts = []
    for (ours, peer), rows in by_pair.items():
        long = sorted(row.ratio for row in rows if row.ratio > 1)
        if long:
            times = " to ".join(dict.fromkeys(f"{value:.2f}" for value in (long[0], long[-1])))
            where = f"{len(long)} of {names.counted(len(rows), 'workload')}"
            parts.append(f"{names.provider(ours)} takes {times} times as long as {peer} ({where})")
    return f"vfrnn is slower than a peer here: {names.listed(parts)}." if parts else ""
