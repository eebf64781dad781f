"""What a task is to the training loop: batches, a loss, a metric and what a model without memory scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class TaskOptions:
    """Options of every task; each reads its own.

    Attributes:
        batch_size: samples of a training batch.
        permute: digits and mnist: one fixed permutation of the pixels.
        delay: copying: blanks between the symbols and the recall.
        length: adding, characters: length of the sequences.
        steps_per_epoch: of tasks without end, copying and adding among them, and characters: batches called an epoch.
        data: mnist: folder of the IDX files of the full set; series: a file or folder.
        wind: transport: "compressible" or "incompressible".
        grid: transport: nodes along each side.
        horizon: transport: frames to continue.
        seed: series: of the split; transport: of the sequences to learn from.
    """

    batch_size: int
    permute: bool = False
    delay: int = 200
    length: int = 200
    steps_per_epoch: int = 50
    data: str | None = None
    wind: str = "compressible"
    grid: int = 16
    horizon: int = 10
    seed: int = 0


Batch = tuple[Tensor, Tensor]  # inputs (T, B, i), targets (.., B)


@dataclass(frozen=True)
class Frames:
    """True and predicted frames (T + 1, p, q) of one test sequence on a grid, the first of which was given."""

    true: Tensor
    predicted: Tensor


class Task(Protocol):
    """A task. `every_step`: the readout is applied at every step (T, B, o), else to the last state (B, o). `timed`: the
    last channel of the inputs is the time since the step before. `ragged`: a first channel, which `input_size` does not
    count, is 1 in a sequence and 0 in the padding after it. `initial`: the inputs are the first states, and the
    `horizon` states after them are asked for. `about`: what data there are, in words; `fingerprint`: a hash of what was
    read from a file that may be another one elsewhere, else empty."""

    input_size: int
    output_size: int
    every_step: bool
    timed: bool
    ragged: bool
    initial: bool
    horizon: int
    metric_name: str
    larger_is_better: bool
    baseline: float  # the metric of a model without memory
    about: str
    fingerprint: str

    def training_batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """The batches of one epoch, in an order (or of a content) drawn from `generator`."""
        ...

    def evaluation_batch(self, split: str) -> Batch:
        """The fixed batch of "validation" or "test"."""
        ...

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The training loss, a mean over the batch."""
        ...

    def metric(self, output: Tensor, target: Tensor) -> float:
        """The metric of a batch."""
        ...

    def measures(self, model: nn.Module) -> dict[str, float]:
        """What else is told of a trained model, on the test split."""
        ...

    def velocities(self) -> Tensor | None:
        """What carries the frames from one to the next, (p - 1, q - 1, 2) in nodes at the centres of a grid's cells."""
        ...

    def frames(self, model: nn.Module) -> Frames | None:
        """What the model makes of the first frame of a test sequence."""
        ...


class Plain:
    """What most tasks do not have."""

    timed = ragged = initial = False
    horizon = 0
    about = fingerprint = ""

    def measures(self, model: nn.Module) -> dict[str, float]:
        """Nothing beside the metric."""
        return {}

    def velocities(self) -> Tensor | None:
        """No frames."""
        return None

    def frames(self, model: nn.Module) -> Frames | None:
        """None."""
        return None


class Classification(Plain):
    """A class for each sequence. Metric: accuracy."""

    metric_name, larger_is_better = "accuracy", True

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The cross entropy."""
        return functional.cross_entropy(output, target)

    def metric(self, output: Tensor, target: Tensor) -> float:
        """The share of right classes."""
        return float((output.argmax(-1) == target).double().mean())


class Generated(Plain):
    """Batches of a task whose samples are drawn without end: fixed seeds make the evaluation batches."""

    SPLIT_SEEDS: ClassVar[dict[str, int]] = {"validation": 1000003, "test": 2000003}
    EVALUATION_SAMPLES = 500

    def __init__(self, options: TaskOptions) -> None:
        self._options = options

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """`count` sequences."""
        raise NotImplementedError

    def training_batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """An epoch of new batches."""
        for _ in range(self._options.steps_per_epoch):
            yield self.sample(self._options.batch_size, generator)

    def evaluation_batch(self, split: str) -> Batch:
        """The fixed batch of "validation" or "test"."""
        return self.sample(self.EVALUATION_SAMPLES, torch.Generator().manual_seed(self.SPLIT_SEEDS[split]))
