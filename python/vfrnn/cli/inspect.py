"""`vfrnn inspect`: what a trained network does to its state, as a table, pictures and one page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "inspect",
        help="show what a trained network does to its state",
        description="Rotations, memory, divergence and gradients over the lag of a run of vfrnn train, the field where "
        "its mesh is a grid, and predicted beside true frames: a table, PNGs and one HTML page. For a model of your "
        "own: vfrnn.inspect(module) in Python.",
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="folder of a run, or its checkpoint file")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of page and pictures (inspect-MODEL in the run)"
    )
    parser.add_argument("--model", metavar="NAME", help="of the run's models (the first that has a layer of vfrnn)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Inspect, print the table and name the page; returns the exit code."""
    from vfrnn.tasks.inspection import inspect_trainee, inspected_trainee, load_run, page_folder

    training, folder = load_run(arguments.path)
    trainee = inspected_trainee(training, arguments.model)
    found = inspect_trainee(training, trainee, arguments.out or page_folder(folder, trainee))
    print(found.inspection)
    print(f"page: {found.page}")
    return 0
