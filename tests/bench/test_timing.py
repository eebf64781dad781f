"""How times are taken: in turns, within a budget."""

import time

import pytest
from vfrnn_bench.timing import MOST_CALLS, Budget, host_clock, interleaved, ratio, spread, within


def counted(log, name):
    return lambda: log.append(name)


def test_providers_take_turns_after_the_warm_up():
    log = []
    times = interleaved({"a": counted(log, "a"), "b": counted(log, "b")}, rounds=3, warm_up=2)
    assert log == [*"aabb", *"ababab"]
    assert [len(values) for values in times.values()] == [3, 3]


def test_a_sample_may_be_several_calls():
    log = []
    interleaved({"a": counted(log, "a"), "b": counted(log, "b")}, rounds=1, warm_up=0, calls={"a": 3, "b": 1})
    assert log == [*"aaab"]


def test_the_clock_of_the_host_gives_seconds_of_one_call():
    assert 0.002 <= host_clock(lambda: time.sleep(0.002), 3) < 0.2


def test_another_clock_may_be_plugged_in():
    calls = []

    def clock(run, count):
        calls.append(count)
        return 0.5

    assert within(Budget(2.0, least=1, most=9), {"a": print, "b": print}, clock) == {"a": [0.5] * 2, "b": [0.5] * 2}
    assert calls == [1] * 6  # one round to see how long it takes, two within the budget


@pytest.mark.parametrize(("one", "rounds"), [(0.1, 20), (0.0, 27), (100.0, 5)])
def test_rounds_of_a_budget(one, rounds):
    assert Budget(2.0).rounds(one) == rounds


@pytest.mark.parametrize(("once", "calls"), [(0.3, 1), (0.03, 4), (0.0, MOST_CALLS)])
def test_short_calls_are_repeated(once, calls):
    assert Budget(1.0, sample=0.1).calls(once) == calls
    assert Budget(1.0).calls(once) == 1


def test_nothing_to_run():
    assert within(Budget(1.0), {}) == {}


def test_ratio_is_of_the_same_round_and_spread_of_the_quartiles():
    assert ratio({"ours": [1.0, 2.0, 30.0], "peer": [2.0, 4.0, 6.0]}, "ours", "peer") == 0.5
    assert spread([1.0, 2.0, 3.0]) == 0.5
