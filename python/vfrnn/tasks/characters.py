"""The next character of an English text: the topics of Python's language reference, which every Python brings along."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from vfrnn.tasks.task import Batch, Plain, TaskOptions

#: Contiguous blocks of the text, in this order.
PARTS = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}


def language_reference() -> str:
    """The prose of `pydoc_data.topics` in order of its topics. Topics contain each other, a fifth of the text comes
    twice, and what is learned would be tested: of equal paragraphs only the first is kept.

    Raises:
        RuntimeError: this Python comes without it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise RuntimeError(
            "characters needs Python's module pydoc_data.topics, which some distributions have in a package of its own"
        ) from error
    paragraphs = (paragraph.strip("\n") for name in sorted(topics) for paragraph in topics[name].split("\n\n"))
    return "\n\n".join(dict.fromkeys(paragraph for paragraph in paragraphs if paragraph))


class Characters(Plain):
    """x (length, B, characters) one-hot, target (length, B): the character after each.

    Every sequence is read from a state of zero: those of a training batch from random places of the training block,
    those of the other blocks one after the other from their beginning. Metric: bits per character. Without memory the
    best is to guess from the last character: pairs are counted in the training block, and their shares smoothed
    with those of single characters.

    The text depends on the version of Python, as `about` tells, and `fingerprint` is a hash of it.
    """

    every_step = True
    metric_name, larger_is_better = "bits per character", False

    def __init__(self, options: TaskOptions) -> None:
        text = language_reference()
        self.alphabet = "".join(sorted(set(text)))
        places = {character: k for k, character in enumerate(self.alphabet)}
        codes = torch.tensor([places[character] for character in text])
        self.blocks = {name: codes[int(a * len(codes)) : int(b * len(codes))] for name, (a, b) in PARTS.items()}
        shortest = min(map(len, self.blocks.values()))
        if options.length >= shortest:
            raise ValueError(f"length must be less than {shortest}, the characters of the shortest block of the text, "
                             f"got {options.length}")  # fmt: skip
        self._length, self._batch_size = options.length, options.batch_size
        self._steps_per_epoch = options.steps_per_epoch
        self.input_size = self.output_size = len(self.alphabet)
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()
        self.about = (
            f"{len(text)} characters, {len(self.alphabet)} of them different, of the language reference of Python "
            f"{platform.python_version()}"
        )
        self.baseline = self._bits_of_pairs()

    def training_batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """An epoch of new places."""
        sequences = self.blocks["train"].unfold(0, self._length + 1, 1)
        for _ in range(self._steps_per_epoch):
            yield self._batch(sequences[torch.randint(len(sequences), (self._batch_size,), generator=generator)])

    def evaluation_batch(self, split: str) -> Batch:
        return self._batch(self.blocks[split].unfold(0, self._length + 1, self._length))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output.flatten(0, 1), target.flatten())

    def metric(self, output: Tensor, target: Tensor) -> float:
        return float(self.loss(output.double(), target)) / math.log(2)

    def _batch(self, sequences: Tensor) -> Batch:
        """Of (B, length + 1)."""
        codes = sequences.T
        return functional.one_hot(codes[:-1], self.input_size).float(), codes[1:]

    def _bits_of_pairs(self) -> float:
        train, (x, target) = self.blocks["train"], self.evaluation_batch("test")
        size = self.input_size
        single = (train.bincount(minlength=size) + 1).double()
        single /= single.sum()
        pairs = (size * train[:-1] + train[1:]).bincount(minlength=size**2).view(size, size).double()
        shares = (pairs + single) / (pairs.sum(-1, keepdim=True) + 1)
        return float(-shares[x.argmax(-1), target].log2().mean())
