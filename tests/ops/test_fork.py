"""What is remembered before a fork, and done in the child. Forked children that compute: tests/modules."""

import sys
import threading

import pytest
import torch

from vfrnn_kernels import fork, recurrence


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    monkeypatch.setattr(fork, "_had_native_threads", False)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("had", "left"), [(True, 1), (False, 2)])
def test_a_child_computes_with_one_thread_after_native_threads_only(monkeypatch, had, left):
    monkeypatch.setattr(fork, "_had_native_threads", had)
    torch.set_num_threads(2)
    fork._in_forked_child()
    assert torch.get_num_threads() == left


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/task")
def test_threads_that_python_does_not_know_are_seen():
    torch.set_num_threads(3)
    recurrence(torch.randn(40, 1, 5), torch.randn(300, 5), None, torch.randn(300, 300) / 30, backend="cpu")
    fork._before_fork()
    assert fork._had_native_threads


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/task")
def test_threads_of_python_alone_do_not_count(monkeypatch):
    class Tasks:
        """As many tasks as Python has threads."""

        def __init__(self, path):
            assert path == "/proc/self/task"

        def exists(self):
            return True

        def iterdir(self):
            return iter(range(threading.active_count()))

    monkeypatch.setattr(fork, "Path", Tasks)
    fork._before_fork()
    assert not fork._had_native_threads
