"""The format .ts of the UEA and UCR archives of time series, read strictly: every error names its line.

There are readers elsewhere. That of aeon (1.3) names no line, takes what the header contradicts, and of a series with
time stamps it keeps neither the stamps nor the signs of the values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np

from vfrnn.tasks.collection import Collection, listed

#: A line that says something, with its number.
Line = tuple[int, str]
PAIR = re.compile(r"\(([^(),]*),([^(),]*)\)")


@dataclass(frozen=True)
class Header:
    """What the lines before the data say. None is what they leave open."""

    timestamps: bool
    dimensions: int | None
    equal_length: bool
    series_length: int | None
    classes: tuple[str, ...] | None  # None: the target is a number

    @property
    def target(self) -> str:
        """What ends the line of a series."""
        return "target" if self.classes is None else "class label"


def parse_ts(text: str, name: str) -> Collection:
    """The series of a file.

    Args:
        text: all of it.
        name: of the file, for errors.

    Raises:
        RuntimeError: a line, which is named, is not as the format and the header have it.

    Example:
        >>> found = parse_ts("@classLabel true up down" + chr(10) + "@data" + chr(10) + "1,2,?:4,5,6:down", "a.ts")
        >>> found.values[0].shape, found.classes, found.targets
        ((3, 2), ('up', 'down'), array([1]))
    """
    numbered = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    lines = ((number, line) for number, line in numbered if line and not line.startswith("#"))
    header = _header(lines, name)
    values: list[np.ndarray] = []
    times: list[np.ndarray] = []
    targets: list[int | float] = []
    dimensions, length = header.dimensions, header.series_length
    for number, line in lines:
        where = f"{name}, line {number}"
        fields, label = _fields(line, header, dimensions, where)
        series = [_dimension(field, header, f"{where}, dimension {k}") for k, field in enumerate(fields, 1)]
        _check_series(series, length if header.equal_length else None, where)
        dimensions, length = len(fields), length or len(series[0][0])
        values.append(np.stack([of_one for of_one, _ in series], axis=1))
        times += [of_one for _, of_one in series[:1] if of_one is not None]
        targets.append(_target(label.strip(), header.classes, where))
    if not values:
        raise RuntimeError(f"{name} must have a line for each series after '@data', got none")
    found = np.array(targets, dtype=np.float64)[:, None] if header.classes is None else np.array(targets)
    return Collection(values, found, header.classes, times or None)


def _header(lines: Iterator[Line], name: str) -> Header:
    found: dict[str, Any] = {}
    seen: dict[str, int] = {}
    number = 0
    for number, line in lines:
        where = f"{name}, line {number}"
        key, *rest = line.split(maxsplit=1)
        if not line.startswith("@"):
            raise RuntimeError(f"{where} must be of the header, which '@data' ends, and start with '@', got {line!r}")
        canonical = key.lower()
        value = rest[0] if rest else ""
        if canonical == "@data":
            if value:
                raise RuntimeError(f"{where}: '@data' must stand alone, got {value!r} after it")
            return _consistent(found, where)
        if canonical not in KEYS:
            raise RuntimeError(f"{where}: the key must be one of {listed(WRITTEN)}, got {key!r}")
        entry, read = KEYS[canonical]
        if entry in found:
            raise RuntimeError(f"{where}: {key} must come once, got it in line {seen[entry]} too")
        found[entry], seen[entry] = read(value, f"{where}: {key}"), number
    raise RuntimeError(f"{name} must have a line '@data' after its header, got none in {number} lines")


def _consistent(found: dict[str, Any], where: str) -> Header:
    classes, numeric = found.get("classlabel"), found.get("targetlabel", False)
    if (classes is not None) == numeric:
        raise RuntimeError(
            f"{where}: the header must have one of '@classLabel true LABELS' and '@targetLabel true', "
            f"got {'both' if numeric else 'neither'}"
        )
    dimensions, univariate = found.get("dimensions"), found.get("univariate")
    if univariate and dimensions not in (None, 1):
        raise RuntimeError(f"{where}: @dimensions must be 1 where @univariate is true, got {dimensions}")
    return Header(
        timestamps=found.get("timestamps", False),
        dimensions=1 if univariate else dimensions,
        equal_length=found.get("equallength", False),
        series_length=found.get("serieslength"),
        classes=classes,
    )


def _flag(value: str, where: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise RuntimeError(f"{where} must be true or false, got {value!r}")
    return value.lower() == "true"


def _count(value: str, where: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise RuntimeError(f"{where} must be a whole number, at least 1, got {value!r}")
    return int(value)


def _text(value: str, where: str) -> str:
    return value


def _labels(value: str, where: str) -> tuple[str, ...] | None:
    flag, *labels = value.split() or [""]
    if not _flag(flag, where):
        return None
    if not labels:
        raise RuntimeError(f"{where} must be true and the class labels, got 'true' alone")
    if len(set(labels)) < len(labels):
        raise RuntimeError(f"{where} must have labels that differ, got {listed(tuple(labels))}")
    return tuple(labels)


#: The keys of the header: what they are about, and how their value is read. `@missing` and the name change nothing.
KEYS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "@problemname": ("problemname", _text),
    "@timestamps": ("timestamps", _flag),
    "@missing": ("missing", _flag),
    "@univariate": ("univariate", _flag),
    "@dimensions": ("dimensions", _count),
    "@dimension": ("dimensions", _count),
    "@equallength": ("equallength", _flag),
    "@serieslength": ("serieslength", _count),
    "@classlabel": ("classlabel", _labels),
    "@targetlabel": ("targetlabel", _flag),
}
WRITTEN = (
    "@problemName", "@timeStamps", "@missing", "@univariate", "@dimensions", "@equalLength", "@seriesLength",
    "@classLabel", "@targetLabel", "@data",
)  # fmt: skip


def _fields(line: str, header: Header, dimensions: int | None, where: str) -> tuple[list[str], str]:
    """The dimensions of a series, and what comes after them. Time stamps may have colons of their own."""
    *fields, label = line.split("):" if header.timestamps else ":")
    if len(fields) != dimensions and (dimensions or not fields):
        expected = f"{dimensions or 1} dimension{'s' * ((dimensions or 1) != 1)}"
        raise RuntimeError(
            f"{where} must have {expected}, each before a ':', and then a {header.target}, got {len(fields)}"
        )
    return [f"{field})" for field in fields] if header.timestamps else fields, label


def _dimension(field: str, header: Header, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Values (T,) and, where there are stamps, times (T,) of one dimension."""
    if not header.timestamps:
        return _numbers(field.split(","), where), None
    pairs = PAIR.findall(field)
    if ",".join(f"({time},{value})" for time, value in pairs).replace(" ", "") != field.replace(" ", ""):
        raise RuntimeError(f"{where} must be pairs (time,value), with ',' between them, got {field[:60]!r}")
    times = np.array([_time(time.strip()) for time, _ in pairs])
    for k in np.flatnonzero(~np.isfinite(times)):
        raise RuntimeError(f"{where}, time {k + 1} must be a number or a date in ISO format, got {pairs[k][0]!r}")
    for k in np.flatnonzero(np.diff(times) < 0):
        raise RuntimeError(f"{where}: times must not decrease, got {pairs[k + 1][0]!r} after {pairs[k][0]!r}")
    return _numbers([value for _, value in pairs], where), times


def _numbers(words: list[str], where: str) -> np.ndarray:
    found = np.array([_number(word.strip()) for word in words])
    for k in np.flatnonzero(np.isinf(found)):
        word = words[k].strip()
        raise RuntimeError(f"{where}, value {k + 1} must be a finite number, or '?' if missing, got {word!r}")
    return found


def _number(word: str) -> float:
    """NaN is a missing one, infinity what is none."""
    try:
        return math.nan if word == "?" else float(word)
    except ValueError:
        return math.inf


def _time(word: str) -> float:
    """A number as it is, a date in seconds; NaN where it is neither."""
    try:
        return float(word)
    except ValueError:
        try:
            stamp = datetime.fromisoformat(word)
            return (stamp if stamp.tzinfo else stamp.replace(tzinfo=timezone.utc)).timestamp()
        except ValueError:
            return math.nan


def _check_series(series: list[tuple[np.ndarray, np.ndarray | None]], length: int | None, where: str) -> None:
    values, times = series[0]
    if length is not None and len(values) != length:
        raise RuntimeError(f"{where} must have {length} values, as @equalLength says, got {len(values)}")
    for k, (others, other_times) in enumerate(series, 1):
        if len(others) != len(values):
            raise RuntimeError(f"{where}: dimension {k} must have {len(values)} values as the first, got {len(others)}")
        if times is not None and not np.array_equal(times, np.asarray(other_times)):
            raise RuntimeError(f"{where}: dimension {k} must have the times of the first, got others")


def _target(label: str, classes: tuple[str, ...] | None, where: str) -> int | float:
    if classes is None:
        number = _number(label)
        if not math.isfinite(number):
            raise RuntimeError(f"{where}: the target must be a finite number, got {label!r}")
        return number
    if label not in classes:
        raise RuntimeError(f"{where}: the class label must be one of {listed(classes)}, got {label!r}")
    return classes.index(label)
