"""The command line `vfrnn`. A subcommand is an entry point of the group `vfrnn.commands`: a function that registers its
parser, whose `run` is called with the arguments."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

import vfrnn

GROUP = "vfrnn.commands"
#: Missing where the package runs from sources that were never installed.
NOT_INSTALLED = (
    f"no subcommand was found (entry points {GROUP!r}): the package runs from a source tree that is not "
    "installed; install it, e.g. pip install -e ."
)


def subcommands() -> list[EntryPoint]:
    """What registers the subcommands, by name."""
    return sorted(entry_points(group=GROUP), key=lambda entry: entry.name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="vfrnn", description="Vector-field recurrent networks.")
    parser.add_argument("--version", action="version", version=f"vfrnn {vfrnn.__version__}")
    found = subcommands()
    if not found:
        parser.epilog = NOT_INSTALLED
        parser.parse_known_args(argv)  # --help and --version end here
        parser.error(NOT_INSTALLED)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for entry in found:
        entry.load()(commands)
    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments)
    except BrokenPipeError:
        # Who read the output has enough, as in `vfrnn doctor | head`; what Python writes at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (RuntimeError, OSError, FloatingPointError) as error:
        print(f"vfrnn {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        told = f"; {interrupt}" if str(interrupt) else ""
        print(f"vfrnn {arguments.command}: interrupted{told}", file=sys.stderr)
        return 130
