"""Threads: the same bits every run and for every number of threads, also inside a parallel region."""

import functools
import threading

import pytest
import torch

from tests.cases import beta_for, random_mesh, skew_matrix
from vfrnn_kernels import field_flow, field_generator, recurrence, skew_expm, strang_step

THREADS = (1, 2, 4)


@pytest.fixture(autouse=True)
def restore_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _recurrence(T, B, n, activation):
    x, U, M, h0 = torch.randn(T, B, 5), torch.randn(n, 5), torch.linalg.qr(torch.randn(n, n)).Q, torch.randn(B, n)
    beta = beta_for(activation, n, 0.1, torch.float32)

    def function(x, U, c, M, h0, beta):
        return recurrence(x, U, c, M, h0, activation, beta)

    return function, (x, U, torch.randn(n), M, h0, beta)


def _flow(B, shared):
    b, w, N, G = random_mesh(40, 23, 3, torch.float32)
    v = 0.01 * torch.randn(*(() if shared else (B,)), 23, 3)
    return functools.partial(field_flow, substeps=2), (torch.randn(B, 40), v, b, w, N, G)


def _generator(K):
    b, w, N, G = random_mesh(130, 70, 3, torch.float32)
    return field_generator, (b, w, N, G, torch.randn(K, 70, 3))


def _strang(n, substeps):
    S, delta = skew_matrix(n, 8.0, dtype=torch.float32), 0.1 * torch.randn(n)
    return lambda S, delta: strang_step(S, delta, 1.0, substeps), (S, delta)


CASES = {
    "recurrence, batch split": lambda: _recurrence(7, 37, 70, "modrelu"),
    "recurrence, state split": lambda: _recurrence(40, 1, 300, "modrelu"),
    "recurrence, state split, two samples": lambda: _recurrence(23, 2, 401, "tanh"),
    "exponential": lambda: (skew_expm, (skew_matrix(150, 12.0, dtype=torch.float32),)),
    "exponential, many squarings": lambda: (skew_expm, (skew_matrix(90, 300.0, dtype=torch.float32),)),
    "exponential, batch": lambda: (skew_expm, (torch.stack([skew_matrix(20, 2.0, dtype=torch.float32)] * 33),)),
    "exponential, batch of large": lambda: (
        skew_expm,
        (torch.stack([skew_matrix(80, 3.0, dtype=torch.float32)] * 17),),
    ),
    "strang step": lambda: _strang(110, 1),
    "strang step, substeps": lambda: _strang(110, 5),
    "field generator": lambda: _generator(2),
    "field flow": lambda: _flow(21, shared=False),
    "field flow, one field": lambda: _flow(21, shared=True),
}


def value_and_gradients(function, tensors):
    leaves = [None if t is None else t.clone().requires_grad_() for t in tensors]
    results = function(*leaves)
    results = results if isinstance(results, tuple) else (results,)
    grads = [torch.cos(torch.arange(result.numel(), dtype=result.dtype)).reshape(result.shape) for result in results]
    torch.autograd.backward(results, grads)
    return [result.detach() for result in results] + [leaf.grad for leaf in leaves if leaf is not None]


@pytest.mark.parametrize("case", CASES)
def test_bits_and_values(case):
    function, tensors = CASES[case]()
    of_one_thread = None
    for threads in THREADS:
        torch.set_num_threads(threads)
        first = value_and_gradients(function, tensors)
        for _ in range(3):
            for a, b in zip(first, value_and_gradients(function, tensors), strict=True):
                assert torch.equal(a, b)
        of_one_thread = of_one_thread or first
        for a, b in zip(first, of_one_thread, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("case", ["recurrence, state split", "exponential", "strang step"])
def test_several_callers_at_once(case):
    """Each Python thread brings threads of its own; none may wait for another's."""
    function, tensors = CASES[case]()
    expected = value_and_gradients(function, tensors)
    results = [None] * 4

    def call(k):
        for _ in range(5):
            results[k] = value_and_gradients(function, tensors)

    callers = [threading.Thread(target=call, args=(k,)) for k in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=120)
        assert not caller.is_alive()
    for result in results:
        for a, b in zip(result, expected, strict=True):
            assert torch.equal(a, b)
