"""The adding task: the sum of two marked numbers of a long sequence. Hochreiter, Schmidhuber 1997, section 5.4."""

from __future__ import annotations

import torch
from torch import Tensor

from vfrnn.tasks.task import Batch, Generated


class Adding(Generated):
    """x (length, B, 2): numbers uniform in [0, 1], and marks: one 1 in each half of the sequence; target (B,).

    Metric: mean squared error. Without memory the best is to guess 1: the variance of the sum, 1/6.
    """

    input_size, output_size, every_step = 2, 1, False
    metric_name, larger_is_better, baseline = "mean squared error", False, 1 / 6

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """`count` sequences."""
        length = self._options.length
        half = length // 2
        numbers = torch.rand(length, count, generator=generator)
        marks = torch.zeros_like(numbers)
        marks.scatter_(0, torch.randint(half, (1, count), generator=generator), 1.0)
        marks.scatter_(0, torch.randint(half, length, (1, count), generator=generator), 1.0)
        return torch.stack([numbers, marks], -1), (numbers * marks).sum(0)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output.squeeze(-1) - target).square().mean()

    def metric(self, output: Tensor, target: Tensor) -> float:
        return float(self.loss(output.double(), target))
