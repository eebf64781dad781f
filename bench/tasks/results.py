"""What the runs of a learning benchmark come to: one JSON per benchmark, over its seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vfrnn_bench.tasks.benchmarks import Benchmark

from vfrnn.tasks.training import LAST_EPOCHS

Json = dict[str, Any]


def summarize(benchmark: Benchmark, logs: Sequence[Json]) -> Json:
    """Of the logs (`log.json` of `vfrnn train`) of a benchmark's seeds.

    `mean`, `lowest`, `highest`: over seeds, of the test metric averaged over the last epochs; `step_ms`: the median
    over seeds.
    """
    first = logs[0]
    models = []
    for row in first["summary"]:
        curves = [[epoch["test"] for epoch in log["epochs"][row["model"]]] for log in logs]
        last = [statistics.fmean(curve[-LAST_EPOCHS:]) for curve in curves]
        steps = [next(r["step_ms"] for r in log["summary"] if r["model"] == row["model"]) for log in logs]
        models.append(
            {
                "model": row["model"],
                "title": row["title"],
                "parameters": row["parameters"],
                "mean": statistics.fmean(last),
                "lowest": min(last),
                "highest": max(last),
                "step_ms": statistics.median(steps),
                "test_by_seed": curves,
                "divergence_scale_by_seed": [
                    next(r["divergence_scale"] for r in log["summary"] if r["model"] == row["model"]) for log in logs
                ],
            }
        )
    return {
        "name": benchmark.name,
        "what": benchmark.what,
        "published": list(benchmark.published),
        "metric": first["metric"],
        "baseline": first["baseline"],
        "seeds": [log["options"]["seed"] for log in logs],
        "options": {name: value for name, value in first["options"].items() if name != "seed"},
        "versions": first["versions"],
        "threads": first["threads"],
        "models": models,
    }


def load_tasks(folder: Path) -> list[Json]:
    """The summaries in `folder`, by name.

    Raises:
        OSError: there is no such folder.
    """
    return [json.loads(path.read_text()) for path in sorted(folder.iterdir()) if path.suffix == ".json"]
