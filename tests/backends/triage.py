"""`python -m tests.backends.triage OUT --seconds S`: which kernels are right on this machine's GPU, a line for each.

For the first minutes on a new device: values of every op, route and dtype first, then gradients, then what a user would
try beside them. Checks run in several processes; one that breaks the device or does not return costs its own line, and
its process is begun again behind it. Lines go to the terminal and to OUT/triage.txt as they are known, failures to
OUT/failures.txt too: which check, and the first entry that is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from tests.backends.gpu_cases import (
    BACKENDS,
    CASES,
    DEVICE,
    GPU,
    LOW,
    assert_right,
    everything,
    recurrence_case,
    small_case,
)

#: A check that takes longer does not return: the first of a process may load libraries and compile.
LONGEST_SECONDS = 45.0
LATE = "did not return in"
#: Of a recurrence, by route: n for each number of blocks in a cluster and each way to hold M.
ROUTES = {"cta": (33, 64, 128, 190, 256), "cluster": (257, 320, 512, 768, 1000), "steps": (33, 513)}


class Check(NamedTuple):
    """What is looked at: the whole of it, so that a worker can be told by name."""

    backend: str
    op: str
    n: int
    route: str
    dtype: str
    what: str

    @property
    def name(self) -> str:
        route = f" route {self.route}" if self.route else ""
        return f"{self.what}: {self.backend} {self.op}{route} {self.dtype} n {self.n}"


def checks() -> list[Check]:
    """All of them, the most telling first."""
    return [
        Check(*where, what)
        for what in ("values", "gradients", "the same bits")
        for where in places()
        if what != "the same bits" or where[4] in ("float32", "bfloat16")
    ]


def places() -> Iterator[tuple[str, str, int, str, str]]:
    """Backend, op, n, route and dtype."""
    dtypes = [str(dtype).removeprefix("torch.") for dtype in (torch.float32, *LOW)]
    sizes = (17, 64, 190) if GPU else (17,)
    for backend in BACKENDS:
        if backend == "cuda":
            for route, every in ROUTES.items():
                yield from (
                    (backend, "recurrence", n, route, dtype)
                    for n, dtype in itertools.product(every if GPU else every[:1], dtypes)
                    if serves(route, n, dtype)
                )
        else:
            yield from ((backend, "recurrence", n, "", dtype) for n in sizes for dtype in dtypes)
        yield from ((backend, op, n, "", "float32") for n in sizes for op in CASES if op != "recurrence")


def serves(route: str, n: int, dtype: str) -> bool:
    """Whether the route has a kernel of that size."""
    wide = dtype == "float32"
    return {"cta": n <= (192 if wide else 256), "cluster": n <= (768 if wide else 1024)}.get(route, True)


def run(check: Check) -> None:
    """Raises where something is wrong."""
    torch.manual_seed(0)
    if check.op == "recurrence":
        # more than 8 steps: those of the route "steps" are then recorded in graphs
        sizes = {"T": 10, "B": 19} if GPU else {"T": 2, "B": 3}
        case = recurrence_case(check.n, getattr(torch, check.dtype), **sizes)
    else:
        case = CASES[check.op](check.n) if GPU else small_case(check.op, check.n)
    if check.what == "the same bits":
        first, second = (everything(case, check.backend) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)), "two runs differ"
    else:
        assert_right(case, check.backend, values_alone=check.what == "values")
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


# ---- processes -------------------------------------------------------------------------------------------------------


def worker() -> None:
    """Numbers of checks on stdin, a line for each on stdout; ends where the device no longer answers."""
    every = checks()
    for line in sys.stdin:
        check = every[int(line)]
        os.environ["VFRNN_RECURRENCE_ROUTE"] = check.route
        try:
            run(check)
            verdict = "ok"
        except Exception as error:
            verdict = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(verdict, flush=True)
        if verdict != "ok" and not answers():
            return


def answers() -> bool:
    """Whether the device still works in this process."""
    try:
        return float(torch.ones(1, device=DEVICE).sum()) == 1
    except RuntimeError:
        return False


class Worker:
    """A process of checks, begun again where one ends it."""

    #: Reads numbers of checks and writes verdicts.
    command = (sys.executable, "-m", "tests.backends.triage", "--worker")

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process: subprocess.Popen[str] | None = None

    def judge(self, number: int, seconds: float) -> str:
        """What became of a check: "ok" or one line."""
        if self.process is None or self.process.poll() is not None:
            self.close()
            with self.log.open("a") as log:
                self.process = subprocess.Popen(self.command, stdin=-1, stdout=-1, stderr=log, text=True)
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            verdict = process.stdout.readline().strip()
        except BrokenPipeError:
            verdict = ""
        timer.cancel()
        if not verdict:
            code = self.close()
            return f"{LATE} {seconds:.0f} s" if late.is_set() else f"ended its process with code {code}"
        return verdict

    def close(self) -> int | None:
        """Ends the process; its exit code."""
        process, self.process = self.process, None
        if process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1.0)  # it may be about to end by itself
        process.kill()
        process.communicate()
        return process.returncode


def triage(out: Path, seconds: float, workers: int, say: Callable[[str], None]) -> int:
    """Every check that there is time for; how many failed."""
    start, every = time.monotonic(), checks()
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(every)):
        waiting.put(number)
    done = failed = 0
    lock = threading.Lock()
    with (out / "triage.txt").open("w") as lines, (out / "failures.txt").open("w") as failures:

        def go_on(one: Worker) -> None:
            nonlocal done, failed
            while (left := seconds - (time.monotonic() - start)) > 0:
                try:
                    number = waiting.get_nowait()
                except queue.Empty:
                    break
                verdict = one.judge(number, min(LONGEST_SECONDS, left))
                if verdict.startswith(LATE) and left < LONGEST_SECONDS:
                    break  # the time was too short, which says nothing about the kernel
                line = f"{every[number].name}: {verdict}"
                with lock:
                    done += 1
                    failed += verdict != "ok"
                    print(line, file=lines, flush=True)
                    if verdict != "ok":
                        print(line, file=failures, flush=True)
                        say(f"FAILED {line}")
            one.close()

        threads = [threading.Thread(target=go_on, args=(Worker(out / "triage.log"),)) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    spent = time.monotonic() - start
    say(f"triage: {done - failed} of {len(every)} right, {failed} wrong, {len(every) - done} not tried, {spent:.0f} s")
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker:
        worker()
        return 0
    if arguments.out is None:
        parser.error("OUT is needed")
    arguments.out.mkdir(parents=True, exist_ok=True)
    return int(triage(arguments.out, arguments.seconds, arguments.workers, lambda line: print(line, flush=True)) > 0)


if __name__ == "__main__":
    sys.exit(main())
