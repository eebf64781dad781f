"""Copying that needs forgetting: recall 10 symbols scattered in noise. Jing et al. 2017 (arXiv 1706.02761)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from vfrnn.tasks.copying import LENGTH, SYMBOLS
from vfrnn.tasks.task import Batch, Generated, TaskOptions

NOISE, MARKER = SYMBOLS, SYMBOLS + 1


class Denoise(Generated):
    """T = delay + 11 steps of one-hot inputs (T, B, 10): `delay` steps of noise with 10 symbols at random places among
    them, a marker, 10 steps of noise.

    The target (T, B) is noise for delay + 1 steps, then the 10 symbols in their order. Unlike copying, what arrives
    between the symbols must not stay in the state. Metric: cross entropy per step.
    """

    input_size, output_size, every_step = SYMBOLS + 2, SYMBOLS + 1, True
    metric_name, larger_is_better = "cross entropy", False

    def __init__(self, options: TaskOptions) -> None:
        super().__init__(options)
        if options.delay < LENGTH:
            raise ValueError(f"delay must be at least {LENGTH}, the number of symbols, got {options.delay}")
        self.baseline = LENGTH * math.log(SYMBOLS) / (options.delay + 1 + LENGTH)

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """`count` sequences."""
        delay = self._options.delay
        symbols = torch.randint(SYMBOLS, (LENGTH, count), generator=generator)
        places = torch.rand(delay, count, generator=generator).argsort(0)[:LENGTH].sort(0).values
        tokens = torch.full((delay + 1 + LENGTH, count), NOISE)
        tokens.scatter_(0, places, symbols)
        tokens[delay] = MARKER
        target = torch.full_like(tokens, NOISE)
        target[-LENGTH:] = symbols
        return functional.one_hot(tokens, SYMBOLS + 2).to(torch.float32), target

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output.flatten(0, 1), target.flatten())

    def metric(self, output: Tensor, target: Tensor) -> float:
        return float(self.loss(output.double(), target))
