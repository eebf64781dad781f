"""A user's own series, from a .ts or .npz file: a class or numbers from the last state of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vfrnn.tasks.collection import listed
from vfrnn.tasks.reading import Source, read_series
from vfrnn.tasks.task import Batch, Classification, Plain, Task, TaskOptions

#: Of all series where no test split is given, and of those that are given for training.
TEST, VALIDATION = 0.15, 0.15
LEAST = 4


class Series(Plain, ABC):
    """x (T, B, i) and a target for each series.

    Values are standardized by mean and deviation of their channel in the training split; one that is missing is that
    of the step before, and the mean where there is none. Where times are given, the last channel is the time since the
    step before (0 at first), in units of the mean step of the training split. Where lengths differ, a first channel
    says what is padding (`ragged`).
    """

    every_step = False

    def __init__(self, source: Source, options: TaskOptions) -> None:
        collection = source.collection
        self.rows = _split(source, options)
        self.fingerprint = source.fingerprint
        train = self.rows["train"]
        lengths = torch.tensor([len(values) for values in collection.values])
        within = torch.arange(int(lengths.max()))[:, None] < lengths  # (T, N)
        channels = [_standardized(_padded(collection.values), within, train)]
        self.timed, self.ragged = collection.times is not None, not bool(within.all())
        if collection.times is not None:
            channels.append(_steps(collection.times, within, train))
        self.input_size = sum(part.shape[-1] for part in channels)
        if self.ragged:
            channels.insert(0, within.unsqueeze(-1))
        self._x = torch.cat([part.float() for part in channels], -1)
        self._batch_size = options.batch_size
        counts = ", ".join(f"{len(rows)} {name}" for name, rows in self.rows.items())
        shortest, longest = int(lengths.min()), int(lengths.max())
        steps = f"{shortest} to {longest}" if self.ragged else f"{longest}"
        times = " at times of their own" if self.timed else ""
        self.about = f"{counts} series of {collection.channels} channels, {steps} steps{times}; {collection.kind}"

    @abstractmethod
    def _targets(self, rows: Tensor) -> Tensor:
        """Those of some series, as the loss reads them."""

    def training_batches(self, generator: torch.Generator) -> Iterator[Batch]:
        rows = self.rows["train"]
        for chosen in rows[torch.randperm(len(rows), generator=generator)].split(self._batch_size):
            yield self._x[:, chosen], self._targets(chosen)

    def evaluation_batch(self, split: str) -> Batch:
        return self._x[:, self.rows[split]], self._targets(self.rows[split])


class SeriesClasses(Classification, Series):
    """The class of each series. Metric: accuracy; without memory the best is the most frequent class of the training
    split."""

    def __init__(self, source: Source, options: TaskOptions) -> None:
        super().__init__(source, options)
        classes = source.collection.classes or ()
        self._y = torch.as_tensor(source.collection.targets, dtype=torch.long)
        self.output_size = len(classes)
        self.about += f" {listed(classes)}"
        most_frequent = self._y[self.rows["train"]].bincount().argmax()
        self.baseline = float((self._y[self.rows["test"]] == most_frequent).double().mean())

    def _targets(self, rows: Tensor) -> Tensor:
        return self._y[rows]


class SeriesRegression(Series):
    """Numbers (o, B) of each series, standardized like the values for the loss. Metric: mean squared error in the
    units of the file; without memory the best is the mean of the training split."""

    metric_name, larger_is_better = "mean squared error", False

    def __init__(self, source: Source, options: TaskOptions) -> None:
        super().__init__(source, options)
        targets = torch.as_tensor(source.collection.targets).T  # (o, N)
        of_training = targets[:, self.rows["train"]]
        mean = of_training.mean(-1, keepdim=True)
        self._deviation = _deviation((of_training - mean).square().mean(-1, keepdim=True))
        self._y = ((targets - mean) / self._deviation).float()
        self.output_size = len(targets)
        self.baseline = self.metric(torch.zeros(len(self.rows["test"]), len(targets)), self._targets(self.rows["test"]))

    def _targets(self, rows: Tensor) -> Tensor:
        return self._y[:, rows]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target.mT).square().mean()

    def metric(self, output: Tensor, target: Tensor) -> float:
        return float(((output.double().mT - target) * self._deviation).square().mean())


def series(options: TaskOptions) -> Task:
    """The task of the file or folder `options.data`.

    Raises:
        ValueError: there is none.
        FileNotFoundError, RuntimeError: it cannot be read.
    """
    if options.data is None:
        raise ValueError("data must name a .ts or .npz file or a folder for the task 'series', got None")
    source = read_series(Path(options.data))
    return (SeriesRegression if source.collection.classes is None else SeriesClasses)(source, options)


def _split(source: Source, options: TaskOptions) -> dict[str, Tensor]:
    """Rows of "training", "validation" and "test", drawn by the seed; each class is in all of them alike."""
    collection, generator = source.collection, torch.Generator().manual_seed(options.seed)
    count = len(collection.values)
    given = torch.arange(count - source.tests, count)
    rest = torch.arange(count - source.tests)
    if len(rest) < LEAST:
        raise RuntimeError(f"{options.data} must have at least {LEAST} series to train on, got {len(rest)}")
    classes = torch.zeros(count) if collection.classes is None else torch.as_tensor(collection.targets)
    test, share = given, VALIDATION
    if not source.tests:
        test, rest = _drawn(rest, classes, TEST, generator)
        share = VALIDATION / (1 - TEST)
    validation, train = _drawn(rest, classes, share, generator)
    return {"train": train, "validation": validation, "test": test}


def _drawn(rows: Tensor, classes: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A share of the rows, and the others: every k-th of them in a random order, by class."""
    order = rows[torch.randperm(len(rows), generator=generator)]
    order = order[classes[order].argsort(stable=True)]
    before = (torch.arange(len(rows) + 1, dtype=torch.float64) * share + 0.5).floor()
    chosen = before.diff() > 0
    return order[chosen].sort().values, order[~chosen].sort().values


def _padded(series: list[np.ndarray]) -> Tensor:
    """(T, N, i), NaN after the end of each."""
    longest = max(map(len, series))
    found = torch.full((longest, len(series), series[0].shape[1]), torch.nan, dtype=torch.float64)
    for k, values in enumerate(series):
        found[: len(values), k] = torch.as_tensor(values)
    return found


def _standardized(values: Tensor, within: Tensor, train: Tensor) -> Tensor:
    """(T, N, i) without a NaN, 0 in the padding."""
    known = values[:, train][~values[:, train].isnan().all(-1)]  # (rows, i)
    mean = known.nanmean(0).nan_to_num()
    scaled = (values - mean) / _deviation((known - mean).square().nanmean(0).nan_to_num())
    for step in range(1, len(scaled)):
        scaled[step] = torch.where(scaled[step].isnan(), scaled[step - 1], scaled[step])
    return torch.where(within.unsqueeze(-1), scaled.nan_to_num(), 0.0)


def _deviation(variance: Tensor) -> Tensor:
    """Its root, and 1 of what does not vary."""
    return torch.where(variance > 0, variance.sqrt(), 1.0)


def _steps(times: list[np.ndarray], within: Tensor, train: Tensor) -> Tensor:
    """(T, N, 1): the time since the step before."""
    steps = _padded([np.diff(of_one, prepend=of_one[:1])[:, None] for of_one in times]).nan_to_num()
    later = within[1:, train]
    unit = steps[1:, train, 0][later].mean() if bool(later.any()) else torch.tensor(0.0)
    return steps / (unit if unit > 0 else 1.0)
