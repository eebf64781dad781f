"""Calls of `vfrnn` with odd options, in the process: it ends with 0, or with a message and no traceback."""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.oracle import Fault, template, told
from vfrnn.cli import main, subcommands

#: Right values that keep a run short; other options get odd values only.
SHORT = {
    "train": "--task copying --delay 2 --epochs 1 --steps-per-epoch 1 --hidden-size 4 --batch-size 2 --out out --quiet",
    "inspect": "nothing",
    "bench": "--workload none --out out",
    "profile": "--workload none --out out",
    "warmup": "--hidden-size 4 --ops skew_expm",
    "doctor": "--help",
}
ODD = (
    "", "0", "1", "2", "3", "-1", "1.5", "nan", "inf", "1e400", "1e-400", "9" * 30, "True", "None", "x", " ", "é",
    "\udcff", "cpu", "cuda", "meta", "/", "/dev/null", ".", "missing/file", "out", "a" * 300, "a\nb", "--", "-h",
    "digits", "vfrnn",     "reference", "0x10", "1_0", "+1", "4", "9", "R1", "(", "tanh", "zero", "grid", "random",
)  # fmt: skip
#: Options whose odd values would be right and long.
NEVER = {"--suite", "--task", "--workload", "--help"}
#: Options of which a huge value is right, and never ends.
ENDLESS = {"--epochs", "--steps-per-epoch"}


@functools.cache
def options(command: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The options of a subcommand and their choices."""
    parser = argparse.ArgumentParser()
    next(entry for entry in subcommands() if entry.name == command).load()(parser.add_subparsers(dest="command"))
    of_command = parser._subparsers._group_actions[0].choices[command]  # type: ignore[union-attr]
    found = [(a.option_strings[-1], tuple(map(str, a.choices or ()))) for a in of_command._actions if a.option_strings]
    return tuple((name, choices) for name, choices in found if name not in NEVER)


@st.composite
def calls(draw: Callable[..., Any], name: str) -> str:
    """Calls `command(...)`, as Python source."""
    arguments = SHORT[name].split()
    known = options(name)
    for _ in range(draw(st.sampled_from((0, 1, 1, 2, 2, 3)))):
        if not known:
            break
        option, choices = draw(st.sampled_from(known))
        arguments.append(option)
        for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2)))):
            arguments.append(draw(st.sampled_from((*ODD, *choices))))
        if option in ENDLESS and arguments[-1] == "9" * 30:
            arguments.pop()
    if draw(st.integers(0, 5)) == 0:
        arguments.append(draw(st.sampled_from((*ODD, "--unknown", "--epoch", "--task"))))
    return f"command({[name, *arguments]!r})"


def command(arguments: Sequence[str]) -> str:
    """The outcome of `vfrnn` with these arguments, in an empty folder.

    Raises:
        Fault: it ended with a traceback, or with a failure and no message.
    """
    out, errors, before = io.StringIO(), io.StringIO(), os.getcwd()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
                code: Any = main(list(arguments))
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            raise Fault(f"vfrnn {arguments[0]} {type(error).__name__}: {template(str(error))}", told(error)) from error
        finally:
            os.chdir(before)
            for path in Path(folder).rglob("*"):
                path.chmod(0o700)
    said = errors.getvalue().strip()
    if code in (0, None):
        return "done"
    if not said:
        raise Fault(f"vfrnn {arguments[0]} says nothing", f"exit code {code} without a message")
    return f"exit code {code}: {template(said.splitlines()[-1])}"
