"""A collection of series, each with a class or numbers that are to be found from it: what the files of a user hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Collection:
    """N series of i channels, and their targets.

    Attributes:
        values: (T_k, i) of each series, NaN where a value is missing.
        targets: (N,) of classes, by their place in `classes`; (N, o) of a regression.
        classes: the names of the classes, None of a regression.
        times: (T_k,) of each series, which never decrease; None where steps are even.
    """

    values: list[np.ndarray]
    targets: np.ndarray
    classes: tuple[str, ...] | None = None
    times: list[np.ndarray] | None = None

    @property
    def channels(self) -> int:
        """i."""
        return self.values[0].shape[1]

    @property
    def kind(self) -> str:
        """What is asked for, in words."""
        if self.classes is not None:
            return "classes"
        return f"a regression of {self.targets.shape[1]} number{'s' * (self.targets.shape[1] != 1)}"


def joined(train: Collection, test: Collection, names: tuple[str, str]) -> Collection:
    """The series of two files, those of the test split last.

    Args:
        names: of the files, for errors.

    Raises:
        RuntimeError: the files do not belong together.
    """
    first, second = names
    for what, expected, found in (
        ("channels", train.channels, test.channels),
        ("targets", train.kind, test.kind),
        ("times", *("given" if one.times is not None else "none" for one in (train, test))),
    ):
        if expected != found:
            raise RuntimeError(f"{second} must have the {what} of {first}, {expected}, got {found}")
    targets = test.targets
    if train.classes is not None and test.classes is not None:
        unknown = [test.classes[k] for k in np.unique(targets) if test.classes[k] not in train.classes]
        if unknown:
            raise RuntimeError(
                f"{second} must have the classes of {first}, {listed(train.classes)}, got {listed(tuple(unknown))}"
            )
        # A class that the test split names without a series of it may be missing in the training split.
        place = {name: k for k, name in enumerate(train.classes)}
        targets = np.array([place[test.classes[k]] for k in targets], dtype=np.int64)
    times = None if train.times is None or test.times is None else train.times + test.times
    return Collection(train.values + test.values, np.concatenate([train.targets, targets]), train.classes, times)


def listed(names: tuple[str, ...]) -> str:
    """Names in quotes, at most ten of them."""
    shown = ", ".join(map(repr, names[:10]))
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"
