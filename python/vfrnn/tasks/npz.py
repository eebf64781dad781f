"""Series from a .npz file of NumPy: every error names the key, what was expected and what came."""

from __future__ import annotations

import io
import zipfile

import numpy as np

from vfrnn.tasks.collection import Collection, listed

NEEDED, OPTIONAL = ("inputs", "targets"), ("times", "lengths")


def parse_npz(data: bytes, name: str) -> Collection:
    """The series of a file.

    Its keys are `inputs` (N, T, i), NaN where a value is missing; `targets`, integers (N,), which are classes, or
    floats (N,) or (N, o); and, if need be, `times` (N, T), which never decrease, and `lengths` (N,), after which
    nothing of a series is read.

    Args:
        data: all of it.
        name: of the file, for errors.

    Raises:
        RuntimeError: a key, which is named, is not so.
    """
    arrays = _arrays(data, name)
    inputs, targets = arrays["inputs"], arrays["targets"]
    _check(f"{name}: inputs", inputs, "fiu", "numbers", ("N", "T", "i"), {})
    sizes = dict(zip("NT", inputs.shape, strict=False))
    lengths = _lengths(arrays.get("lengths"), sizes, name)
    values = [series[:length] for series, length in zip(inputs.astype(np.float64), lengths, strict=True)]
    for k, series in enumerate(values):
        for step, channel in np.argwhere(np.isinf(series)):
            got = f"{series[step, channel]} in inputs[{k}, {step}, {channel}]"
            raise RuntimeError(f"{name}: inputs must be finite, or NaN where a value is missing, got {got}")
    times = None if "times" not in arrays else _times(arrays["times"], lengths, sizes, name)
    if targets.dtype.kind in "iu":
        _check(f"{name}: targets", targets, "iu", "integers (classes)", ("N",), sizes)
        classes, places = np.unique(targets, return_inverse=True)
        return Collection(values, places.reshape(-1), tuple(map(str, classes)), times)
    axes = ("N", "o") if targets.ndim == 2 else ("N",)
    _check(f"{name}: targets", targets, "f", "integers (classes) or floats (a regression)", axes, sizes)
    for place in np.argwhere(~np.isfinite(targets)):
        index = ", ".join(map(str, place))
        raise RuntimeError(f"{name}: targets must be finite, got {targets[tuple(place)]} in targets[{index}]")
    return Collection(values, targets.astype(np.float64).reshape(len(targets), -1), None, times)


def _arrays(data: bytes, name: str) -> dict[str, np.ndarray]:
    try:
        file = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise RuntimeError(f"{name} must be an archive of arrays, as numpy.savez writes it, got none") from error
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise RuntimeError(f"{name} must be an archive of arrays, as numpy.savez writes it, got a single array")
    keys = tuple(file.files)
    for key in NEEDED:
        if key not in keys:
            raise RuntimeError(f"{name} must have the key {key!r}, got {listed(keys) or 'no key'}")
    for key in keys:
        if key not in NEEDED + OPTIONAL:
            raise RuntimeError(f"{name}: keys must be {listed(NEEDED)} and perhaps {listed(OPTIONAL)}, got {key!r}")
    found = {}
    for key in keys:
        try:
            found[key] = file[key]
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise RuntimeError(f"{name}: {key} must be an array of numbers, which needs no pickle: {error}") from error
    return found


def _check(where: str, array: np.ndarray, kinds: str, words: str, axes: tuple[str, ...], sizes: dict[str, int]) -> None:
    if array.dtype.kind not in kinds:
        raise RuntimeError(f"{where} must be {words}, got the dtype {array.dtype}")
    shape = f"({', '.join(axes)}{',' * (len(axes) == 1)})"
    known = " and ".join(f"{axis} = {sizes[axis]}" for axis in axes if axis in sizes)
    fits = array.ndim == len(axes) and all(
        size == sizes.get(axis, size) for axis, size in zip(axes, array.shape, strict=True)
    )
    if not fits or array.size == 0:
        expected = f"{shape} with {known}" if known else f"{shape}, none of them 0"
        raise RuntimeError(f"{where} must have shape {expected}, got {array.shape}")


def _lengths(lengths: np.ndarray | None, sizes: dict[str, int], name: str) -> np.ndarray:
    if lengths is None:
        return np.full(sizes["N"], sizes["T"])
    _check(f"{name}: lengths", lengths, "iu", "integers", ("N",), sizes)
    for k in np.flatnonzero((lengths < 1) | (lengths > sizes["T"])):
        raise RuntimeError(f"{name}: lengths must be from 1 to T = {sizes['T']}, got {lengths[k]} in lengths[{k}]")
    return lengths


def _times(times: np.ndarray, lengths: np.ndarray, sizes: dict[str, int], name: str) -> list[np.ndarray]:
    _check(f"{name}: times", times, "fiu", "numbers", ("N", "T"), sizes)
    found = [of_one[:length] for of_one, length in zip(times.astype(np.float64), lengths, strict=True)]
    for k, of_one in enumerate(found):
        for step in np.flatnonzero(~np.isfinite(of_one)):
            raise RuntimeError(f"{name}: times must be finite, got {of_one[step]} in times[{k}, {step}]")
        for step in np.flatnonzero(np.diff(of_one) < 0) + 1:
            got = f"{of_one[step]} after {of_one[step - 1]} in times[{k}, {step}]"
            raise RuntimeError(f"{name}: times must not decrease along a series, got {got}")
    return found
