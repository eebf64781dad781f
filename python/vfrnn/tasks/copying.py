"""The copying task: recall 10 symbols after a delay. Arjovsky, Shah, Bengio 2016 (arXiv 1511.06464), section 5.1."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from vfrnn.tasks.task import Batch, Generated, TaskOptions

SYMBOLS, LENGTH = 8, 10
BLANK, MARKER = SYMBOLS, SYMBOLS + 1


class Copying(Generated):
    """T = delay + 20 steps of one-hot inputs (T, B, 10): 10 symbols, delay - 1 blanks, a marker, 10 blanks.

    The target (T, B) is blank for delay + 10 steps and then the 10 symbols. Metric: cross entropy per step. Without
    memory the best is to guess the symbols: 10 ln 8 / (delay + 20).
    """

    input_size, output_size, every_step = SYMBOLS + 2, SYMBOLS + 1, True
    metric_name, larger_is_better = "cross entropy", False

    def __init__(self, options: TaskOptions) -> None:
        super().__init__(options)
        self.baseline = LENGTH * math.log(SYMBOLS) / (options.delay + 2 * LENGTH)

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """`count` sequences."""
        delay = self._options.delay
        symbols = torch.randint(SYMBOLS, (LENGTH, count), generator=generator)
        tokens = torch.full((delay + 2 * LENGTH, count), BLANK)
        tokens[:LENGTH] = symbols
        tokens[delay + LENGTH - 1] = MARKER
        target = torch.full_like(tokens, BLANK)
        target[-LENGTH:] = symbols
        return functional.one_hot(tokens, SYMBOLS + 2).to(torch.float32), target

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output.flatten(0, 1), target.flatten())

    def metric(self, output: Tensor, target: Tensor) -> float:
        return float(self.loss(output.double(), target))
