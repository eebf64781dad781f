"""An hour of mixed work in one process, in which nothing may rise: `python -m vfrnn_bench.endurance --minutes 60`.

Every cycle does all of `vfrnn_bench.mixed_work` once, in changing order; then the levels of the process are read. CPU and
Linux with glibc only. The exit code is 1 where something rose.

PyTorch keeps something of every program that it exports, of a linear layer's too. That work is done in one cycle of
`APART`; by how much each call raises memory is told apart, beside that of a module of PyTorch alone, and has a limit of its
own.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import random
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from rich.console import Console
from rich.table import Table
from vfrnn_bench.levels import Levels, Memory, Verdict, here, settled, verdicts
from vfrnn_bench.mixed_work import Work, exports, works

#: The first share of the cycles is not judged: what is loaded, compiled or kept once comes there.
WARM_UP = 0.25
#: The work that is told apart is done in one cycle of so many.
APART = 10
#: What memory may rise by over the judged cycles, along the line of `levels.slope`.
LIMITS = {"resident": 16 * 2.0**20, "heap": 32 * 2.0**10, "blocks": 300.0}
#: What a call of the work that is told apart may leave behind.
LIMITS_APART = {"heap": 192 * 2.0**10, "blocks": 4000.0}
#: A cache of freed pieces in each thread, which the C library would count as given. It is read before Python starts.
EXACT = "glibc.malloc.tcache_count=0"


@dataclass
class Run:
    """What was seen: of every cycle the levels, without what the work apart had raised them by; of that, each call."""

    cycles: list[Levels] = field(default_factory=list)
    apart: dict[str, list[Memory]] = field(default_factory=dict)

    def judged(self) -> list[Verdict]:
        return verdicts(self.cycles[int(len(self.cycles) * WARM_UP) :], LIMITS)


def cycles(every: dict[str, Work], apart: dict[str, Work], seconds: float) -> Iterator[Run]:
    """Works until the time has passed; yields the same object after each cycle."""
    torch.manual_seed(0)
    draw, end = random.Random(0), time.monotonic() + seconds
    found, raised, before = Run(apart={name: [] for name in apart}), Memory(), None
    for cycle in itertools.count():
        for name in draw.sample(sorted(every), len(every)):
            every[name](draw)
        for name in apart if cycle % APART == 0 else ():
            start = here()
            apart[name](draw)
            after, call = here(), Memory()
            call.add(start, after)
            raised.add(start, after)
            found.apart[name].append(call)
        before = settled(before)
        found.cycles.append(before.without(raised))
        if cycle == 0:
            gc.freeze()  # PyTorch's own million objects, which every collection would visit
        yield found
        if time.monotonic() > end:
            return


if __name__ == "__main__":
    if EXACT not in os.environ.get("GLIBC_TUNABLES", ""):
        os.environ["GLIBC_TUNABLES"] = EXACT
        os.execv(sys.executable, [sys.executable, "-m", "vfrnn_bench.endurance", *sys.argv[1:]])
    warnings.simplefilter("ignore")
    import logging
    logging.disable(logging.WARNING)
    t0 = time.monotonic()
    for run in cycles(works(), exports(), float(sys.argv[1])):
        s = run.cycles[-1]
        print(f"{time.monotonic()-t0:.1f}", s.resident / 2**20, s.heap, s.blocks, s.descriptors, s.threads, s.children, flush=True)
    for v in run.judged():
        print(v)
    print(run.apart)
