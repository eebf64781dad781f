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


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_what_the_hooks_do_not_see_is_refused(opacus):
    layer, x = vfrnn.VFRNN(3, 6, 2, batch_first=True, learn_h0=True), torch.randn(2, 4, 3)
    packed = nn.utils.rnn.pack_sequence([x[0]])
    private = opacus.GradSampleModule(layer, strict=False)
    others = {"dt": 0.5, "lengths": [4, 2], "reset": torch.zeros(2, 4).bool(), "hx": torch.zeros(2, 2, 6)}
    for name, value in (others | {"return_sequence": False, "return_all_layers": True}).items():
        with pytest.raises(NotImplementedError, match=f"VFRNN to be called with the input alone, got {name}"):
            private(x, **{name: value})
    with pytest.raises(NotImplementedError, match="with the input alone, got hx"):
        private(x, others["hx"])
    for given, words in ((packed, "a PackedSequence"), (x[0], "a 2D tensor")):
        with pytest.raises(NotImplementedError, match=f"need a batched 3D input, got {words}"):
            private(given)
    for loss in (lambda output, h_n: h_n.sum(), lambda output, h_n: output.sum() + h_n.sum()):
        with pytest.raises(NotImplementedError, match="a loss that reads the output of VFRNN, got one that reads h_n"):
            loss(*private(x)).backward()
    for name in ("dropout", "recurrent_dropout", "zoneout"):
        setattr(layer, name, 0.5)
        with pytest.raises(NotImplementedError, match=f"it needs {name}=0, got {name}=0.5"):
            private(x)
        with torch.no_grad():
            private(x)
        setattr(layer, name, 0.0)
    private.eval()(x, lengths=[4, 2])
    private.train()
    plain = private.to_standard_module()
    plain(x, lengths=[4, 2])[1].sum().backward()
    assert not plain._forward_pre_hooks
    assert not plain._backward_pre_hooks


def test_opacus_as_the_layers_need_it(opacus):
    with pytest.raises(ValueError, match="batch_first must be the same in Opacus and in RNN, got True and False"):
        opacus.GradSampleModule(vfrnn.RNN(3, 6))
    opacus.GradSampleModule(vfrnn.RNN(3, 6), batch_first=False)
    with pytest.raises(NotImplementedError, match='grad_sample_mode="functorch"'):
        opacus.GradSampleModule(vfrnn.RNN(3, 6, batch_first=True), force_functorch=True)
