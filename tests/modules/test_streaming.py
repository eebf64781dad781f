"""`step`: equal to the sequence call, with step matrices kept until a parameter changes."""

from __future__ import annotations

import copy

import pytest
import torch

import vfrnn
from vfrnn import streaming
from vfrnn.steps import FieldStep


def reads_the_input(i, n, **options):
    # substeps given: planned ones depend on the inputs of the whole sequence
    return vfrnn.InputFieldRNN(i, n, substeps=40, mesh=vfrnn.LatentMesh.random(n, cells=6, dim=2).double(), **options)


MODELS = (vfrnn.RNN, vfrnn.OrthogonalRNN, vfrnn.VFRNN, reads_the_input)


@pytest.fixture(params=MODELS, ids=lambda model: model.__name__)
def model(request):
    torch.manual_seed(0)
    net = request.param(3, 5, num_layers=2, dtype=torch.float64)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


@pytest.mark.parametrize("grad", [False, True])
def test_steps_equal_the_sequence(model, grad):
    x = torch.randn(7, 4, 3, dtype=torch.float64)
    with torch.set_grad_enabled(grad):
        output, h_n = model(x)
        state, outputs = None, []
        for x_t in x:
            y, state = model.step(x_t, state)
            outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs), output, rtol=0, atol=1e-12)
    torch.testing.assert_close(state, h_n, rtol=0, atol=1e-12)
    if grad:
        weights = tuple(model.parameters())
        for a, b in zip(
            torch.autograd.grad(h_n.sum(), weights), torch.autograd.grad(state.sum(), weights), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_unbatched(model):
    x = torch.randn(1, 3, dtype=torch.float64)
    y, state = model.step(x[0])
    output, h_n = model(x)
    torch.testing.assert_close((y, state), (output[0], h_n), rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_changed_parameter_is_seen():
    net, x = vfrnn.VFRNN(3, 5), torch.randn(4, 3)
    state = torch.randn(1, 4, 5)
    first, _ = net.step(x, state)
    net.field_l0.add_(0.3)  # another version
    changed, _ = net.step(x, state)
    assert not torch.equal(first, changed)
    torch.testing.assert_close(changed, net(x[None], state)[0][0])
    net.field_l0 = torch.nn.Parameter(net.field_l0 + 0.3)  # another tensor
    torch.testing.assert_close(net.step(x, state)[0], net(x[None], state)[0][0])
    net.field_l0.data = net.field_l0 + 0.3  # another address
    torch.testing.assert_close(net.step(x, state)[0], net(x[None], state)[0][0])


@torch.no_grad()
def test_dt_may_change_and_matrices_are_kept(monkeypatch):
    net, x, state = vfrnn.VFRNN(3, 5), torch.randn(4, 3), torch.randn(1, 4, 5)
    computed, matrix = [], FieldStep.matrix
    monkeypatch.setattr(FieldStep, "matrix", lambda rule, layer, dt: computed.append(dt) or matrix(rule, layer, dt))
    for dt in (0.5, 2.0, 0.5, 2.0):
        torch.testing.assert_close(net.step(x, state, dt=dt)[0], net(x[None], state, dt=dt)[0][0])
    assert computed == [0.5, 0.5, 2.0, 2.0, 0.5, 2.0]  # the sequence calls compute theirs at every call
    for dt in range(50):
        net.step(x, state, dt=float(dt))
    assert len(streaming._kept[net].matrices) == streaming._KEPT
    assert copy.deepcopy(net) not in streaming._kept


@torch.no_grad()
def test_a_changed_argument_is_seen():
    net, x, state = vfrnn.VFRNN(3, 5), torch.randn(4, 3), torch.randn(1, 4, 5)
    first, _ = net.step(x, state)
    for name, value in (("dt", 0.5), ("exp_dtype", torch.float64), ("backend", "reference"), ("substeps", 2)):
        setattr(net, name, value)
        torch.testing.assert_close(net.step(x, state)[0], net(x[None], state)[0][0])
    assert not torch.equal(net.step(x, state)[0], first)


@torch.no_grad()
def test_a_kept_matrix_is_computed_once_and_forgotten_with_its_tensors():
    module, calls = torch.nn.Linear(2, 2), []

    def kept(key):
        return streaming.kept_matrix(module, key, lambda: calls.append(key) or module.weight * 2)

    assert kept("a") is kept("a")
    kept("b")
    assert calls == ["a", "b"]
    module.bias.add_(1)  # any tensor of the module counts
    kept("a")
    assert calls == ["a", "b", "a"]
    with torch.enable_grad():
        assert kept("a") is not kept("a")  # a graph serves one backward pass


def test_errors():
    net = vfrnn.VFRNN(3, 5)
    with pytest.raises(RuntimeError, match="bidirectional=False"):
        vfrnn.RNN(3, 5, bidirectional=True).step(torch.zeros(2, 3))
    with pytest.raises(TypeError, match="state must be a tensor, got list"):
        net.step(torch.zeros(2, 3), [0])
    with pytest.raises(ValueError, match=r"input must have shape \(B, i\) or \(i,\)"):
        net.step(torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match=r"state must have shape \(num_layers, B, n\)"):
        net.step(torch.zeros(2, 3), torch.zeros(2, 5))


@torch.no_grad()
def test_a_weight_that_is_no_parameter_is_seen():
    net, x, state = vfrnn.OrthogonalRNN(3, 5), torch.randn(4, 3), torch.randn(1, 4, 5)
    replica = net._replicate_for_data_parallel()
    for name, parameter in net.named_parameters():
        setattr(replica, name, parameter.clone())
    torch.testing.assert_close(replica.step(x, state), net.step(x, state))
    replica.field_l0 = replica.field_l0 + 0.3
    replica.step(x, state)
    replica.field_l0.sub_(0.3)
    torch.testing.assert_close(replica.step(x, state), net.step(x, state))
