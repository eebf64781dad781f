"""Would the GPU tests see a wrong kernel? `python -m tests.gpu_simulator.mutations [regular expression]`.

Each mutation (mutation_table.py) changes the machine code of a kernel, in a copy: a barrier gone, a wait that does not
wait, operands exchanged, an address that is off. The tests that launch the kernel then must fail: by a wrong value, a
fault or a race. They must pass on the code as it is. The exit status is the number of mutations that were missed.

Needs `make simulator`. All of it runs in one process, which reads the machine code again for each mutation.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.gpu_simulator.mutation_table import MUTATIONS, Mutation
from tests.gpu_simulator.run import BUILD, ROOT, environment

CODE = BUILD / "code/90a"


def kernels(text: str, mode: str) -> Iterator[tuple[str, int, int]]:
    """Name, start and end of each."""
    found = list(re.finditer(r"\.entry (\S+?)\(" if mode == "ptx" else r"\.section\t\.text\.([^,]+),", text))
    for k, match in enumerate(found):
        if mode == "ptx":
            end = found[k + 1].start() if k + 1 < len(found) else len(text)
        else:
            end = text.find("\t.section\t", match.end())
        yield match[1], match.end(), end if end >= 0 else len(text)


def mutated(text: str, mutation: Mutation) -> str:
    """With the change, in every kernel that it names."""
    changed = 0
    for name, start, end in reversed(list(kernels(text, mutation.mode))):
        if re.search(mutation.kernel, name) is None:
            continue
        body = text[start:end]
        matches = list(re.finditer(mutation.pattern, body))
        if mutation.which is not None:
            matches = matches[mutation.which : mutation.which + 1]
        for match in reversed(matches):
            body = body[: match.start()] + match.expand(mutation.replacement) + body[match.end() :]
        changed += len(matches)
        text = text[:start] + body + text[end:]
    if changed == 0:
        raise SystemExit(f"{mutation}: nothing to change in {mutation.file}, kernel {mutation.kernel}")
    return text


class FirstFailure:
    """A plugin of pytest: what the first test that failed said, in a few words."""

    message = ""

    def pytest_runtest_logreport(self, report):
        if report.failed and not self.message:
            lines = [line for line in str(report.longreprtext).splitlines() if line.startswith("E ")]
            self.message = " ".join(" ".join(lines[:1]).split())[2:110]


def run_tests(tests: tuple[str, ...]) -> str | None:
    """None if they pass, else what failed."""
    import pytest

    first = FirstFailure()
    options = ["-q", "-x", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist"]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        status = pytest.main([*options, *tests], plugins=[first])
    if status not in (0, 1):
        raise SystemExit(f"{tests}: no test ran\n{output.getvalue()}")
    return None if status == 0 else first.message or "failed"


def run_all(wanted: str) -> int:
    """In a process that simulates."""
    import torch

    import vfrnn_kernels  # noqa: F401 loads the simulator

    passed, missed = set(), 0
    with tempfile.TemporaryDirectory() as folder:
        for mutation in MUTATIONS:
            if re.search(wanted, str(mutation)) is None:
                continue
            start = time.monotonic()
            os.environ["VFRNN_SIMULATOR_SASS"] = "1" if mutation.mode == "sass" else "0"
            if (mutation.mode, mutation.tests) not in passed:
                os.environ["VFRNN_SIMULATOR_CODE"] = str(CODE)
                torch.ops.vfrnn_simulator.forget_code()
                wrong = run_tests(mutation.tests)
                if wrong is not None:
                    raise SystemExit(f"{mutation.tests} fail on the code as it is ({mutation.mode}): {wrong}")
                passed.add((mutation.mode, mutation.tests))
            for file in CODE.iterdir():
                link = Path(folder) / file.name
                link.unlink(missing_ok=True)
                link.symlink_to(file)
            target = Path(folder) / f"{mutation.file}.{mutation.mode}"
            target.unlink()
            target.write_text(mutated((CODE / target.name).read_text(), mutation))
            os.environ["VFRNN_SIMULATOR_CODE"] = folder
            torch.ops.vfrnn_simulator.forget_code()
            wrong = run_tests(mutation.tests)
            missed += wrong is None
            verdict = "NOT CAUGHT" if wrong is None else f"caught: {wrong}"
            print(f"{mutation} | {verdict} | {time.monotonic() - start:.0f} s", flush=True)
    print(f"{missed} not caught")
    return missed


def main() -> int:
    if sys.argv[1:2] == ["--inside"]:
        return run_all(sys.argv[2])
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    command = [sys.executable, "-m", "tests.gpu_simulator.mutations", "--inside", wanted]
    return subprocess.run(command, env=environment(race=1), cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
