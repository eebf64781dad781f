"""Series of a user, from a file or a folder with a training and a test split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vfrnn.tasks.collection import Collection, joined, listed
from vfrnn.tasks.npz import parse_npz
from vfrnn.tasks.ts import parse_ts


@dataclass(frozen=True)
class Source:
    """What was read.

    Attributes:
        collection: all series.
        tests: how many of them, the last ones, are the test split that was given; 0 if none was.
        fingerprint: the SHA-256 of the files.
    """

    collection: Collection
    tests: int
    fingerprint: str


def _ts(data: bytes, name: str) -> Collection:
    try:
        return parse_ts(data.decode(), name)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RuntimeError(f"{name}, line {line} must be text in UTF-8, got byte 0x{data[error.start]:02x}") from error


PARSERS: dict[str, Callable[[bytes, str], Collection]] = {".ts": _ts, ".npz": parse_npz}


def read_series(path: Path) -> Source:
    """The series of a .ts or .npz file, or of a folder that holds NAME_TRAIN and NAME_TEST (or train and test) of
    either.

    Raises:
        FileNotFoundError: there is no such path.
        RuntimeError: what is there cannot be read; the message names the file, and its line or key.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: data must be a .ts or .npz file, or a folder of two")
    files: tuple[Path, ...] = _splits(path) if path.is_dir() else (path,)
    digest, parts = hashlib.sha256(), []
    for file in files:
        parse = PARSERS.get(file.suffix.lower())
        if parse is None:
            raise RuntimeError(f"{file} must be one of {listed(tuple(PARSERS))}, got {file.suffix!r}")
        data = file.read_bytes()
        digest.update(data)
        parts.append(parse(data, str(file)))
    both, tests = parts[0], parts[1:]
    for test, file in zip(tests, files[1:], strict=True):
        both = joined(both, test, (str(files[0]), str(file)))
    return Source(both, sum(len(test.values) for test in tests), digest.hexdigest())


def _splits(folder: Path) -> tuple[Path, Path]:
    """The training and the test file. Of several pairs the one that is called like the folder counts, as in the
    archives, which have variants beside it."""
    files = {
        (file.stem.lower(), file.suffix.lower()): file
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in PARSERS
    }
    pairs = {
        (stem.removesuffix("train").rstrip("_"), suffix): (file, files[stem.removesuffix("train") + "test", suffix])
        for (stem, suffix), file in files.items()
        if stem == "train" or stem.endswith("_train")
        if (stem.removesuffix("train") + "test", suffix) in files
    }
    if len(pairs) > 1:
        pairs = {key: pair for key, pair in pairs.items() if key[0] == folder.name.lower()} or pairs
    if len(pairs) != 1:
        names = listed(tuple(file.name for file in files.values())) or "no such file"
        raise RuntimeError(
            f"{folder} must hold one pair NAME_TRAIN.ts and NAME_TEST.ts, or train.npz and test.npz, got {names}"
        )
    return next(iter(pairs.values()))
