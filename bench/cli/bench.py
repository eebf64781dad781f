"""`vfrnn bench`: the installed package measured against everything else on this machine, as a table, JSON and HTML."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from vfrnn_bench.cli import MISSING, check_device

from vfrnn.files import write_file


def add_parser(commands: Any) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "bench",
        help="measure this installation against its peers",
        description="Every workload against every peer in turns, in one process; results are compared with float64 "
        "before anything is timed. Writes OUT/results.json and OUT/report.html.",
    )
    parser.add_argument(
        "--suite", choices=("quick", "full"), default="quick", help="quick: minutes; full: most of an hour"
    )
    parser.add_argument(
        "--workload", nargs="+", default=[], metavar="NAME", help="only workloads that start so, e.g. R1 E(64)"
    )
    parser.add_argument(
        "--provider", nargs="+", default=[], metavar="NAME", help="only peers whose name contains one of these"
    )
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder (default runs/bench)")
    parser.add_argument(
        "--tasks", type=Path, metavar="FOLDER", help="learning runs (python -m vfrnn_bench.tasks) to show too"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from vfrnn_bench import report, sentences, suite, tables
        from vfrnn_bench.runs import worst
        from vfrnn_bench.tasks.results import load_tasks
    except ImportError as error:
        raise RuntimeError(f"{error}: {MISSING}") from error

    options = suite.SuiteOptions(
        arguments.suite, arguments.device, tuple(arguments.workload), tuple(arguments.provider)
    )
    check_device(arguments.device)
    try:
        steps = suite.count_steps(options)
    except ValueError as error:
        raise RuntimeError(str(error)) from None
    tasks = load_tasks(arguments.tasks) if arguments.tasks else []
    console = Console(width=None if sys.stdout.isatty() else 140)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("measuring", total=steps)

        def heard(kind: str, row: dict[str, Any]) -> None:
            for line in tables.lines(kind, row):
                console.print(line)
            if kind != "machine":
                progress.advance(bar)

        result = suite.run(options, heard)
    console.print(tables.ratios(result))
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_file(arguments.out / "results.json", json.dumps(result, indent=1) + "\n")
    report.write([result], tasks, arguments.out / "report.html")
    told = worst([result])
    for line in (*(sentence for _, sentence in sentences.first(told)), sentences.targets(told), sentences.slower(told)):
        if line:
            console.print(line, highlight=False, markup=False)
    console.print(f"Wrote {arguments.out / 'results.json'} and {arguments.out / 'report.html'}.")
    return 0
