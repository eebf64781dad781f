"""An hour of mixed work in one process, in which nothing may rise: `python -m vfrnn_bench.endurance --minutes 60`.

Every cycle does all of `vfrnn_bench.mixed_work` once, in changing order; then the levels of the process are read. A
table comes at the end; the exit code is 1 where something rose. CPU and Linux with glibc only.

PyTorch keeps something of every program that it traces, of a linear layer's too. That work is done in one cycle of
`APART`; what its calls raise memory by is taken out of the levels, and stands in a table beside that of PyTorch alone.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import logging
import os
import random
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from vfrnn_bench.levels import Levels, Memory, Verdict, here, settled, verdicts
from vfrnn_bench.mixed_work import Largest, Work, works, works_of_torch

#: The first share of the cycles is not judged: what is loaded, compiled or kept once comes there.
WARM_UP = 0.25
#: No run ends before so many cycles, of which a line can be told.
LEAST = 8
#: The work that is told apart is done in one cycle of so many, and in the first.
APART = 10
#: What memory may rise by over the judged cycles, along the line of `levels.slope`: bytes, and pieces. Resident memory
#: has steps of several MiB, where an allocator keeps what a larger call had. The heap and the pieces wander after
#: PyTorch's tracing: three runs without a leak, cut at every third length, rose by up to 0.16 MiB and 35 pieces above
#: `EACH`; the heap has three times that, and the pieces the 700 by which they fall at once every 29 cycles.
LIMITS = {"resident": 32 * 2.0**20, "heap": 2.0**19, "blocks": 1024.0}
#: And by so much a cycle: tracing leaves about 450 bytes and 25 to 50 pieces to the cycles after it. A cycle makes
#: hundreds of calls, so that a few bytes kept by each are more.
EACH = {"resident": 0.0, "heap": 2.0**10, "blocks": 64.0}
#: The C library's setting without which it counts freed pieces that a thread keeps as given. Read before Python starts.
EXACT = "glibc.malloc.tcache_count=0"


@dataclass
class Run:
    """What was seen: of every cycle the levels, without what the work apart had raised them by; of that, each call."""

    cycles: list[Levels] = field(default_factory=list)
    apart: dict[str, list[Memory]] = field(default_factory=dict)

    def judged(self) -> list[Verdict]:
        """Of every quantity, after the warm-up."""
        judged = self.cycles[int(len(self.cycles) * WARM_UP) :]
        return verdicts(judged, {name: limit + EACH[name] * (len(judged) - 1) for name, limit in LIMITS.items()})


def cycles(every: dict[str, Work], apart: dict[str, Work], seconds: float) -> Iterator[Run]:
    """Works until the time has passed, and `LEAST` cycles; yields the same object after each cycle."""
    torch.manual_seed(0)
    draw, end = random.Random(0), time.monotonic() + seconds
    found, raised, before = Run(apart={name: [] for name in apart}), Memory(), None

    def once(draw: random.Random) -> None:
        for name in draw.sample(sorted(every), len(every)):
            every[name](draw)

    try:
        for cycle in itertools.count():
            once(draw if cycle else Largest())
            if cycle % APART == 0:
                at_first = here()
                for name, work in apart.items():
                    start = here()
                    work(draw)
                    found.apart[name].append(here() - start)
                once(draw)  # what of PyTorch's they made invalid comes again
                kept = here() - at_first
                # Its pages come and go at other times: a call that ends may give back those of a call before.
                raised += replace(kept, resident=kept.heap)
            before = settled(before)
            found.cycles.append(before.without(raised))
            if cycle == 0:
                gc.freeze()  # PyTorch's own million objects, which every collection would visit
            yield found
            if time.monotonic() > end and len(found.cycles) >= LEAST:
                return
    finally:
        gc.unfreeze()  # or their libraries complain, at the end of the process, of objects that were never freed


def table(found: Run) -> str:
    """The work apart, and the verdicts, in words and Markdown."""
    judged = found.judged()
    count = len(found.cycles) - int(len(found.cycles) * WARM_UP)
    lines = ["Apart, by call, after the first:", ""]
    lines += ["| work | calls | KiB of heap | blocks |", "| --- | --- | --- | --- |"]
    for name, calls in found.apart.items():
        later = calls[1:]
        if later:
            heap, blocks = (sum(getattr(call, what) for call in later) / len(later) for what in ("heap", "blocks"))
            lines.append(f"| {name} | {len(later)} | {heap / 1024:.1f} | {blocks:.0f} |")
    lines += [
        "",
        f"{len(found.cycles)} cycles, of which the last {count} are judged:",
        "",
        "| level | first | last | least | most | rose by | limit | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for verdict in judged:
        values = [verdict.first, verdict.last, verdict.least, verdict.most, verdict.grown]
        values += [] if verdict.limit is None else [verdict.limit]
        in_mib = verdict.quantity in ("resident", "heap")
        shown = [f"{value / 2**20:.3f} MiB" if in_mib else f"{value:.0f}" for value in values]
        shown += ["stays the same"] if verdict.limit is None else []
        lines.append(f"| {verdict.quantity} | {' | '.join(shown)} | {'level' if verdict.level else 'ROSE'} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default 60)")
    parser.add_argument("--out", type=Path, help="file for the levels of every cycle, as JSON")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found = Run()
    for found in cycles(works(), works_of_torch(), 60 * given.minutes):
        if given.out is not None and len(found.cycles) % 50 == 0:
            given.out.write_text(json.dumps(asdict(found)))
    if given.out is not None:
        given.out.write_text(json.dumps(asdict(found)))
    print(table(found))
    return 0 if all(verdict.level for verdict in found.judged()) else 1


if __name__ == "__main__":
    if EXACT not in os.environ.get("GLIBC_TUNABLES", ""):
        os.environ["GLIBC_TUNABLES"] = EXACT
        os.execv(sys.executable, [sys.executable, "-m", "vfrnn_bench.endurance", *sys.argv[1:]])
    sys.exit(main())
