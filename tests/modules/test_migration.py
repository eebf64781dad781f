"""The code of docs/how-to/migration.md runs, and what it converts computes what it did before."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import vfrnn

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "migration.md"


def code_of_page(**names):
    """The names that the page's Python blocks define, run in order."""
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        exec(block, names)
    return names


def assert_same_states(ours, x, expected):
    # Five steps with a matrix from an exponential of a logarithm: some tens of roundings.
    torch.testing.assert_close(ours(x)[0], expected, rtol=1e-5, atol=1e-5)


def test_from_torch(capsys):
    model, x = nn.Sequential(nn.RNN(3, 8, 2)), torch.randn(5, 2, 3)
    expected = model(x)[0]
    assert type(code_of_page()["from_torch"](model)[0]) is vfrnn.RNN
    assert_same_states(model, x, expected)
    assert "0: RNN(3, 8, num_layers=2) -> RNN(3, 8, num_layers=2)" in capsys.readouterr().out


def test_to_torch(capsys):
    model, x = nn.Sequential(vfrnn.VFRNN(3, 8, nonlinearity="tanh")), torch.randn(5, 2, 3)
    expected = model(x)[0]
    assert type(code_of_page()["to_torch"](model)[0]) is nn.RNN
    assert_same_states(model, x, expected)
    assert "0: VFRNN(3, 8, nonlinearity='tanh') -> RNN(3, 8)" in capsys.readouterr().out


def test_from_torchs_orthogonal():
    code, x = code_of_page(), torch.randn(5, 2, 3)
    old = nn.utils.parametrizations.orthogonal(nn.RNN(3, 8), "weight_hh_l0")
    nn.init.normal_(old.parametrizations.weight_hh_l0.original)
    with torch.no_grad():  # of two senses of orientation, take the one that a field reaches
        if torch.linalg.det(old.weight_hh_l0) < 0:
            old.parametrizations.weight_hh_l0[0].base[0] *= -1
    expected = old(x)[0]
    new = code["from_torch_orthogonal"](old.state_dict())
    assert_same_states(new, x, expected)
    layer = code["to_orthogonal_rnn"](new)
    assert type(layer) is vfrnn.OrthogonalRNN
    assert_same_states(layer, x, expected)


def test_from_torchs_householder():
    old = nn.utils.parametrizations.orthogonal(nn.Linear(3, 8))
    with torch.no_grad():
        old.parametrizations.weight.original += torch.randn(8, 3).tril(-1)
    torch.testing.assert_close(code_of_page()["from_torch_householder"](old.state_dict()).weight, old.weight)


def test_from_geotorch():
    code = code_of_page(geotorch=pytest.importorskip("geotorch", reason="geotorch is not installed"))
    old, x = code["GeotorchRNN"](3, 8), torch.randn(5, 2, 3)
    nn.init.normal_(old.recurrent.parametrizations.weight.original)
    new = code["from_geotorch"](old)
    assert type(new) is vfrnn.OrthogonalRNN
    assert_same_states(new, x, old(x))


class ExpRNN(nn.Module):
    """The layer of the published code, with its parameters and conventions."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.log_recurrent_kernel = nn.Parameter(torch.randn(hidden_size, hidden_size))
        above = self.log_recurrent_kernel.detach().triu(1)
        self.recurrent_kernel = nn.Parameter(torch.linalg.matrix_exp(above - above.mT))
        self.input_kernel = nn.Linear(input_size, hidden_size, bias=False)
        self.nonlinearity = nn.Module()
        self.nonlinearity.b = nn.Parameter(torch.empty(hidden_size).uniform_(-0.01, 0.01))

    def forward(self, x, h):
        z = self.input_kernel(x) + h @ self.recurrent_kernel
        return z.sign() * torch.relu(z.abs() + self.nonlinearity.b)


def test_from_exprnn():
    code, old, x = code_of_page(), ExpRNN(3, 8), torch.randn(5, 2, 3)
    h, hs = torch.zeros(2, 8), []
    for x_t in x:
        h = old(x_t, h)
        hs.append(h)
    new = code["from_exprnn"](old)
    assert_same_states(new, x, torch.stack(hs))
    assert [group["lr"] for group in code["optimizer"](new).param_groups] == [1e-3, 1e-4]


def test_flops():
    x = torch.randn(50, 4, 16)
    assert code_of_page()["flops_of"](vfrnn.RNN(16, 32), x) == 1630208  # of torch.nn.RNN, too


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_onnx(tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    model, x = nn.Sequential(vfrnn.OrthogonalRNN(3, 8)), torch.randn(5, 2, 3)
    code_of_page()["to_onnx"](model, x, tmp_path / "model.onnx")
    session, other = runtime.InferenceSession(tmp_path / "model.onnx"), torch.randn(7, 4, 3)
    (name,) = [value.name for value in session.get_inputs()]
    torch.testing.assert_close(torch.from_numpy(session.run(None, {name: other.numpy()})[0]), model(other)[0].detach())


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_opacus():
    opacus = pytest.importorskip("opacus", reason="opacus is not installed")
    model, x = vfrnn.VFRNN(3, 8, batch_first=True), torch.randn(4, 5, 3)
    code_of_page(opacus=opacus)["private"](model)(x)[0].sum().backward()
    assert model.field_l0.grad_sample.shape == (4, *model.field_l0.shape)
