"""Handwritten digits read pixel by pixel: scikit-learn's 1797 images of 8 x 8, one pixel a step."""

from __future__ import annotations

import numpy as np
import torch

from vfrnn.tasks.images import Images
from vfrnn.tasks.task import TaskOptions

#: The split is stratified by digit and always the same: 1257 training, 180 validation and 360 test images.
VALIDATION, TEST = 180, 360


class Digits(Images):
    """x (64, B, 1) in [0, 1], target (B,) in 0..9."""

    def __init__(self, options: TaskOptions) -> None:
        try:
            from sklearn.datasets import load_digits
            from sklearn.model_selection import train_test_split
        except ImportError as error:
            raise RuntimeError("the digits need scikit-learn: pip install 'vfrnn-kernels[train]'") from error
        images, labels = load_digits(return_X_y=True)
        rest, test = train_test_split(np.arange(len(labels)), test_size=TEST, stratify=labels, random_state=0)
        train, validation = train_test_split(rest, test_size=VALIDATION, stratify=labels[rest], random_state=0)
        rows = {"train": train, "validation": validation, "test": test}
        super().__init__(torch.as_tensor(images / 16, dtype=torch.float32), labels, rows, options)
