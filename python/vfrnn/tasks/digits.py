"""Handwritten digits read pixel by pixel: scikit-learn's 1797 images of 8 x 8, one pixel a step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vfrnn.tasks.task import Batch, TaskOptions

#: The split is stratified by digit and always the same: 1257 training, 180 validation and 360 test images.
VALIDATION, TEST = 180, 360
PERMUTATION_SEED = 92916


class Digits:
    """x (64, B, 1) in [0, 1], target (B,) in 0..9; the class is read from the last state. Metric: accuracy."""

    input_size, output_size, every_step = 1, 10, False
    metric_name, larger_is_better, baseline = "accuracy", True, 0.1

    def __init__(self, options: TaskOptions) -> None:
        try:
            from sklearn.datasets import load_digits
            from sklearn.model_selection import train_test_split
        except ImportError as error:
            raise RuntimeError("the digits need scikit-learn: pip install 'vfrnn-kernels[train]'") from error
        images, labels = load_digits(return_X_y=True)
        rest, test = train_test_split(np.arange(len(labels)), test_size=TEST, stratify=labels, random_state=0)
        train, validation = train_test_split(rest, test_size=VALIDATION, stratify=labels[rest], random_state=0)
        pixels = torch.as_tensor(images / 16, dtype=torch.float32)
        if options.permute:
            pixels = pixels[:, torch.randperm(64, generator=torch.Generator().manual_seed(PERMUTATION_SEED))]
        self._x = pixels.T.unsqueeze(-1)  # (64, 1797, 1)
        self._y = torch.as_tensor(labels, dtype=torch.long)
        #: Indices of the images of "train", "validation" and "test".
        self.rows = {
            name: torch.as_tensor(rows) for name, rows in (("train", train), ("validation", validation), ("test", test))
        }
        self._batch_size = options.batch_size

    def training_batches(self, generator: torch.Generator) -> Iterator[Batch]:
        rows = self.rows["train"]
        for chosen in rows[torch.randperm(len(rows), generator=generator)].split(self._batch_size):
            yield self._x[:, chosen], self._y[chosen]

    def evaluation_batch(self, split: str) -> Batch:
        return self._x[:, self.rows[split]], self._y[self.rows[split]]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output, target)

    def metric(self, output: Tensor, target: Tensor) -> float:
        return float((output.argmax(-1) == target).double().mean())
