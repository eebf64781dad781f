"""The format .ts: what is read, and a message with its line for all that is not as it should be."""

import numpy as np
import pytest

from vfrnn.tasks.ts import parse_ts

HEADER = "# two lines\n@problemName p\n@timeStamps false\n@univariate false\n@classLabel true up down\n@data\n"
STAMPED = "@timeStamps true\n@targetLabel true\n@data\n"


def test_dimensions_missing_values_and_unequal_lengths():
    found = parse_ts(f"{HEADER}1,2,?:4,5,6:down\n\n# between\n7, NaN :-1e-3,2: up\n", "a.ts")
    np.testing.assert_array_equal(found.values[0], [[1, 4], [2, 5], [np.nan, 6]])
    np.testing.assert_array_equal(found.values[1], [[7, -1e-3], [np.nan, 2]])
    assert (found.classes, found.targets.tolist(), found.times) == (("up", "down"), [1, 0], None)
    assert found.channels == 2


def test_keys_in_any_case_and_windows_lines():
    text = "@problemname p\r\n@missing false\r\n@UNIVARIATE true\r\n@equallength true\r\n@seriesLength 2\r\n"
    found = parse_ts(text + "@classLabel false\r\n@targetlabel TRUE\r\n@data\r\n1,2:-3.5\r\n", "a.ts")
    assert found.classes is None
    assert found.targets.tolist() == [[-3.5]]
    assert found.values[0].tolist() == [[1], [2]]


def test_time_stamps_are_numbers_or_dates():
    found = parse_ts(STAMPED + "(0,-1),(2.5,3):(0,4),(2.5,?):7\n(3, 1):(3, 2):8\n", "a.ts")
    assert [times.tolist() for times in found.times] == [[0, 2.5], [3]]
    np.testing.assert_array_equal(found.values[0], [[-1, 4], [3, np.nan]])
    found = parse_ts(STAMPED + "(2016-01-28 17:00:00,1),(2016-01-28 17:00:10,2):7\n", "a.ts")
    assert np.diff(found.times[0]).tolist() == [10]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2:up\n", r"a\.ts, line 1 must be of the header, which '@data' ends, and start with '@', got '1,2:up'"),
        ("@univariate true\n", r"a\.ts must have a line '@data' after its header, got none in 1 lines"),
        ("\n@colour true\n", r"a\.ts, line 2: the key must be one of '@problemName', .*, got '@colour'"),
        ("@missing true\n@missing true\n", r"a\.ts, line 2: @missing must come once, got it in line 1 too"),
        ("@dimension 2\n@dimensions 2\n", r"a\.ts, line 2: @dimensions must come once, got it in line 1 too"),
        ("@univariate 1\n", r"a\.ts, line 1: @univariate must be true or false, got '1'"),
        ("@univariate\n", r"a\.ts, line 1: @univariate must be true or false, got ''"),
        ("@seriesLength 0\n", r"a\.ts, line 1: @seriesLength must be a whole number, at least 1, got '0'"),
        ("@dimensions two\n", r"a\.ts, line 1: @dimensions must be a whole number, at least 1, got 'two'"),
        ("@classLabel true\n", r"a\.ts, line 1: @classLabel must be true and the class labels, got 'true' alone"),
        ("@classLabel\n", r"a\.ts, line 1: @classLabel must be true or false, got ''"),
        ("@classLabel true a a\n", r"a\.ts, line 1: @classLabel must have labels that differ, got 'a', 'a'"),
        ("@data 3\n", r"a\.ts, line 1: '@data' must stand alone, got '3' after it"),
        (
            "@missing true\n@data\n",
            r"line 2: the header must have one of '@classLabel true LABELS' and '@targetLabel true', got neither",
        ),
        ("@classLabel true a\n@targetLabel true\n@data\n", r"line 3: the header must have one of .*, got both"),
        (
            "@univariate true\n@dimensions 3\n@targetLabel true\n@data\n",
            r"line 4: @dimensions must be 1 where @univariate is true, got 3",
        ),
        (HEADER, r"a\.ts must have a line for each series after '@data', got none"),
        (
            HEADER + "1,2\n",
            r"line 7 must have 1 dimension, each before a ':', and then a class label, got 0",
        ),
        (
            HEADER + "1:2:up\n1:2:3:up\n",
            r"line 8 must have 2 dimensions, each before a ':', and then a class label, got 3",
        ),
        (
            "@univariate true\n@targetLabel true\n@data\n1:2:3\n",
            r"line 4 must have 1 dimension, each before a ':', and then a target, got 2",
        ),
        (
            HEADER + "1:2,x,4:up\n",
            r"line 7, dimension 2, value 2 must be a finite number, or '\?' if missing, got 'x'",
        ),
        (HEADER + "1,:2,3:up\n", r"line 7, dimension 1, value 2 must be a finite number, .*, got ''"),
        (HEADER + "inf:2:up\n", r"line 7, dimension 1, value 1 must be a finite number, .*, got 'inf'"),
        (HEADER + "1,2:3:up\n", r"line 7: dimension 2 must have 2 values as the first, got 1"),
        (
            "@equalLength true\n@seriesLength 3\n" + HEADER + "1,2:3,4:up\n",
            r"line 9 must have 3 values, as @equalLength says, got 2",
        ),
        (
            "@equalLength true\n" + HEADER + "1,2:3,4:up\n1:2:up\n",
            r"line 9 must have 2 values, as @equalLength says, got 1",
        ),
        (HEADER + "1:2:Up\n", r"line 7: the class label must be one of 'up', 'down', got 'Up'"),
        ("@targetLabel true\n@data\n1:?\n", r"line 3: the target must be a finite number, got '\?'"),
        ("@targetLabel true\n@data\n1:\n", r"line 3: the target must be a finite number, got ''"),
        (STAMPED + "(0,1),2:3\n", r"line 4 must have 1 dimension, each before a ':', and then a target, got 0"),
        (
            STAMPED + "(0,1),2,(1,2):3\n",
            r"line 4, dimension 1 must be pairs \(time,value\), with ',' between them, got '\(0,1\),2,\(1,2\)'",
        ),
        (
            STAMPED + "(0,1),(noon,2):3\n",
            r"line 4, dimension 1, time 2 must be a number or a date in ISO format, got 'noon'",
        ),
        (STAMPED + "(5,1),(4,2):3\n", r"line 4, dimension 1: times must not decrease, got '4' after '5'"),
        (STAMPED + "(5,1):(4,2):3\n", r"line 4: dimension 2 must have the times of the first, got others"),
        (STAMPED + "(5,a):3\n", r"line 4, dimension 1, value 1 must be a finite number, .*, got 'a'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text, message):
    with pytest.raises(RuntimeError, match=message):
        parse_ts(text, "a.ts")
