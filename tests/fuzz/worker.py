"""A process that makes calls, and writes down each before it makes it, so that a crash or a hang is seen with the call
that caused it. `python -m tests.fuzz.worker FOLDER SEED SECONDS [TARGET...]`, started by `python -m tests.fuzz`."""

from __future__ import annotations

import collections
import contextlib
import faulthandler
import json
import os
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.oracle import Fault, told
from tests.fuzz.targets import SHARES, TARGETS, run

#: Calls of a target in a row, times its share.
IN_A_ROW = 20
#: Memory beyond what the process has at its start; a sanitizer's shadow is larger than any limit.
MEMORY = 3 << 30


class Journal:
    """The call in progress, in the file `call`; and in `outcomes` faults and, by target, counts."""

    def __init__(self, folder: Path) -> None:
        self.call = os.open(folder / "call", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.outcomes = folder / "outcomes"
        self.count = 0

    def begin(self, call: str) -> None:
        self.count += 1
        text = f"{self.count}\n{call}\n".encode("utf-8", "surrogateescape")
        os.pwrite(self.call, text, 0)
        os.ftruncate(self.call, len(text))

    def tell(self, **told: Any) -> None:
        with self.outcomes.open("a") as file:
            print(json.dumps(told), file=file)


def explore(target: str, number: int, calls: int, journal: Journal, known: set[str]) -> None:
    """Makes calls of a target. The first of every kind of fault is shrunk and told."""
    counts: collections.Counter[str] = collections.Counter()
    begin, first, shrunk = time.monotonic(), "", ""

    @seed(number)
    @settings(
        max_examples=calls, database=None, deadline=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck), print_blob=False, report_multiple_bugs=False,
    )  # fmt: skip
    @given(TARGETS[target]())
    def make(call: str) -> None:
        nonlocal first, shrunk
        journal.begin(call)
        try:
            outcome, fault = run(call), None
        except Fault as error:
            outcome, fault = f"FAULT {error.key}", error
        except Exception as error:  # this harness's own, which is no better
            fault = Fault(f"{target} in the harness: {type(error).__name__}", told(error))
            outcome = f"FAULT {fault.key}"
        counts[outcome] += 1
        if fault is not None and fault.key not in known and first in ("", fault.key):
            first, shrunk = fault.key, json.dumps({"key": fault.key, "call": call, "told": str(fault)})
            raise fault

    with contextlib.suppress(Fault):
        make()
    if first:
        known.add(first)
        journal.tell(fault=json.loads(shrunk))
    journal.tell(target=target, counts=counts, seconds=time.monotonic() - begin)


def main(folder: str, number: str, seconds: str, *targets: str) -> None:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)  # torch.empty is full of NaN
    if "asan" not in os.environ.get("LD_PRELOAD", ""):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    journal, known, end = Journal(Path(folder)), set[str](), time.monotonic() + float(seconds)
    while True:
        for target in targets or TARGETS:
            if time.monotonic() > end:
                return
            number = str(int(number) + 1)
            explore(target, int(number), IN_A_ROW * SHARES.get(target, 1), journal, known)


if __name__ == "__main__":
    main(*sys.argv[1:])
