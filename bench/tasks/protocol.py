"""The protocol, the same for every model of a benchmark.

1. Rates: a model is trained with seed 0 at each setting of one grid, a rate times a ratio of the generators' rate to it
   (`settings`). The setting whose validation metric is best (mean of the last epochs) is chosen; the test split has no
   part in it.
2. Seeds: at that setting it is trained with the other seeds. A setting at which any seed diverges is not chosen.
3. Time: the trained models go on for a few epochs in turns in one process, so that the load of the machine hits all
   alike, and the median time of a training step counts (`Runs.timing`).

Every run is one of `vfrnn train` in a folder of its own, with log, checkpoint and picture: an interrupted one goes on
where it stopped, and a finished one is not run again.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vfrnn_bench.tasks.benchmarks import Benchmark

from vfrnn.cli.train import OWN_DATA, add_parser
from vfrnn.files import write_file
from vfrnn.tasks.models import WITH_GENERATORS
from vfrnn.tasks.report import LOG
from vfrnn.tasks.training import CHECKPOINT, LAST_EPOCHS, Training

Json = dict[str, Any]

#: Of the generators' rate to the ordinary one.
RATIOS = (1.0, 0.1)
TIMING_EPOCHS = 3
UNWATCHED = ("--quiet", "--no-page")
#: In the folder of a run that was given up: why.
DIVERGED = "diverged.txt"
TIMING = "timing.json"


@dataclass(frozen=True)
class Rates:
    """A setting of the grid; a model without generators has no rate of theirs."""

    lr: float
    generator_lr: float | None

    def __str__(self) -> str:
        return f"{self.lr:g}" if self.generator_lr is None else f"{self.lr:g} / {self.generator_lr:g}"

    @property
    def folder(self) -> str:
        return f"lr-{self.lr:g}" + ("" if self.generator_lr is None else f"-generator-{self.generator_lr:g}")


@dataclass(frozen=True)
class Tried:
    """What seed 0 came to at a setting: the mean of the validation metric over the last epochs, None where a seed
    diverged."""

    rates: Rates
    validation: float | None


@dataclass(frozen=True)
class Trained:
    """A model by the protocol: the logs of its seeds at the chosen rates."""

    model: str
    rates: Rates
    tried: tuple[Tried, ...]
    logs: tuple[Json, ...]


def settings(benchmark: Benchmark, model: str) -> list[Rates]:
    """The grid: at most six settings; a model without generators has the distinct rates."""
    if model not in WITH_GENERATORS:
        return [Rates(lr, None) for lr in benchmark.lrs]
    return [Rates(lr, float(f"{lr * ratio:g}")) for lr in benchmark.lrs for ratio in RATIOS]


def missing(model: str) -> str | None:
    """Why the model cannot be trained on this installation."""
    if model == "geotorch" and importlib.util.find_spec("geotorch") is None:
        return "geotorch is not installed: pip install 'vfrnn-kernels[bench]'"
    return None


def validation(log: Json, model: str) -> float:
    """The mean of the validation metric over the last epochs."""
    return statistics.fmean(epoch["validation"] for epoch in log["epochs"][model][-LAST_EPOCHS:])


def best(tried: list[Tried], larger_is_better: bool) -> Rates | None:
    """The setting with the best validation metric, the first of equal ones; None where all diverged."""
    finished = [(t.validation, t.rates) for t in tried if t.validation is not None]
    if not finished:
        return None
    choose = max if larger_is_better else min
    return choose(finished, key=lambda found: found[0])[1]


@dataclass(frozen=True)
class Runs:
    """The runs of a benchmark, in folders below `folder`."""

    benchmark: Benchmark
    folder: Path
    data: Path | None = None

    def model(self, model: str, seeds: int) -> Trained | None:
        """The model by the protocol; None where it diverges at every setting."""
        tried, larger_is_better = [], False
        for rates in settings(self.benchmark, model):
            log = self.run(model, rates, 0)
            tried.append(Tried(rates, None if log is None else validation(log, model)))
            larger_is_better = larger_is_better if log is None else log["larger_is_better"]
        while (rates := best(tried, larger_is_better)) is not None:
            logs = [self.run(model, rates, seed) for seed in range(seeds)]
            finished = tuple(log for log in logs if log is not None)
            if len(finished) == seeds:
                return Trained(model, rates, tuple(tried), finished)
            tried = [Tried(t.rates, None if t.rates == rates else t.validation) for t in tried]
        return None

    def run(self, model: str, rates: Rates, seed: int) -> Json | None:
        """The log of one run; None where it diverged."""
        folder = self._of(model, rates, seed)
        if (folder / DIVERGED).exists():
            return None
        if not (folder / LOG).exists():
            arguments = ["--model", model, "--lr", str(rates.lr), "--seed", str(seed)]
            if rates.generator_lr is not None:
                arguments += ["--generator-lr", str(rates.generator_lr)]
            try:
                self._train(folder, arguments)
            except FloatingPointError as error:
                write_file(folder / DIVERGED, f"{error}\n")
                return None
        log: Json = json.loads((folder / LOG).read_text())
        self._check(log, folder)
        return log

    def timing(self, trained: Sequence[Trained]) -> dict[str, list[Json]]:
        """By model, the step_ms and steps of a few more epochs of seed 0's, all models in turns.

        They are kept with the options of the runs, and measured again when a model, its rates or the benchmark change.
        """
        path, of = self.folder / TIMING, {one.model: one.logs[0]["options"] for one in trained}
        kept: Json = json.loads(path.read_text()) if path.exists() else {}
        if kept.get("options") == of:
            found: dict[str, list[Json]] = kept["epochs"]
            return found
        runs = [Training.resume(self._of(one.model, one.rates, 0)) for one in trained]
        for run in runs:
            run.options = replace(run.options, epochs=run.options.epochs + TIMING_EPOCHS)
        for _ in range(TIMING_EPOCHS):
            for run in runs:
                run.train(run.epochs_done + 1, lambda trainee, loss: None, lambda: None)
        found = {
            model: [{"step_ms": epoch.step_ms, "steps": epoch.steps} for epoch in history[-TIMING_EPOCHS:]]
            for model, history in ((run.trainees[0].name, run.trainees[0].history) for run in runs)
        }
        write_file(path, json.dumps({"options": of, "epochs": found}, indent=1) + "\n")
        return found

    def _check(self, log: Json, folder: Path) -> None:
        """
        Raises:
            RuntimeError: the run was made before the benchmark's options became what they are.
        """
        found = {**log["options"], **log["options"]["task_options"], **log["options"]["model_options"]}
        for name, value in self.benchmark.train.items():
            if found[name] != value:
                raise RuntimeError(
                    f"{folder} must hold a run with {name} {value}, got one with {found[name]}: delete it, or name "
                    "another folder by --runs"
                )

    def _of(self, model: str, rates: Rates, seed: int) -> Path:
        return self.folder / model / rates.folder / f"seed-{seed}"

    def _train(self, folder: Path, arguments: list[str]) -> None:
        if (folder / CHECKPOINT).exists():
            vfrnn_train(["--resume", str(folder), *UNWATCHED])
            return
        common = [] if self.benchmark.task == OWN_DATA else ["--task", self.benchmark.task]
        common += ["--out", str(folder), *UNWATCHED]
        for name, value in self.benchmark.train.items():
            common += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        vfrnn_train(common + arguments + ([] if self.data is None else ["--data", str(self.data)]))


def vfrnn_train(arguments: list[str]) -> None:
    """`vfrnn train` in this process, whose errors are raised.

    Raises:
        FloatingPointError: a loss or a parameter is not finite.
    """
    parser = argparse.ArgumentParser(prog="vfrnn")
    add_parser(parser.add_subparsers())
    parsed = parser.parse_args(["train", *arguments])
    parsed.run(parsed)
