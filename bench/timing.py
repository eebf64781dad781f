"""How times are taken: what is compared runs in turns, round by round, so that the noise of a shared machine hits ours
and the peers alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Run = Callable[[], Any]
Times = dict[str, list[float]]
#: (run, calls) -> seconds of one call, the mean over so many in a row.
Clock = Callable[[Run, int], float]

#: A short call is repeated at most so often in one sample.
MOST_CALLS = 20


def host_clock(run: Run, calls: int = 1) -> float:
    """The clock of a CPU; `vfrnn_bench.gpu.timing.clock_of` has the one of a device."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


@dataclass(frozen=True)
class Budget:
    """How long a measurement may take.

    Attributes:
        seconds: about so long altogether, within the bounds of the rounds.
        least: rounds.
        most: rounds.
        sample: seconds; shorter calls are repeated so that a sample lasts this long.
    """

    seconds: float
    least: int = 5
    most: int = 27
    sample: float = 0.0

    def calls(self, once: float) -> int:
        """In one sample, of a run that takes `once` seconds."""
        return max(1, min(MOST_CALLS, math.ceil(self.sample / max(once, 1e-9))))

    def rounds(self, one: float) -> int:
        """Of `one` second each."""
        return max(self.least, min(self.most, int(self.seconds / max(one, 1e-9))))


def interleaved(
    runs: Mapping[str, Run],
    rounds: int,
    warm_up: int = 2,
    clock: Clock = host_clock,
    calls: Mapping[str, int] | None = None,
) -> Times:
    """Seconds of each run, round by round, after the warm-up; `calls` in a row make one sample (1 by default)."""
    for run in runs.values():
        for _ in range(warm_up):
            run()
    times: Times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(clock(run, 1 if calls is None else calls[name]))
    return times


def within(budget: Budget, runs: Mapping[str, Run], clock: Clock = host_clock) -> Times:
    """Seconds of each run, in as many rounds as the budget allows."""
    once = {name: values[0] for name, values in interleaved(runs, 1, warm_up=1, clock=clock).items()}
    calls = {name: budget.calls(seconds) for name, seconds in once.items()}
    rounds = budget.rounds(sum(calls[name] * seconds for name, seconds in once.items()))
    return interleaved(runs, rounds, warm_up=1, clock=clock, calls=calls)


def ratio(times: Times, ours: str, peer: str) -> float:
    """Median over the rounds of our time over the peer's in the same round."""
    return statistics.median(a / b for a, b in zip(times[ours], times[peer], strict=True))


def spread(values: list[float]) -> float:
    """Half of the range between the quartiles, relative to the median."""
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle
