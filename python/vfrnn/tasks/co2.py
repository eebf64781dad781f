"""Samples at irregular times: the weekly carbon dioxide record of Mauna Loa, 1958 to 2001, that statsmodels ships."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vfrnn.tasks.task import Batch, Generated, TaskOptions

#: A window of two years, of which so many weeks are kept, drawn anew each time; the value asked for is up to half a
#: year after the window.
WEEKS, KEPT, HORIZON = 104, 24, 26
#: Weeks to one unit of time: about a month, the mean step between kept samples.
UNIT = 4.0
#: Windows lie wholly in one of these parts of the record.
PARTS = {"train": (0.0, 0.7), "validation": (0.7, 0.85), "test": (0.85, 1.0)}


class CarbonDioxide(Generated):
    """x (25, B, 3), target (B,): 24 samples at irregular times and a last step that asks for the value later on.

    Channels: the value less the window's mean, over the standard deviation of the training windows (0 in the last
    step); 1 in the last step, else 0; the time since the step before, in months of four weeks. 59 weeks of the record
    are missing and are never kept. The value asked for is normalised alike. Metric: mean squared error.
    """

    input_size, output_size, every_step, timed = 3, 1, False, True
    metric_name, larger_is_better = "mean squared error", False

    def __init__(self, options: TaskOptions) -> None:
        super().__init__(options)
        try:
            from statsmodels.datasets import co2
        except ImportError as error:
            raise RuntimeError("co2 needs statsmodels: pip install 'vfrnn-kernels[irregular]'") from error
        self._values = torch.tensor(np.array(co2.load_pandas().data["co2"]), dtype=torch.float64)
        train = self._values[: int(PARTS["train"][1] * len(self._values))].unfold(0, WEEKS, WEEKS)
        centred = train - train.nanmean(-1, keepdim=True)
        self._scale = float(centred.square().nanmean().sqrt())
        _, target = self.evaluation_batch("test")
        self.baseline = float(target.square().mean())  # of the window's mean

    def _sample(self, part: str, count: int, generator: torch.Generator) -> Batch:
        low, high = (int(share * len(self._values)) for share in PARTS[part])
        starts = torch.randint(low, high - WEEKS - HORIZON, (count,), generator=generator)
        offsets = torch.rand(count, WEEKS, generator=generator)
        windows = self._values.unfold(0, WEEKS, 1)[starts]  # (B, WEEKS)
        offsets[windows.isnan()] = 2.0  # missing weeks come last in the draw
        kept = offsets.argsort(-1)[:, :KEPT].sort(-1).values
        ahead = WEEKS - 1 + torch.randint(1, HORIZON + 1, (count,), generator=generator)
        later = self._values[starts + ahead]
        while bool(later.isnan().any()):  # the record has gaps of a few weeks
            ahead = torch.where(later.isnan(), ahead - 1, ahead)
            later = self._values[starts + ahead]
        values = windows.gather(-1, kept)
        mean = values.mean(-1, keepdim=True)
        times = torch.cat([kept, ahead[:, None]], -1).double()
        steps = torch.diff(times, dim=-1, prepend=times[:, :1]) / UNIT
        x = torch.zeros(KEPT + 1, count, 3)
        x[:KEPT, :, 0] = ((values - mean) / self._scale).T
        x[KEPT, :, 1] = 1.0
        x[:, :, 2] = steps.T
        return x, ((later - mean[:, 0]) / self._scale).float()

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """`count` windows of the training part."""
        return self._sample("train", count, generator)

    def evaluation_batch(self, split: str) -> Batch:
        generator = torch.Generator().manual_seed(self.SPLIT_SEEDS[split])
        return self._sample(split, self.EVALUATION_SAMPLES, generator)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output.squeeze(-1) - target).square().mean()

    def metric(self, output: Tensor, target: Tensor) -> float:
        return float(self.loss(output.double(), target))
