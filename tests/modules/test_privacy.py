"""Opacus on our layers: its validator, its gradients of every sample, and a private training step."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import vfrnn
from vfrnn.privacy import gradients_of_samples
from vfrnn_kernels import batching

MESH = vfrnn.LatentMesh.grid(2, 3)
LAYERS = {
    "RNN": lambda: vfrnn.RNN(3, 6, nonlinearity="modrelu", batch_first=True),
    "bidirectional": lambda: vfrnn.RNN(3, 3, 2, "relu", bidirectional=True, batch_first=True),
    "OrthogonalRNN": lambda: vfrnn.OrthogonalRNN(3, 6, bias=False, batch_first=True),
    "VFRNN": lambda: vfrnn.VFRNN(3, 6, mesh=MESH, substeps=2, batch_first=True),
    "InputFieldRNN": lambda: vfrnn.InputFieldRNN(3, 6, mesh=MESH, substeps=9, batch_first=True),
}


class Model(nn.Module):
    def __init__(self, rnn):
        super().__init__()
        self.rnn, self.read = rnn, nn.Linear(6, 2)

    def forward(self, x):
        return self.read(self.rnn(x)[0][:, -1])


class Steps(nn.Module):
    """A loop over a cell."""

    def __init__(self):
        super().__init__()
        self.cell, self.read = vfrnn.RNNCell(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.read(self.cell(x[:, 0]) + self.cell(x[:, 1]))


def of_each(model, x):
    """The gradients of every sample, one after the other."""
    losses = [model(x[k : k + 1]).pow(2).sum() for k in range(len(x))]
    rows = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
    return [torch.stack(column) for column in zip(*rows, strict=True)]


@pytest.fixture
def opacus():
    return pytest.importorskip("opacus", reason="opacus is not installed")


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("name", [*LAYERS, "cell"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradients_of_samples(opacus, name, reduction):
    from opacus.validators import ModuleValidator

    model, x = Steps() if name == "cell" else Model(LAYERS[name]()), torch.randn(5, 4, 3)
    expected = of_each(model, x)
    assert ModuleValidator.validate(model, strict=True) == []
    private = opacus.GradSampleModule(model, loss_reduction=reduction, strict=not list(model.buffers()))
    loss = private(x).pow(2).sum(1)
    (loss.sum() if reduction == "sum" else loss.mean()).backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad_sample, gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_a_private_step(opacus):
    torch.manual_seed(0)
    model = Model(LAYERS["RNN"]())
    loader = DataLoader(TensorDataset(torch.randn(8, 4, 3), torch.randint(2, (8,))), batch_size=4)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.warns(UserWarning, match="Secure RNG turned off"):
        model, optimizer, loader = opacus.PrivacyEngine().make_private(
            module=model, optimizer=torch.optim.SGD(model.parameters(), 0.1), data_loader=loader,
            noise_multiplier=1.0, max_grad_norm=1.0, poisson_sampling=False,
        )  # fmt: skip
    for x, y in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert all(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "InputFieldRNN"])
def test_no_loop_over_the_op(name, monkeypatch):
    looped = []
    monkeypatch.setattr(batching, "_one_by_one", lambda *args: looped.append(args))
    layer, x = LAYERS[name](), torch.randn(5, 4, 3)
    gradients = gradients_of_samples(layer, [x], torch.ones(5, 4, 6))
    assert not looped
    rows = [torch.autograd.grad(layer(x[k : k + 1])[0].sum(), list(layer.parameters())) for k in range(5)]
    for parameter, expected in zip(layer.parameters(), zip(*rows, strict=True), strict=True):
        torch.testing.assert_close(gradients[parameter], torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_time_first_and_refusals():
    layer, x = vfrnn.RNN(3, 6), torch.randn(4, 2, 3)
    gradients = gradients_of_samples(layer, [x.transpose(0, 1)], torch.ones(2, 4, 6))
    (expected,) = torch.autograd.grad(layer(x)[0].sum(), layer.weight_hh_l0)
    torch.testing.assert_close(gradients[layer.weight_hh_l0].sum(0), expected)
    with pytest.raises(NotImplementedError, match="RNN to be called with the input alone, got 2 tensors"):
        gradients_of_samples(layer, [x, torch.zeros(1, 2, 6)], x)
    learned = vfrnn.VFRNN(3, 6, mesh=vfrnn.LatentMesh.grid(2, 3, learn=("b",)))
    with pytest.raises(NotImplementedError, match=r"a mesh that is not learned, got mesh\.log_b"):
        gradients_of_samples(learned, [x], x)
