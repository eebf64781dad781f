"""What this process holds: memory, descriptors, threads, children; and whether that rises over cycles of equal work.

Linux with glibc only.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

#: Seconds that a thread or a child of the cycle before has for its end.
PATIENCE = 5.0


@dataclass(frozen=True)
class Levels:
    """What the process holds at one moment.

    Attributes:
        resident: Memory with pages, in bytes: of everything, with what allocators keep and code that ran once.
        heap: What malloc has given and not got back, in bytes: tensors, what native code holds, large Python objects.
        blocks: What Python's allocator has given and not got back, in pieces of at most 512 bytes.
        descriptors, threads, children: How many are open, run, or wait to be reaped.
    """

    resident: float
    heap: float
    blocks: float
    descriptors: int
    threads: int
    children: int

    def __sub__(self, other: Levels | Memory) -> Memory:
        return Memory(**{name: getattr(self, name) - getattr(other, name) for name in MEMORY})

    def without(self, memory: Memory) -> Levels:
        """The same with so much less memory."""
        return replace(self, **vars(self - memory))


@dataclass
class Memory:
    """A difference of the three levels of memory, as in `Levels`."""

    resident: float = 0.0
    heap: float = 0.0
    blocks: float = 0.0

    def __add__(self, other: Memory) -> Memory:
        return Memory(**{name: getattr(self, name) + getattr(other, name) for name in MEMORY})


MEMORY = ("resident", "heap", "blocks")
COUNTS = ("descriptors", "threads", "children")


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")),
    ]


def resident() -> float:
    """Memory of this process, in MiB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def heap() -> float:
    """Bytes that malloc has given to this process and not got back.

    Raises:
        OSError: The C library is not glibc 2.33 or newer.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        raise OSError("the bytes in malloc's hands are told by glibc >= 2.33, which this process does not have")
    library.mallinfo2.restype = _Mallinfo2
    found = library.mallinfo2()
    return float(found.uordblks + found.hblkhd)


def here() -> Levels:
    """The levels now, after a garbage collection."""
    gc.collect()
    tasks = list(Path("/proc/self/task").iterdir())
    children = [child for task in tasks for child in _children(task)]
    # The folder that is being listed is a descriptor of its own.
    descriptors = len(os.listdir("/proc/self/fd")) - 1
    return Levels(resident() * 2**20, heap(), sys.getallocatedblocks(), descriptors, len(tasks), len(children))


def _children(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except FileNotFoundError:  # the thread has just ended
        return []


def settled(before: Levels | None) -> Levels:
    """The levels now, once there are no more descriptors, threads and children than before: ends take a moment."""
    end = time.monotonic() + PATIENCE
    while True:
        now = here()
        if before is None or time.monotonic() > end or all(getattr(now, c) <= getattr(before, c) for c in COUNTS):
            return now
        time.sleep(0.05)


def slope(values: Sequence[float]) -> float:
    """The median of the slopes between all pairs of values (Theil and Sen): a few outliers do not move it."""
    pairs = itertools.combinations(range(len(values)), 2)
    return statistics.median((values[later] - values[earlier]) / (later - earlier) for earlier, later in pairs)


@dataclass(frozen=True)
class Verdict:
    """One quantity over all cycles.

    Attributes:
        first, last, least, most: Of its values.
        grown: What it rose by from the first to the last cycle, along the line of `slope`.
        limit: The most that `grown` may be; None where every value must be the first one.
    """

    quantity: str
    first: float
    last: float
    least: float
    most: float
    grown: float
    limit: float | None

    @property
    def level(self) -> bool:
        return self.least == self.most if self.limit is None else self.grown <= self.limit


def verdicts(samples: Sequence[Levels], limits: dict[str, float]) -> list[Verdict]:
    """Of every quantity; what `limits` does not name must stay exactly where it is.

    Raises:
        ValueError: There are fewer than 3 samples.
    """
    if len(samples) < 3:
        raise ValueError(f"at least 3 samples are needed to tell a slope, got {len(samples)}")
    found = []
    for quantity in (field.name for field in fields(Levels)):
        values = [getattr(sample, quantity) for sample in samples]
        grown = slope(values) * (len(values) - 1)
        limit = limits.get(quantity)
        found.append(Verdict(quantity, values[0], values[-1], min(values), max(values), grown, limit))
    return found
