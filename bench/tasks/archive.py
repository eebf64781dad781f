"""Series of the UCR, UEA and Monash archives that come inside the package aeon: where they lie. Nothing is copied from
there, and nothing of aeon is imported: its data are read by `vfrnn train --data`."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def archive_folder(name: str) -> Path:
    """The folder of a data set, with NAME_TRAIN.ts and NAME_TEST.ts.

    Raises:
        RuntimeError: aeon is not installed, or has no such data set.

    Example:
        >>> archive_folder("OSULeaf").name  # doctest: +SKIP
        'OSULeaf'
    """
    found = importlib.util.find_spec("aeon")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError(
            f"{name} comes with aeon: pip install 'vfrnn-kernels[series]', or pip install --no-deps aeon for its data"
        )
    folders = Path(next(iter(found.submodule_search_locations))) / "datasets" / "data"
    if not (folders / name).is_dir():
        raise RuntimeError(f"aeon must have the data set {name} in {folders}, as 1.6 does, got none")
    return folders / name
