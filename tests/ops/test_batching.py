"""torch.vmap of an op: one call for all that is mapped, with the bits of the loop; a loop where that cannot be."""

from collections import Counter

import pytest
import torch
from torch.func import grad, jacrev, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from tests.cases import random_mesh, skew_matrix
from vfrnn_kernels import field_generator, final_state, recurrence, skew_expm, strang_step
from vfrnn_kernels.batching import map_op
from vfrnn_kernels.declaration import OPS, T


class Calls(TorchDispatchMode):
    """Counts the calls of the library's ops by name."""

    def __init__(self):
        super().__init__()
        self.of = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "vfrnn_kernels":
            self.of[func._opname] += 1
        return func(*args, **(kwargs or {}))


def generators(*batch, n=5, dtype=torch.float32):
    A = torch.randn(*batch, n, n, dtype=torch.float64)
    return (A - A.mT).to(dtype)


def recurrences(K):
    """x (T, K, B, i), h0 (B, K, n), and U, M, which are not mapped."""
    return torch.randn(6, K, 2, 3), torch.randn(2, K, 8), torch.randn(8, 3), 0.2 * torch.randn(8, 8)


def the_same(found, expected):
    """To the bit, of tensors or of tuples of them."""
    found, expected = ((t,) if isinstance(t, torch.Tensor) else t for t in (found, expected))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def loop(function, *lists):
    """The function of every row of the arguments, stacked."""
    rows = [function(*row) for row in zip(*lists, strict=True)]
    if isinstance(rows[0], torch.Tensor):
        return torch.stack(rows)
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


def exponential():
    G = torch.randn(5, 5)
    return lambda S: skew_expm(S, 0.7), lambda S: (skew_expm(S, 0.7) * G).sum(), [generators(7)], (0,)


def large_exponential():
    G = torch.randn(20, 20)
    return skew_expm, lambda S: (skew_expm(S) * G).sum(), [generators(5, n=20)], (0,)


def times():
    S, G = generators(), torch.randn(5, 5)
    return lambda t: skew_expm(S, t), lambda t: (skew_expm(S, t) * G).sum(), [torch.linspace(-1, 3, 9)], (0,)


def step():
    G = torch.randn(5, 5)

    def function(S, delta):
        return strang_step(S, delta, 0.5, 3)

    return function, lambda *a: (function(*a) * G).sum(), [generators(7), torch.randn(7, 5)], (0, 0)


def fields():
    b, w, N, G = random_mesh(6, 9, 2, torch.float32)
    A = torch.randn(6, 6)

    def function(v):
        return field_generator(b, w, N, G, v)

    return function, lambda v: (function(v)[0] * A).sum() + function(v)[1].sum(), [torch.randn(7, 9, 2)], (0,)


def states():
    x, h0, U, M = recurrences(4)

    def function(x, h0):
        return recurrence(x, U, None, M, h0)

    return function, lambda *a: function(*a).square().sum(), [x.movedim(1, 0), h0.movedim(1, 0)], (1, 1)


def last_states():
    x, h0, U, M = recurrences(4)

    def function(x, h0):
        return recurrence(x, U, None, M, h0, return_sequence=False)

    return function, lambda *a: function(*a).square().sum(), [x.movedim(1, 0), h0.movedim(1, 0)], (1, 1)


CASES = {
    function.__name__: function
    for function in (exponential, large_exponential, times, step, fields, states, last_states)
}
OP_OF = {"exponential": "skew_expm", "large_exponential": "skew_expm", "times": "skew_expm", "step": "strang_step"}
OP_OF |= {"fields": "field_generator", "states": "recurrence", "last_states": "recurrence"}


@pytest.mark.parametrize("case", CASES)
def test_one_call_with_the_bits_of_the_loop(case):
    function, _, lists, _ = CASES[case]()
    with Calls() as calls:
        found = vmap(function)(*lists)
    the_same(found, loop(function, *lists))
    assert calls.of == {OP_OF[case]: 1}


@pytest.mark.parametrize("case", CASES)
def test_one_backward_with_the_bits_of_the_loop(case):
    _, scalar, lists, dims = CASES[case]()
    of_all = tuple(range(len(lists)))
    moved = [t.movedim(0, dim) for t, dim in zip(lists, dims, strict=True)]
    with Calls() as calls:
        found = vmap(grad(scalar, argnums=of_all), in_dims=dims)(*moved)
    the_same(found, loop(grad(scalar, argnums=of_all), *lists))
    per_call = 2 if case == "fields" else 1  # its scalar calls the op twice
    assert calls.of == {OP_OF[case]: per_call, f"{OP_OF[case]}_backward": per_call}


@pytest.mark.parametrize("case", ["exponential", "step", "fields", "states"])
def test_what_a_map_returns_is_differentiated_by_one_backward(case):
    function, _, lists, _ = CASES[case]()
    leaves = [t.clone().requires_grad_() for t in lists]
    results = vmap(function)(*leaves)
    results = results if isinstance(results, tuple) else (results,)
    with Calls() as calls:
        found = torch.autograd.grad([t.square().sum() for t in results], leaves)
    assert calls.of == {f"{OP_OF[case]}_backward": 1}

    def of_one(*row):
        row = [t.clone().requires_grad_() for t in row]
        out = function(*row)
        out = out if isinstance(out, tuple) else (out,)
        return torch.autograd.grad([t.square().sum() for t in out], row)

    the_same(found, loop(of_one, *lists))


def test_a_thousand_small_ones_are_one_call():
    S = generators(2000)
    with Calls() as calls:
        Q = vmap(skew_expm)(S)
    assert calls.of == {"skew_expm": 1}
    assert torch.equal(Q, skew_expm(S))


def test_maps_of_maps():
    S, G = generators(3, 4, 2), torch.randn(5, 5)

    def scalar(S):
        return (skew_expm(S) * G).sum()

    with Calls() as calls:
        found = vmap(vmap(grad(scalar), in_dims=1), in_dims=1)(S)
    assert calls.of == {"skew_expm": 1, "skew_expm_backward": 1}
    for k in range(4):
        for j in range(2):
            assert torch.equal(found[k, j], torch.stack([grad(scalar)(S[i, k, j]) for i in range(3)]))


def test_a_jacobian_is_one_backward():
    S = generators()
    with Calls() as calls:
        jacobian = jacrev(skew_expm)(S)
    assert calls.of == {"skew_expm": 1, "skew_expm_backward": 1}
    rows = torch.eye(25).reshape(25, 5, 5)
    leaf = S.clone().requires_grad_()
    Q = skew_expm(leaf)
    expected = torch.stack([torch.autograd.grad(Q, leaf, row, retain_graph=True)[0] for row in rows])
    assert torch.equal(jacobian.reshape(25, 5, 5), expected)
    with Calls() as calls:
        mapped = vmap(lambda row: torch.autograd.grad(Q, leaf, row, retain_graph=True)[0])(rows)
    assert torch.equal(mapped, expected)
    assert calls.of == {"skew_expm_backward": 1}


def test_second_derivatives_of_a_map():
    S, G = generators(3, n=4, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)

    def square(A):
        return (skew_expm(A - A.mT) * G).sum() ** 2

    hessians = vmap(jacrev(grad(square)))(S / 2)
    torch.testing.assert_close(hessians, torch.stack([jacrev(grad(square))(s / 2) for s in S]))


def test_what_has_no_samples_is_mapped_one_by_one():
    x, h0, U, M = recurrences(4)
    many = torch.stack([M, 2 * M, -M])
    with Calls() as calls:
        found = vmap(lambda M: recurrence(x[:, 0], U, None, M, h0[:, 0]))(many)
    assert torch.equal(found, torch.stack([recurrence(x[:, 0], U, None, m, h0[:, 0]) for m in many]))
    assert calls.of == {"recurrence": 3}


@pytest.mark.parametrize("activation", ["tanh", "modrelu"])
def test_gradients_that_would_be_added_up_are_those_of_each(activation):
    x, h0, U, M = (t.double() for t in recurrences(4))
    c, beta = torch.randn(2, 8).double()
    shared = (U, c, M, beta)

    def scalar(shared, x, h0):
        U, c, M, beta = shared
        return recurrence(x, U, c, M, h0, activation, beta if activation == "modrelu" else None).square().sum()

    gradients = grad(scalar, argnums=(0, 1, 2))
    with Calls() as calls:
        found = vmap(gradients, in_dims=(None, 1, 1))(shared, x, h0)
    assert calls.of == {"recurrence": 1, "recurrence_backward": 1}
    expected = [gradients(shared, x[:, k], h0[:, k]) for k in range(4)]
    for k, each in enumerate(expected):
        of_k = torch.utils._pytree.tree_map(lambda value, k=k: value[k], found)
        # the same sums in another order
        torch.testing.assert_close(of_k, each, rtol=1e-12, atol=1e-12)
    # another level of vmap, and derivatives of what it gives
    twice = vmap(vmap(gradients, in_dims=(None, 1, 1)), in_dims=(None, 2, None))(shared, x.unsqueeze(2), h0)
    torch.testing.assert_close(twice[0][2][0], found[0][2], rtol=1e-12, atol=1e-12)

    def of_the_matrix(M, x, h0):
        return grad(lambda M: scalar((U, c, M, beta), x, h0))(M)[0, 0]

    second = vmap(grad(of_the_matrix), in_dims=(None, 1, 1))(M, x, h0)
    each = torch.stack([grad(of_the_matrix)(M, x[:, k], h0[:, k]) for k in range(4)])
    torch.testing.assert_close(second, each, rtol=1e-10, atol=1e-10)


def test_the_mesh_learned_of_every_field():
    b, w, N, G = (t.double() for t in random_mesh(6, 9, 2, torch.float32))
    v = torch.randn(3, 9, 2, dtype=torch.float64)

    def scalar(b, G, v):
        return field_generator(b, w, N, G, v)[0].square().sum()

    found = vmap(grad(scalar, argnums=(0, 1, 2)), in_dims=(None, None, 0))(b, G, v)
    the_same(found, loop(lambda v: grad(scalar, argnums=(0, 1, 2))(b, G, v), v))


@pytest.mark.parametrize("op", ["skew_expm", "field_generator", "strang_step", "recurrence"])
def test_every_backend_says_where_samples_are(op):
    declared = OPS[op]
    for backend in ("cpu", "triton", "reference"):
        for t in (*declared.outputs, *declared.saved_on(backend).tensors):
            assert set(t.shape.split()) & set(declared.samples)


def test_the_reference_is_mapped_too():
    S = generators(4, dtype=torch.float64)
    found = vmap(lambda S: skew_expm(S, backend="reference"))(S)
    torch.testing.assert_close(found, skew_expm(S), rtol=0, atol=1e-14)


def test_a_dimension_joins_its_samples_wherever_it_is():
    seen = []

    def run(a, b, c, factor):
        seen.append((tuple(a.shape), tuple(b.shape), c))
        return (factor * a,)

    declared, results = [T("a", "m K"), T("b", "K n"), T("c", "K", optional=True)], [T("r", "m K")]
    a, b = torch.randn(2, 3, 4), torch.randn(3, 5)  # a is mapped at its last dimension, b not
    (found,), dims = map_op(run, declared, results, ("K",), 4, (2, None, None, None), (a, b, None, 3.0))
    assert seen == [((2, 12), (12, 5), None)]
    assert dims == (1,)
    assert torch.equal(found.movedim(1, 2), 3 * a)


def test_chunks_of_a_long_sequence_are_mapped_as_one(monkeypatch):
    monkeypatch.setattr(final_state, "LEAST_NUMBERS", 1)
    x, h0, U, M = recurrences(4)

    def scalar(x, h0):
        return recurrence(x, U, None, M, h0, return_sequence=False).square().sum()

    found = vmap(grad(scalar, argnums=(0, 1)), in_dims=(1, 1))(x, h0)
    the_same(found, loop(grad(scalar, argnums=(0, 1)), x.movedim(1, 0), h0.movedim(1, 0)))


def test_a_map_of_empty_batches():
    S = torch.empty(3, 0, 5, 5)
    assert vmap(skew_expm)(S).shape == (3, 0, 5, 5)


def test_generators_of_many_sizes_are_mapped_as_batches():
    for n in (1, 2, 3, 17):
        S = torch.stack([skew_matrix(n, norm, dtype=torch.float32) for norm in (0.5, 4.0, 60.0)])
        assert torch.equal(vmap(skew_expm)(S), skew_expm(S))
