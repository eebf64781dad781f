"""`python -m tests.fuzz --minutes 10`: calls of everything public with odd arguments, in processes that are watched.

Every call ends with the values of the reference or with a clear exception; or it is told, as small as Hypothesis finds
it and ready to be pasted behind `python -m tests.fuzz --call`, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Seconds of a call after which it hangs; a sanitizer's and the command line's are slower.
PATIENCE = 30.0
#: Crashes and hangs of a target after which it is left alone.
ENOUGH = 3


@dataclass
class Watched:
    """A worker, the call it makes and since when."""

    folder: Path
    process: subprocess.Popen[bytes]
    call: str = ""
    since: float = field(default_factory=time.monotonic)
    said: int = 0

    def look(self) -> None:
        """Reads which call is in progress."""
        with contextlib.suppress(FileNotFoundError):
            call = (self.folder / "call").read_text(encoding="utf-8", errors="surrogateescape")
            if call != self.call:
                self.call, self.since = call, time.monotonic()

    def errors(self) -> str:
        return (self.folder / "errors").read_text(errors="replace")


class Campaign:
    """Workers until the time is over, and what they found."""

    def __init__(self, folder: Path, seed: int, seconds: float, targets: list[str]) -> None:
        self.folder, self.seed, self.targets = folder, seed, targets
        self.end, self.started = time.monotonic() + seconds, 0
        self.counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.seconds: collections.Counter[str] = collections.Counter()
        self.faults: dict[str, dict[str, str]] = {}
        self.killed: collections.Counter[str] = collections.Counter()

    def start(self) -> Watched:
        """A worker with a seed of its own."""
        folder = self.folder / str(self.started)
        folder.mkdir()
        self.started += 1
        left = [target for target in self.targets if self.killed[target] < ENOUGH]
        seconds, seed = max(0.0, self.end - time.monotonic()), self.seed + 1_000_000 * self.started
        turn = len(left) * (self.started % 2) // 2  # two workers begin at different targets
        command = [sys.executable, "-m", "tests.fuzz.worker", str(folder), str(seed), str(seconds)]
        environment = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", **os.environ}
        with open(folder / "errors", "wb") as errors, open(folder / "said", "wb") as said:
            process = subprocess.Popen(
                [*command, *left[turn:], *left[:turn]],
                stdout=said,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        return Watched(folder, process)

    def run(self, workers: int) -> None:
        """Until the time is over."""
        watched = [self.start() for _ in range(workers)]
        while watched:
            time.sleep(0.2)
            for one in list(watched):
                one.look()
                code = one.process.poll()
                if code is None and time.monotonic() - one.since > PATIENCE:
                    one.process.send_signal(signal.SIGABRT)  # faulthandler tells where it is
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        one.process.wait(10)
                    one.process.kill()
                    code = one.process.wait()
                    self._lost(one, "hang")
                elif code is not None and code != 0:
                    one.look()
                    self._lost(one, f"crash ({code})")
                if code is not None:
                    watched.remove(one)
                    self._read(one.folder / "outcomes")
                    if code != 0 and time.monotonic() < self.end:
                        watched.append(self.start())

    def _lost(self, one: Watched, how: str) -> None:
        call = one.call.partition("\n")[2].strip()
        target = next((t for t in self.targets if f"'{t}'" in call or call.startswith(f"command(['{t[6:]}'")), "")
        self.killed[target] += 1
        self.faults.setdefault(
            f"{target} {how}", {"key": f"{target} {how}", "call": call, "told": one.errors()[-6000:]}
        )

    def _read(self, outcomes: Path) -> None:
        if not outcomes.exists():
            return
        for line in outcomes.read_text().splitlines():
            told: dict[str, Any] = json.loads(line)
            if "fault" in told:
                old = self.faults.get(told["fault"]["key"])
                if old is None or len(told["fault"]["call"]) < len(old["call"]):
                    self.faults[told["fault"]["key"]] = told["fault"]
            else:
                self.counts[told["target"]].update(told["counts"])
                self.seconds[told["target"]] += told["seconds"]

    def table(self) -> str:
        """Calls and distinct outcomes by target."""
        width = max(map(len, self.counts), default=0)
        lines = [f"{'':<{width}}  {'calls':>8}  {'values':>8}  {'outcomes':>8}  {'seconds':>8}"]
        for name, counts in self.counts.items():
            right = sum(count for outcome, count in counts.items() if outcome.startswith(("value", "not finite")))
            lines.append(
                f"{name:<{width}}  {counts.total():>8}  {right:>8}  {len(counts):>8}  {self.seconds[name]:>8.1f}"
            )
        calls = sum(counts.total() for counts in self.counts.values())
        outcomes = sum(map(len, self.counts.values()))
        return "\n".join([*lines, f"{calls} calls, {outcomes} distinct outcomes, {len(self.faults)} kinds of faults"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the time if not given; it is printed")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--call", metavar="SOURCE", help="makes this one call, here, and prints its outcome")
    parser.add_argument("--outcomes", type=Path, metavar="FILE", help="writes every outcome and its count, JSON")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="what is called, such as recurrence or VFRNN; all")
    arguments = parser.parse_args()
    from tests.fuzz.oracle import Fault
    from tests.fuzz.targets import TARGETS, run

    if arguments.call is not None:
        try:
            print(run(arguments.call))
        except Fault as fault:
            print(f"FAULT {fault.key}\n{fault}")
            return 1
        return 0
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"TARGET must be one of {', '.join(TARGETS)}, got {', '.join(sorted(unknown))}")
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), arguments.seed, 60 * arguments.minutes, arguments.targets or list(TARGETS))
        campaign.run(arguments.workers)
    for fault in campaign.faults.values():
        print(f"\nFAULT {fault['key']}\n{fault['told']}\npython -m tests.fuzz --call {json.dumps(fault['call'])}")
    print(campaign.table())
    if arguments.outcomes:
        arguments.outcomes.write_text(json.dumps(campaign.counts, indent=1) + "\n")
    return 1 if campaign.faults or not campaign.counts else 0


if __name__ == "__main__":
    sys.exit(main())
