"""Images read pixel by pixel: what scikit-learn's digits and MNIST share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from vfrnn.tasks.task import Batch, Classification, TaskOptions

PERMUTATION_SEED = 92916

#: Indices of the images of "train", "validation" and "test".
Split = dict[str, np.ndarray]


class Images(Classification):
    """x (pixels, B, 1) in [0, 1], target (B,) in 0..9; the class is read from the last state. Metric: accuracy."""

    input_size, output_size, every_step = 1, 10, False
    baseline = 0.1

    def __init__(self, pixels: Tensor, labels: np.ndarray, rows: Split, options: TaskOptions) -> None:
        count = pixels.shape[1]
        if options.permute:
            pixels = pixels[:, torch.randperm(count, generator=torch.Generator().manual_seed(PERMUTATION_SEED))]
        self._x = pixels.T.unsqueeze(-1)  # (pixels, images, 1)
        self._y = torch.as_tensor(labels, dtype=torch.long)
        self.rows = {name: torch.as_tensor(part) for name, part in rows.items()}
        self._batch_size = options.batch_size

    def training_batches(self, generator: torch.Generator) -> Iterator[Batch]:
        rows = self.rows["train"]
        for chosen in rows[torch.randperm(len(rows), generator=generator)].split(self._batch_size):
            yield self._x[:, chosen], self._y[chosen]

    def evaluation_batch(self, split: str) -> Batch:
        return self._x[:, self.rows[split]], self._y[self.rows[split]]
