"""The command line `vfrnn`: one module per subcommand, each with `add_parser` and `run`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import vfrnn
from vfrnn.cli import bench, doctor, profile, train, warmup


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="vfrnn", description="Vector-field recurrent networks.")
    parser.add_argument("--version", action="version", version=f"vfrnn {vfrnn.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (train, bench, profile, doctor, warmup):
        command.add_parser(commands)
    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments)
    except (RuntimeError, OSError, FloatingPointError) as error:
        print(f"vfrnn {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"vfrnn {arguments.command}: interrupted", file=sys.stderr)
        return 130
