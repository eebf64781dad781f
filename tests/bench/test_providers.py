"""What a provider is, and how one is made of a layer or a function."""

import pytest
import torch
from torch import nn
from vfrnn_bench.providers import (
    FORWARD,
    STEP,
    Provider,
    Setting,
    along,
    differentiated,
    layer_provider,
    of_squares,
    our_backends,
    ours,
)

from tests.bench.small import CPU, ON_CPU


@pytest.mark.parametrize("update", [True, False])
def test_a_layer_gives_its_output_and_the_gradients(update):
    layer, x, grad = nn.RNN(2, 3), torch.randn(4, 5, 2), torch.randn(4, 5, 3)
    provider = layer_provider(layer, x, along(grad), 1e-3, update=update)
    before = {name: p.clone() for name, p in layer.named_parameters()}
    for _ in range(2):  # gradients do not add up
        found = provider.runs[STEP]()
    output = layer(x)[0]
    expected = torch.autograd.grad(output, list(layer.parameters()), grad)
    assert torch.equal(found["output"], output)
    for (name, parameter), wanted in zip(layer.named_parameters(), expected, strict=True):
        torch.testing.assert_close(found[f"grad {name}"], wanted)
        assert torch.equal(parameter, before[name])
    inferred = provider.runs[FORWARD]()
    assert list(inferred) == ["output"]
    assert torch.equal(inferred["output"], output)
    assert not inferred["output"].requires_grad


def test_a_loss_of_squares():
    x = torch.randn(3, requires_grad=True)
    of_squares(x)
    torch.testing.assert_close(x.grad, 2 * x.detach() / 3)


def test_a_function_gives_its_outputs_by_name_and_the_gradients_of_what_is_learned():
    tensors = {"a": torch.randn(3), "b": torch.randn(3)}
    grads = {"sum": torch.randn(3), "product": torch.randn(3)}
    provider = differentiated(lambda a, b: (a + b, a * b), tensors, "a", grads, 1e-3)
    for _ in range(2):
        found = provider.runs[STEP]()
    assert set(found) == {"sum", "product", "grad a"}
    assert torch.equal(found["product"], tensors["a"] * tensors["b"])
    torch.testing.assert_close(found["grad a"], grads["sum"] + grads["product"] * tensors["b"])
    assert set(provider.runs[FORWARD]()) == {"sum", "product"}


def test_a_setting_places_tensors_and_its_exact_ones_are_rounded_first():
    on = Setting(CPU, torch.bfloat16)
    t = torch.tensor([1 / 3])
    assert on.place(t).dtype == torch.bfloat16
    assert on.exact(t).dtype == torch.float64
    assert on.exact(t) == on.place(t).double()
    assert on.limit > ON_CPU.limit


def test_the_reference_serves_only_where_it_is_alone():
    assert our_backends("recurrence", ON_CPU)[0] == "cpu"
    assert "reference" not in our_backends("recurrence", ON_CPU)
    assert our_backends("recurrence", Setting(CPU, torch.bfloat16)) == ["reference"]


def test_names_of_ours(monkeypatch):
    monkeypatch.setattr("vfrnn_bench.providers.our_backends", lambda op, on: ["cuda", "triton"])

    def make(backend):
        return Provider({}, 0.0, lambda: {backend: torch.ones(1)})

    found = ours("vfrnn.op", "op", ON_CPU, make)
    assert list(found) == ["vfrnn.op", "vfrnn.op (triton)"]
    assert [next(iter(provider().exact())) for provider in found.values()] == ["cuda", "triton"]
    named = ours("vfrnn.op", "op", Setting(CPU, name_backends=True), make)
    assert list(named) == ["vfrnn.op cuda", "vfrnn.op triton"]
