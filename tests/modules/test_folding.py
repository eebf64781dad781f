"""convert(model, to="torch"): torch's layers with equal outputs, which need this package no longer."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pack_sequence

import vfrnn
from vfrnn.parametrizations import once_per_forward, orthogonal

MESH = vfrnn.LatentMesh.grid(2, 4)
NETWORKS = {
    "RNN": lambda **o: vfrnn.RNN(3, 8, **o),
    "OrthogonalRNN": lambda **o: vfrnn.OrthogonalRNN(3, 8, dt=0.3, **o),
    "VFRNN": lambda **o: vfrnn.VFRNN(3, 8, mesh=MESH, substeps=3, volume_preserving=True, **o),
    "parametrized RNN": lambda **o: orthogonal(vfrnn.RNN(3, 8, **o), "weight_hh_l0"),
    "parametrized torch": lambda **o: orthogonal(nn.RNN(3, 8, **o), "weight_hh_l0"),
}
OPTIONS = [
    {"nonlinearity": "tanh"},
    {"nonlinearity": "relu", "bias": False, "batch_first": True},
    {"nonlinearity": "tanh", "num_layers": 2, "bidirectional": True, "dropout": 0.4},
]


def moved(model):
    """The model with other parameters than the initial ones, in evaluation."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, options):
    old = moved(NETWORKS[name](**options))
    x, hx = torch.randn(5, 4, 3), torch.randn(old.num_layers * (1 + old.bidirectional), 5 if old.batch_first else 4, 8)
    packed = pack_sequence([torch.randn(3, 3), torch.randn(2, 3)])
    calls = [(x,), (x, hx), (x[0],), (packed,)]
    with torch.no_grad():
        expected = [old(*call) for call in calls]
    weight = old.weight_ih_l0
    conversion = vfrnn.convert(old, to="torch")
    new = conversion.model
    assert type(new) is nn.RNN
    assert new.weight_ih_l0 is weight
    assert (new.dropout, new.training, new.batch_first) == (old.dropout, False, options.get("batch_first", False))
    for call, (output, h_n) in zip(calls, expected, strict=True):
        found, last = new(*call)
        torch.testing.assert_close(getattr(found, "data", found), getattr(output, "data", output), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(last, h_n, rtol=1e-5, atol=1e-5)
    assert not conversion.kept
    assert str(conversion).startswith("(the model): ")
    new.train()(x)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in new.parameters())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [vfrnn.RNNCell, vfrnn.OrthogonalRNNCell, vfrnn.VFRNNCell])
def test_cells(kind, bias):
    old, x, h = (
        moved(kind(3, 6, bias, "relu", dtype=torch.float64)),
        torch.randn(2, 3).double(),
        torch.rand(2, 6).double(),
    )
    new = vfrnn.convert(nn.ModuleList([old]), "torch").model[0]
    assert type(new) is nn.RNNCell
    torch.testing.assert_close(new(x, h), old(x, h), rtol=0, atol=1e-12)
    torch.testing.assert_close(new(x[0]), old(x[0]), rtol=0, atol=1e-12)


class Model(nn.Module):
    """Layers at several depths and in two places, and some that torch lacks."""

    def __init__(self):
        super().__init__()
        self.rnn = vfrnn.VFRNN(3, 8, nonlinearity="tanh")
        self.again = self.rnn
        self.stack = nn.Sequential(orthogonal(nn.Linear(8, 5)), nn.Tanh(), orthogonal(nn.Linear(5, 9)))
        self.cell = orthogonal(nn.RNNCell(9, 4), "weight_hh")

    def forward(self, x):
        h = None
        for x_t in self.stack(self.again(self.rnn(x)[0][..., :3])[0]):
            h = self.cell(x_t, h)
        return h


def test_a_model_without_this_package(tmp_path):
    model, x = once_per_forward(moved(Model())), torch.randn(6, 2, 3)
    expected = model(x)
    conversion = vfrnn.convert(model, to="torch")
    assert conversion.model is model
    assert conversion.replaced[0].names == ("rnn", "again")
    assert [replacement.names for replacement in conversion.replaced[1:]] == [("stack.0",), ("stack.2",), ("cell",)]
    assert "stack.0: ParametrizedLinear(" in str(conversion)
    assert model.again is model.rnn
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
    assert not model._forward_pre_hooks
    assert not model._forward_hooks
    assert not model._forward_hooks_always_called
    torch.save((model.rnn, model.stack, model.cell), tmp_path / "model.pt")
    code = (
        "import sys, torch; sys.modules['vfrnn'] = sys.modules['vfrnn_kernels'] = None; "
        "torch.load(sys.argv[1], weights_only=False)"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "model.pt"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_what_torch_lacks_is_kept_and_named():
    class Own(vfrnn.RNN):
        pass

    hooked = vfrnn.RNN(2, 3)
    hooked.register_forward_hook(lambda *args: None)
    model = nn.ModuleDict(
        {
            "modrelu": vfrnn.OrthogonalRNN(2, 3),
            "identity": vfrnn.RNNCell(2, 3, nonlinearity="identity"),
            "reads": vfrnn.InputFieldRNN(2, 8, nonlinearity="tanh", mesh=MESH),
            "own": Own(2, 3),
            "hooked": hooked,
            "learned": vfrnn.VFRNN(2, 3, nonlinearity="tanh", learn_h0=True),
            "zoned": vfrnn.RNN(2, 3, zoneout=0.1),
            "lstm": nn.LSTM(2, 3),
            "fine": vfrnn.RNN(2, 3),
        }
    )
    before = copy.deepcopy(model.state_dict())
    conversion = vfrnn.convert(model, to="torch")
    assert {name: reason.split()[0] for name, reason in conversion.kept.items()} == {
        "modrelu": "torch.nn.RNN", "identity": "torch.nn.RNNCell", "reads": "its", "own": "it", "hooked": "it",
        "learned": "it", "zoned": "it",
    }  # fmt: skip
    assert "has no nonlinearity 'modrelu'" in conversion.kept["modrelu"]
    assert "has learn_h0=True" in conversion.kept["learned"]
    assert [replacement.names for replacement in conversion.replaced] == [("fine",)]
    assert model.state_dict().keys() == before.keys()
    with pytest.raises(ValueError, match='backend must be None for to="torch"'):
        vfrnn.convert(model, to="torch", backend="cpu")


def test_other_parametrizations_are_folded_too():
    rnn = vfrnn.OrthogonalRNN(3, 4, nonlinearity="tanh")
    parametrize.register_parametrization(rnn, "weight_ih_l0", nn.Tanh())
    x = torch.randn(5, 2, 3)
    expected, new = rnn(x)[0], vfrnn.convert(rnn, "torch").model
    torch.testing.assert_close(new(x)[0], expected, rtol=1e-5, atol=1e-6)
    assert not parametrize.is_parametrized(new)


def test_frozen_parameters_and_16_bits():
    rnn = vfrnn.VFRNN(3, 4, nonlinearity="relu", dtype=torch.bfloat16).requires_grad_(False)
    new = vfrnn.convert(rnn, "torch").model
    assert not any(parameter.requires_grad for parameter in new.parameters())
    assert {parameter.dtype for parameter in new.parameters()} == {torch.bfloat16}
