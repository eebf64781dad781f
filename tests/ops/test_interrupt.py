"""Signals while an op runs: their handlers run, what they raise leaves the op within a second, and the process goes on
as before.

A handler that nobody calls during an op runs after it, so each op here must last: it is made larger until it does.
"""

import contextlib
import functools
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch

from tests.cases import heeds_ctrl_c, quick, random_mesh, skew_matrix
from tests.ops import flow_recurrence_cases
from vfrnn_kernels import (
    field_flow,
    field_generator,
    flow_recurrence,
    recurrence,
    skew_expm,
    spectral_recurrence,
    strang_step,
    thin_skew_expm,
)

#: From the signal to the exception, in seconds, of which 0.1 pass until an op looks for signals.
LIMIT = 1.0
#: What an op here takes at least when it is left alone, in seconds.
LASTS = 0.8
F32 = torch.float32


@pytest.fixture(autouse=True)
def unwritten_memory():
    """Not filled, which here would take longer than the ops."""
    torch.utils.deterministic.fill_uninitialized_memory = False


class Rang(Exception):
    """What the handler raises."""


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@contextlib.contextmanager
def signalled(handler, *after):
    """The process gets a signal after so many seconds each; whoever runs this is on the main thread."""
    before = signal.signal(signal.SIGUSR1, handler)
    timers = [threading.Timer(delay, os.kill, (os.getpid(), signal.SIGUSR1)) for delay in after]
    for timer in timers:
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
            timer.join()
        signal.signal(signal.SIGUSR1, before)


def ring(*_):
    raise Rang


def lasting(prepare, size):
    """A call of the size, of a larger one where this CPU is faster, and the seconds that it takes when left alone."""
    while True:
        call = prepare(size)
        start = time.perf_counter()
        call()
        whole = time.perf_counter() - start
        if whole > LASTS:
            return call, whole
        del call
        size += size // 2


def seconds_until_raised(call, after):
    """From the signal, `after` seconds into the call, to the exception that leaves it; infinite where none does."""
    start = time.perf_counter()
    try:
        with signalled(ring, after):
            call()
    except Rang:
        return time.perf_counter() - start - after
    return math.inf


def assert_ends_in_time(call, whole):
    """Long before its end. A machine that is busy may take the CPUs away for a while, but not at every one of three
    tries."""
    took = []
    while len(took) < 3:
        took.append(seconds_until_raised(call, LASTS / 10))
        if took[-1] < min(LIMIT, whole / 2):
            return
    raise AssertionError(f"ended {took} s after a signal, of {whole} s when left alone")


def _recurrence(n, T, B):
    M = torch.linalg.qr(torch.randn(n, n)).Q
    return recurrence, (torch.randn(T, B, 3), torch.randn(n, 3), torch.randn(n), M)


def _spectral(n, T, B):
    tensors = torch.randn(T, B, 3), torch.randn(n, 3), None, skew_matrix(n, 2.0, dtype=F32), torch.randn(n) / 9
    return functools.partial(spectral_recurrence, substeps=2), (*tensors, torch.ones(T))


def _flow_recurrence(n, T, B, symbols=False):
    arguments = flow_recurrence_cases.inputs(9, B, n, 2 * n, 2, 3, "tanh", dtype=F32)
    arguments[0] = torch.randn(T, B, 3)
    *tensors, _, dt, scale = flow_recurrence_cases.symbols(arguments) if symbols else arguments
    if not symbols:
        return lambda *ts: flow_recurrence(*ts, "tanh", None, dt, scale), tensors
    x, *others = tensors  # with gradients of x the rows are not compared
    return lambda *ts: flow_recurrence(x, *ts, "tanh", None, dt, scale), others


def _flow(n, B, one_field, substeps=4):
    b, w, N, G = random_mesh(n, 2 * n, 2, F32)
    v = 0.01 * torch.randn(*(() if one_field else (B,)), 2 * n, 2)
    return functools.partial(field_flow, substeps=substeps), (torch.randn(B, n), v, b, w, N, G)


def _generator(n, K):
    b, w, N, G = random_mesh(n, 2 * n, 2, F32)
    return field_generator, (b, w, N, G, torch.randn(K, 2 * n, 2))


def _exponential(n, K, dtype=F32, scale=1.0):
    A = torch.randn(K, n, n, dtype=dtype).mul_(scale / n)
    return skew_expm, (A - A.mT,)


def _strang(n, substeps):
    A = torch.randn(n, n, dtype=torch.float64) / n
    return lambda S, delta: strang_step(S, delta, 1.0, substeps), (A - A.mT, 0.1 * torch.randn(n, dtype=torch.float64))


def _thin(n, k):
    S = torch.randn(n, k) / n
    S[:k] -= S[:k].mT.clone()
    return thin_skew_expm, (S,)


#: name: (the function and its tensors, of sizes that grow with `size`; the size of a second on one thread; a small one)
CASES = {
    "recurrence": (lambda size: _recurrence(128, size, 1), 1_000_000, 50),
    "recurrence of a batch": (lambda size: _recurrence(128, size, 64), 16_000, 50),
    "recurrence, the state split": (lambda size: _recurrence(500, size, 1), 100_000, 50),
    "spectral recurrence": (lambda size: _spectral(60, size, 2), 500_000, 50),
    "flow recurrence": (lambda size: _flow_recurrence(40, size, 2), 60_000, 20),
    "flow recurrence, repeated fields": (lambda size: _flow_recurrence(40, size, 64, symbols=True), 100_000, 200),
    "field flow": (lambda size: _flow(100, size, one_field=False), 20_000, 20),
    "field flow, one field": (lambda size: _flow(100, size, one_field=True), 20_000, 20),
    "one sample of field flow": (lambda size: _flow(size, 1, one_field=True, substeps=60), 3_000, 20),
    "field generator": (lambda size: _generator(200, size), 2_000, 3),
    "exponential": (lambda size: _exponential(size, 1, torch.float64), 2_600, 100),
    "many exponentials": (lambda size: _exponential(60, size), 16_000, 40),
    "many small exponentials": (lambda size: _exponential(9, size, scale=1e3), 1_000_000, 40),
    "strang step": (lambda size: _strang(size, 7), 2_000, 100),
    "thin exponential": (lambda size: _thin(size, size // 8), 9_000, 100),
}


def value_and_gradients(function, tensors):
    leaves = [None if t is None else t.detach().clone().requires_grad_() for t in tensors]
    results = function(*leaves)
    results = results if isinstance(results, tuple) else (results,)
    sum(result.sum() for result in results).backward()
    return [result.detach() for result in results] + [leaf.grad for leaf in leaves if leaf is not None]


@pytest.mark.parametrize("backward", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["forward", "backward"])
@pytest.mark.parametrize("case", quick(CASES, "recurrence"))
def test_an_op_ends(case, backward, threads):
    make, long, short = CASES[case]
    function, small = make(short)
    expected = value_and_gradients(function, small)

    def prepare(size):
        function, tensors = make(size)
        if not backward:
            return lambda: function(*tensors)
        results = function(*(None if t is None else t.requires_grad_() for t in tensors))
        total = sum(result.sum() for result in (results if isinstance(results, tuple) else (results,)))
        return lambda: total.backward(retain_graph=True)

    with torch.set_grad_enabled(backward):
        assert_ends_in_time(*lasting(prepare, 2 * long // 3 if backward else long))
    again = value_and_gradients(function, small)
    assert all(torch.equal(a, b) for a, b in zip(expected, again, strict=True))


@pytest.mark.slow
def test_a_compiled_function_ends(threads):
    function, small = _recurrence(128, 50, 1)
    compiled = torch.compile(lambda *ts: function(*ts).sum(), fullgraph=True, backend="aot_eager", dynamic=True)
    expected = compiled(*small)
    assert_ends_in_time(*lasting(lambda T: functools.partial(compiled, torch.randn(T, 1, 3), *small[1:]), 500_000))
    assert torch.equal(compiled(*small), expected)


@pytest.mark.slow
def test_a_handler_that_returns_changes_nothing(threads):
    """It runs while the op does, may call ops itself, and the result has the same bits."""
    function, tensors = _recurrence(500, 20_000, 1)
    _, small = _recurrence(64, 20, 1)
    expected, expected_in_handler, seen = function(*tensors), function(*small), []

    def look(*_):
        seen.append((time.perf_counter() - start, torch.equal(function(*small), expected_in_handler)))

    with signalled(look, 0.05, 0.25, 0.45):
        start = time.perf_counter()
        result = function(*tensors)
        took = time.perf_counter() - start
    assert torch.equal(result, expected)
    assert all(same for _, same in seen)
    assert seen[0][0] < min(took, 0.05 + LIMIT)


@pytest.mark.slow
def test_an_op_that_was_ended_leaves_no_memory():
    function, tensors = _recurrence(400, 100_000, 1)  # 160 MB of states
    held = []
    with torch.no_grad():
        for _ in range(6):
            assert seconds_until_raised(lambda: function(*tensors), after=0.1) < math.inf
            with open("/proc/self/statm") as file:
                held.append(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert max(held[1:]) - held[0] < 50e6


def test_other_threads_are_left_alone():
    """Handlers run on Python's main thread: an op that another one has called goes on to its end."""
    function, tensors = _recurrence(128, 300_000, 1)
    expected, found = function(*tensors), []
    other = threading.Thread(target=lambda: found.append(function(*tensors)))

    def wait_for_it():
        other.start()
        time.sleep(60)

    with pytest.raises(Rang), signalled(ring, 0.05):
        wait_for_it()
    assert other.is_alive()
    other.join()
    assert torch.equal(found[0], expected)


CTRL_C = """
    import os, signal, sys, threading, time
    import torch
    from vfrnn_kernels import recurrence

    torch.manual_seed(0)
    x, U, M = torch.randn(1_000_000, 1, 3), torch.randn(128, 3), torch.linalg.qr(torch.randn(128, 128)).Q
    expected = recurrence(x[:50], U, None, M)

    def interrupted():
        sent = []
        send = lambda: (sent.append(time.perf_counter()), os.kill(os.getpid(), signal.SIGINT))
        threading.Timer(0.3, send).start()
        try:
            recurrence(x, U, None, M)
        except KeyboardInterrupt:
            return time.perf_counter() - sent[0]

    print(min(interrupted(), interrupted()), torch.equal(recurrence(x[:50], U, None, M), expected), flush=True)
    child = os.fork()
    if child == 0:  # its main thread is the one that forked
        print(min(interrupted(), interrupted()), torch.equal(recurrence(x[:50], U, None, M), expected), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    recurrence(x, U, None, M)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_ctrl_c(number):
    """In a process, in a child that it forked, and where nobody catches it: the status of an interrupted Python."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CTRL_C)],
        env={**os.environ, "OMP_NUM_THREADS": str(number)},
        capture_output=True,
        text=True,
        timeout=100,
        preexec_fn=heeds_ctrl_c,
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 2, done.stdout + done.stderr
    for took, same in lines:
        assert float(took) < LIMIT
        assert same == "True"
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert done.returncode == -signal.SIGINT
