"""Two files are one collection, or do not belong together, which is said."""

import numpy as np
import pytest

from vfrnn.tasks.collection import Collection, joined, listed

NAMES = ("a_TRAIN.ts", "a_TEST.ts")


def collection(classes=("x", "y"), channels=2, timed=False, numbers=1):
    targets = np.array([0, 1, 1]) if classes else np.zeros((3, numbers))
    return Collection([np.ones((4, channels))] * 3, targets, classes, [np.arange(4)] * 3 if timed else None)


def test_series_of_the_test_split_come_last():
    train, test = collection(timed=True), collection(timed=True)
    found = joined(train, test, NAMES)
    assert (len(found.values), len(found.times)) == (6, 6)
    assert found.targets.tolist() == [0, 1, 1, 0, 1, 1]


def test_classes_go_by_name():
    assert joined(collection(), collection(("y", "x")), NAMES).targets.tolist() == [0, 1, 1, 1, 0, 0]
    test = Collection([np.ones((4, 2))], np.array([1]), ("named only", "x"))
    assert joined(collection(), test, NAMES).targets.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (collection(), collection(channels=3), "a_TEST.ts must have the channels of a_TRAIN.ts, 2, got 3"),
        (
            collection(),
            collection(None),
            "a_TEST.ts must have the targets of a_TRAIN.ts, classes, got a regression of 1 number",
        ),
        (
            collection(None, numbers=2),
            collection(None),
            "targets of a_TRAIN.ts, a regression of 2 numbers, got a regression of 1 number",
        ),
        (collection(), collection(timed=True), "a_TEST.ts must have the times of a_TRAIN.ts, none, got given"),
        (collection(), collection(("x", "z")), "must have the classes of a_TRAIN.ts, 'x', 'y', got 'z'"),
    ],
)
def test_files_that_do_not_belong_together(train, test, message):
    with pytest.raises(RuntimeError, match=message):
        joined(train, test, NAMES)


def test_long_lists_are_cut():
    assert listed(("a", "b")) == "'a', 'b'"
    assert listed(tuple("abcdefghijkl")).endswith("'j' and 2 more")
