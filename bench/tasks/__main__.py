"""`python -m vfrnn_bench.tasks NAME ...`: train every model of a learning benchmark with several seeds."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from vfrnn_bench.tasks.benchmarks import BENCHMARKS, Benchmark
from vfrnn_bench.tasks.results import summarize

from vfrnn.cli import main as vfrnn
from vfrnn.tasks.report import LOG
from vfrnn.tasks.training import CHECKPOINT


def train(benchmark: Benchmark, seed: int, folder: Path, data: Path | None) -> int:
    """One seed, or the rest of it where it was interrupted; the exit code."""
    if (folder / LOG).exists():
        return 0
    if (folder / CHECKPOINT).exists():
        return vfrnn(["train", "--resume", str(folder)])
    arguments = [
        "train",
        "--task",
        benchmark.task,
        "--model",
        *benchmark.models,
        "--seed",
        str(seed),
        "--out",
        str(folder),
    ]
    for name, value in benchmark.train.items():
        arguments += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return vfrnn(arguments + ([] if data is None else ["--data", str(data)]))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m vfrnn_bench.tasks", description=__doc__)
    parser.add_argument("name", nargs="+", choices=sorted(BENCHMARKS))
    parser.add_argument("--seeds", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--runs", type=Path, default=Path("runs/tasks"), help="folder of the runs, to be resumed")
    parser.add_argument("--out", type=Path, default=Path("runs/tasks"), help="folder of the summaries, NAME.json")
    parser.add_argument("--data", type=Path, metavar="DIR", help="mnist: folder of the four IDX files of the full set")
    arguments = parser.parse_args()
    for name in arguments.name:
        benchmark, logs = BENCHMARKS[name], []
        for seed in range(arguments.seeds):
            folder = arguments.runs / f"{name}-{seed}"
            code = train(benchmark, seed, folder, arguments.data)
            if code != 0:
                return code
            logs.append(json.loads((folder / LOG).read_text()))
        arguments.out.mkdir(parents=True, exist_ok=True)
        summary = summarize(benchmark, logs)
        (arguments.out / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n")
        for model in summary["models"]:
            spread = f"{model['lowest']:.4g} to {model['highest']:.4g}"
            line = f"{summary['metric']} {model['mean']:.4g} ({spread}), {model['step_ms']:.1f} ms a step"
            print(f"{name}: {model['title']}: {line}")
        for line in benchmark.published:
            print(f"{name}: published: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
