"""How forward and backward become one function: what runs when, and what its backward is asked for."""

import dataclasses

import pytest
import torch

from vfrnn_kernels import autograd, field_generator, recurrence
from vfrnn_kernels.autograd import kernels_of
from vfrnn_kernels.declaration import OPS

F64 = torch.float64


def leaves():
    """x, U, c, M, h0 of a small recurrence."""
    shapes = ((3, 2, 2), (4, 2), (4,), (4, 4), (2, 4))
    return [torch.randn(shape, dtype=F64, requires_grad=True) for shape in shapes]


@pytest.fixture
def asked(monkeypatch):
    """Every `needs` that the backward of recurrence on the CPU is called with."""
    kernels, found = kernels_of(OPS["recurrence"], "cpu"), []

    def backward(*args):
        found.append(args[-1])
        return kernels.backward(*args)

    monkeypatch.setitem(autograd._KERNELS, "recurrence:cpu", dataclasses.replace(kernels, backward=backward))
    return found


@pytest.mark.parametrize(
    ("wanted", "needs"), [([0], 0b000001), ([1, 3], 0b001010), ([0, 1, 2, 3, 4], 0b011111)], ids=str
)
def test_a_bit_for_every_gradient_that_is_needed(asked, wanted, needs):
    tensors = [t.detach().requires_grad_(k in wanted) for k, t in enumerate(leaves())]
    recurrence(*tensors, backend="cpu").sum().backward()
    assert asked == [needs]
    assert [t.grad is not None for t in tensors] == [k in wanted for k in range(5)]


def test_nothing_runs_backward_that_nobody_asked_for(asked):
    recurrence(*(t.detach() for t in leaves()), backend="cpu")
    with torch.no_grad():
        recurrence(*leaves(), backend="cpu")
    assert asked == []


def test_a_gradient_has_a_graph_only_if_one_is_created(asked):
    tensors = leaves()
    hs = recurrence(*tensors, backend="cpu").square().sum()
    plain = torch.autograd.grad(hs, tensors, retain_graph=True)
    recorded = torch.autograd.grad(hs, tensors, create_graph=True)
    assert all(grad.grad_fn is None for grad in plain)
    assert all(grad.grad_fn is not None for grad in recorded)
    assert all(torch.equal(a, b) for a, b in zip(plain, recorded, strict=True))
    assert asked == [0b011111] * 2


def test_an_output_that_is_not_used_counts_as_zero():
    b, w = torch.ones(3, dtype=F64, requires_grad=True), torch.ones(3, dtype=F64)
    v = torch.randn(3, 1, dtype=F64, requires_grad=True)
    S, delta = field_generator(b, w, None, None, v, backend="cpu")
    of_one = torch.autograd.grad(delta.square().sum(), (b, v), retain_graph=True)
    of_both = torch.autograd.grad(delta.square().sum() + 0 * S.sum(), (b, v))
    assert all(torch.equal(a, b) for a, b in zip(of_one, of_both, strict=True))


def test_forward_mode_transposes_reverse_mode():
    tensors = [t.detach() for t in leaves()]
    tangents = [torch.randn_like(t) for t in tensors]
    states, moved = torch.func.jvp(lambda *args: recurrence(*args, backend="cpu"), tuple(tensors), tuple(tangents))
    cotangent = torch.randn_like(states)
    _, pull_back = torch.func.vjp(lambda *args: recurrence(*args, backend="cpu"), *tensors)
    right = sum((gradient * tangent).sum() for gradient, tangent in zip(pull_back(cotangent), tangents, strict=True))
    torch.testing.assert_close((cotangent * moved).sum(), right)


def test_a_map_over_nothing_that_is_batched_is_the_function():
    x, U, c, M, h0 = (t.detach() for t in leaves())
    mapped = torch.func.vmap(lambda h: recurrence(x, U, c, M, h, backend="cpu"))(torch.stack([h0, 2 * h0]))
    assert torch.equal(mapped[0], recurrence(x, U, c, M, h0, backend="cpu"))
    assert torch.equal(mapped[1], recurrence(x, U, c, M, 2 * h0, backend="cpu"))


def test_the_library_op_alone_is_differentiable():
    tensors = [*leaves(), None]
    hs = torch.ops.vfrnn_kernels.recurrence(*tensors, "tanh")
    found = torch.autograd.grad(hs.sum(), tensors[:5])
    expected = torch.autograd.grad(recurrence(*tensors[:5], backend="cpu").sum(), tensors[:5])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_takes_the_same_way_with_gradients_and_without():
    # torch.jit.trace, which TensorBoard draws graphs by, traces once more without gradients and compares the graphs
    tensors = tuple(leaves())

    def function(*tensors):
        return recurrence(*tensors, backend="cpu")

    traced = torch.jit.trace(function, tensors, check_trace=True)
    torch.testing.assert_close(traced(*tensors), function(*tensors))
