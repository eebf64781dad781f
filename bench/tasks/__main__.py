"""`python -m vfrnn_bench.tasks NAME ...`: train every model of a learning benchmark by the protocol; print its table.

Writes the summary, NAME.json, and the picture of the test metric over seconds, NAME.svg.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from vfrnn_bench.tasks.archive import archive_folder
from vfrnn_bench.tasks.benchmarks import BENCHMARKS, Benchmark
from vfrnn_bench.tasks.protocol import Runs, missing
from vfrnn_bench.tasks.results import Json, summarize, table

from vfrnn.files import write_file


def summary(benchmark: Benchmark, runs: Runs, seeds: int) -> Json:
    """Every model that can be trained, by the protocol.

    Raises:
        RuntimeError: none can be.
    """
    absent, trained = dict(benchmark.absent), []
    for model in benchmark.models:
        reason = missing(model)
        one = None if reason else runs.model(model, seeds)
        if one is None:
            absent[model] = reason or "diverged at every setting of the grid"
        else:
            trained.append(one)
    if not trained:
        raise RuntimeError(f"{benchmark.name}: no model was trained: {absent}")
    return summarize(benchmark, trained, runs.timing(trained), absent)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m vfrnn_bench.tasks", description=__doc__)
    parser.add_argument("name", nargs="+", choices=sorted(BENCHMARKS))
    parser.add_argument("--seeds", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--runs", type=Path, default=Path("runs/tasks"), help="folder of the runs, to be resumed")
    parser.add_argument("--out", type=Path, default=Path("runs/tasks"), help="folder of NAME.json and NAME.svg")
    parser.add_argument("--data", type=Path, metavar="DIR", help="mnist: folder of the four IDX files of the full set")
    arguments = parser.parse_args()
    try:
        from vfrnn_bench import drawing, figures
    except ImportError as error:
        raise RuntimeError(f"{error}: pip install 'vfrnn-kernels[bench]'") from error

    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.name:
        benchmark = BENCHMARKS[name]
        try:
            data = arguments.data if benchmark.archive is None else archive_folder(benchmark.archive)
            found = summary(benchmark, Runs(benchmark, arguments.runs / name, data), arguments.seeds)
            write_file(arguments.out / f"{name}.json", json.dumps(found, indent=1) + "\n")
            figure = drawing.styled(lambda found=found: figures.learning_over_time(found))
            write_file(arguments.out / f"{name}.svg", drawing.svg_file(figure, name))
        except (RuntimeError, OSError, FloatingPointError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
