"""Series from .npz: what is read, and a message with its key for all that is not as it should be."""

import io

import numpy as np
import pytest

from vfrnn.tasks.npz import parse_npz

INPUTS = np.arange(24.0).reshape(3, 4, 2)
LABELS = np.array([7, -1, 7])


def parsed(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return parse_npz(file.getvalue(), "a.npz")


def changed(array, place, value):
    array = np.array(array, dtype=np.float64)
    array[place] = value
    return array


def test_integers_are_classes():
    found = parsed(inputs=INPUTS.astype(np.float32), targets=LABELS)
    assert (found.classes, found.targets.tolist(), found.times) == (("-1", "7"), [1, 0, 1], None)
    np.testing.assert_array_equal(found.values[2], INPUTS[2])


def test_floats_are_a_regression():
    assert parsed(inputs=INPUTS.astype(int), targets=np.array([0.5, 1, 2])).targets.tolist() == [[0.5], [1], [2]]
    found = parsed(inputs=INPUTS, targets=INPUTS[:, 0])
    assert (found.classes, found.kind) == (None, "a regression of 2 numbers")
    np.testing.assert_array_equal(found.targets, INPUTS[:, 0])


def test_nothing_after_a_series_ends_is_read():
    times = changed(np.tile(np.arange(4), (3, 1)), (1, 3), np.nan)
    inputs = changed(changed(INPUTS, (1, 3, 0), np.inf), (0, 0, 0), np.nan)
    found = parsed(inputs=inputs, targets=LABELS, times=times, lengths=np.array([4, 3, 1]))
    assert [len(values) for values in found.values] == [len(of_one) for of_one in found.times] == [4, 3, 1]
    assert np.isnan(found.values[0][0, 0])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": INPUTS}, r"a\.npz must have the key 'targets', got 'inputs'"),
        ({}, r"a\.npz must have the key 'inputs', got no key"),
        (
            {"inputs": INPUTS, "targets": LABELS, "mask": LABELS},
            r"a\.npz: keys must be 'inputs', 'targets' and perhaps 'times', 'lengths', got 'mask'",
        ),
        (
            {"inputs": INPUTS, "targets": np.array([1, None, "a"], dtype=object)},
            r"a\.npz: targets must be an array of numbers, which needs no pickle: Object arrays cannot be loaded",
        ),
        (
            {"inputs": INPUTS.astype(str), "targets": LABELS},
            r"a\.npz: inputs must be numbers, got the dtype <U32",
        ),
        (
            {"inputs": INPUTS[..., 0], "targets": LABELS},
            r"a\.npz: inputs must have shape \(N, T, i\), none of them 0, got \(3, 4\)",
        ),
        (
            {"inputs": INPUTS[:0], "targets": LABELS[:0]},
            r"a\.npz: inputs must have shape \(N, T, i\), none of them 0, got \(0, 4, 2\)",
        ),
        (
            {"inputs": changed(INPUTS, (1, 2, 0), -np.inf), "targets": LABELS},
            r"a\.npz: inputs must be finite, or NaN where a value is missing, got -inf in inputs\[1, 2, 0\]",
        ),
        (
            {"inputs": INPUTS, "targets": LABELS[:2]},
            r"a\.npz: targets must have shape \(N,\) with N = 3, got \(2,\)",
        ),
        (
            {"inputs": INPUTS, "targets": LABELS[:, None]},
            r"a\.npz: targets must have shape \(N,\) with N = 3, got \(3, 1\)",
        ),
        (
            {"inputs": INPUTS, "targets": INPUTS[:2, 0]},
            r"a\.npz: targets must have shape \(N, o\) with N = 3, got \(2, 2\)",
        ),
        (
            {"inputs": INPUTS, "targets": INPUTS},
            r"a\.npz: targets must have shape \(N,\) with N = 3, got \(3, 4, 2\)",
        ),
        (
            {"inputs": INPUTS, "targets": np.array(["a", "b", "c"])},
            r"a\.npz: targets must be integers \(classes\) or floats \(a regression\), got the dtype <U1",
        ),
        (
            {"inputs": INPUTS, "targets": changed(INPUTS[:, 0], (2, 1), np.nan)},
            r"a\.npz: targets must be finite, got nan in targets\[2, 1\]",
        ),
        (
            {"inputs": INPUTS, "targets": LABELS, "lengths": np.array([1.0, 2, 3])},
            r"a\.npz: lengths must be integers, got the dtype float64",
        ),
        (
            {"inputs": INPUTS, "targets": LABELS, "lengths": np.array([1, 2])},
            r"a\.npz: lengths must have shape \(N,\) with N = 3, got \(2,\)",
        ),
        (
            {"inputs": INPUTS, "targets": LABELS, "lengths": np.array([1, 5, 2])},
            r"a\.npz: lengths must be from 1 to T = 4, got 5 in lengths\[1\]",
        ),
        (
            {"inputs": INPUTS, "targets": LABELS, "times": np.zeros((3, 5))},
            r"a\.npz: times must have shape \(N, T\) with N = 3 and T = 4, got \(3, 5\)",
        ),
        (
            {"inputs": INPUTS, "targets": LABELS, "times": changed(np.zeros((3, 4)), (2, 3), np.nan)},
            r"a\.npz: times must be finite, got nan in times\[2, 3\]",
        ),
        (
            {"inputs": INPUTS, "targets": LABELS, "times": changed(np.zeros((3, 4)), (2, 1), 6)},
            r"a\.npz: times must not decrease along a series, got 0\.0 after 6\.0 in times\[2, 2\]",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_key(arrays, message):
    with pytest.raises(RuntimeError, match=message):
        parsed(**arrays)


def test_what_is_no_archive():
    for data in (b"", b"text", b"PK\x03\x04 cut off"):
        with pytest.raises(
            RuntimeError, match=r"a\.npz must be an archive of arrays, as numpy\.savez writes it, got none"
        ):
            parse_npz(data, "a.npz")
    file = io.BytesIO()
    np.save(file, INPUTS)
    with pytest.raises(RuntimeError, match=r"as numpy\.savez writes it, got a single array"):
        parse_npz(file.getvalue(), "a.npz")
