"""What a process holds, and whether it rises."""

import ctypes
import mmap
import os
import subprocess
import sys
import threading
import time

import pytest
from vfrnn_bench.levels import Levels, Memory, heap, here, resident, settled, slope, verdicts

FLAT = Levels(resident=100.0, heap=10.0, blocks=5.0, descriptors=8, threads=2, children=0)
LIMITS = {"resident": 50.0, "heap": 5.0, "blocks": 5.0}


def rising(**by_cycle):
    return [
        Levels(**{name: value + by_cycle.get(name, 0) * k for name, value in vars(FLAT).items()}) for k in range(10)
    ]


def rose(samples):
    return [verdict.quantity for verdict in verdicts(samples, LIMITS) if not verdict.level]


def test_level_is_level():
    assert rose(rising()) == []


@pytest.mark.parametrize(
    ("quantity", "step"), [("resident", 6), ("heap", 0.6), ("blocks", 1), ("descriptors", 1), ("threads", 1)]
)
def test_what_rises_is_named(quantity, step):
    assert rose(rising(**{quantity: step})) == [quantity]


def test_a_memory_that_falls_or_jumps_once_does_not_rise_but_a_count_must_stay():
    jump = rising()
    jump[4] = Levels(**{**vars(FLAT), "resident": 1e9})
    assert rose(jump) == []
    assert rose(rising(resident=-9, heap=-9)) == []
    assert rose(rising(descriptors=-1)) == ["descriptors"]


def test_a_slope_is_the_median_of_all_pairs():
    assert slope([1.0, 3.0, 5.0, 7.0]) == 2.0
    assert slope([0.0, 1.0, 2.0, 3.0, 100.0, 5.0, 6.0]) == 1.0


def test_few_samples_are_refused():
    with pytest.raises(ValueError, match="at least 3 samples are needed to tell a slope, got 2"):
        verdicts([FLAT, FLAT], LIMITS)


def test_memory_is_subtracted_and_added():
    more = Levels(**{**vars(FLAT), "heap": 17.0, "threads": 5})
    assert more - FLAT == Memory(heap=7.0)
    assert more.without(more - FLAT) == Levels(**{**vars(FLAT), "threads": 5})
    assert Memory(1, 2, 3) + Memory(heap=1) == Memory(1, 3, 3)


def test_resident_memory_is_that_of_the_process():
    before = resident()
    with mmap.mmap(-1, 2**25) as fresh:  # pages of its own: the allocator may have so much to give already
        for page in range(0, len(fresh), mmap.PAGESIZE):
            fresh[page] = 1
        assert 25 < resident() - before < 60


def test_the_heap_is_what_malloc_has_given():
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.free.argtypes = [ctypes.c_void_p]
    before = heap()
    given = [library.malloc(4000) for _ in range(100)]  # too large for the caches of freed pieces
    assert 400_000 <= heap() - before < 450_000
    for pointer in given:
        library.free(pointer)
    assert abs(heap() - before) < 50_000


def test_descriptors_threads_and_children_are_counted():
    before = here()
    with open(os.devnull) as _:
        assert here().descriptors == before.descriptors + 1
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    assert here().threads == before.threads + 1
    end.set()
    thread.join()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert here().children == before.children + 1
        child.communicate(b"\n")
    assert settled(before).children == before.children


def test_what_is_about_to_end_is_waited_for():
    before = here()
    told = threading.Event()
    threading.Thread(target=lambda: (told.wait(), time.sleep(0.3))).start()
    assert here().threads == before.threads + 1
    told.set()
    assert settled(before).threads == before.threads
