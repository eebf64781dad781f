"""Cells: one step of the networks, and torch.nn.RNNCell's shapes, parameters, results and errors."""

import pytest
import torch

import vfrnn

CELLS = (vfrnn.RNNCell, vfrnn.VFRNNCell, vfrnn.OrthogonalRNNCell)
NETWORKS = (vfrnn.RNN, vfrnn.VFRNN, vfrnn.OrthogonalRNN)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_rnn_cell_is_torchs(bias, nonlinearity, batched, given):
    torch.manual_seed(4)
    theirs = torch.nn.RNNCell(3, 5, bias, nonlinearity, dtype=torch.float64)
    torch.manual_seed(4)
    ours = vfrnn.RNNCell(3, 5, bias, nonlinearity, dtype=torch.float64)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    assert all(map(torch.equal, theirs.parameters(), ours.parameters()))
    results = []
    for cell in (theirs, ours):
        torch.manual_seed(5)
        x = torch.randn(*((4,) if batched else ()), 3, dtype=torch.float64, requires_grad=True)
        h = torch.randn(*((4,) if batched else ()), 5, dtype=torch.float64, requires_grad=True) if given else None
        out = cell(x, h)
        leaves = [*cell.parameters(), x, *([h] if given else [])]
        results.append((out, *torch.autograd.grad(out.square().sum(), leaves, allow_unused=True)))
    for their, our in zip(*results, strict=True):
        # torch leaves the gradient of weight_hh at zero or None where h is not given; both mean 0.
        torch.testing.assert_close(our, torch.zeros_like(our) if their is None else their)


@pytest.mark.parametrize(("cell_type", "network_type"), list(zip(CELLS, NETWORKS, strict=True)))
def test_cell_steps_like_its_network(cell_type, network_type, backend):
    network = network_type(3, 5, dtype=torch.float64, backend=backend)
    cell = cell_type(3, 5, nonlinearity=network.nonlinearity, dtype=torch.float64, backend=backend)
    cell.load_state_dict({name.replace("_l0", ""): value for name, value in network.state_dict().items()})
    x, h = torch.randn(4, 2, 3, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    output, _ = network(x, h[None])
    for t in range(4):
        h = cell(x[t], h)
        torch.testing.assert_close(h, output[t])
    torch.testing.assert_close(cell(x[0, 0]), network(x[:1, 0])[0][0])


@pytest.mark.parametrize("cell_type", CELLS[1:])
def test_a_given_step_matrix_is_used(cell_type):
    cell = cell_type(3, 5)
    x, h = torch.randn(2, 3), torch.randn(2, 5)
    assert torch.equal(cell(x, h, M=cell.step_matrix()), cell(x, h))
    assert torch.equal(cell(x, h, M=cell.step_matrix(dt=0.5)), cell(x, h, dt=0.5))
    with pytest.raises(ValueError, match="dt must be None when M is given"):
        cell(x, h, dt=0.5, M=cell.step_matrix())


@pytest.mark.parametrize("cell_type", CELLS)
def test_empty_batch(cell_type):
    assert cell_type(3, 5)(torch.zeros(0, 3)).shape == (0, 5)


@pytest.mark.parametrize(
    "call",
    [
        lambda cell: cell(torch.zeros(2, 4)),
        lambda cell: cell(torch.zeros(2, 3, 1)),
        lambda cell: cell(torch.zeros(2, 3), torch.zeros(2, 5)),
        lambda cell: cell(torch.zeros(2, 3), torch.zeros(3, 4)),
        lambda cell: cell(torch.zeros(2, 3), torch.zeros(2, 4, 1)),
    ],
)
def test_errors_are_torchs(call):
    errors = []
    for cell in (torch.nn.RNNCell(3, 4), vfrnn.RNNCell(3, 4)):
        with pytest.raises((RuntimeError, ValueError)) as caught:
            call(cell)
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="Unknown nonlinearity 'gelu'"):
        vfrnn.RNNCell(3, 4, nonlinearity="gelu")
    with pytest.raises(ValueError, match="hidden_size must be greater than zero"):
        vfrnn.VFRNNCell(3, 0)
    with pytest.raises(TypeError, match="input must be a tensor, got list"):
        vfrnn.VFRNNCell(3, 4)([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"dtype \(torch.float64\) does not match weight dtype"):
        vfrnn.VFRNNCell(3, 4)(torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("bias", [0, 1])
def test_bias_is_true_or_false_as_in_torchs_cell(bias):
    state, expected = (cell_type(3, 4, bias).state_dict() for cell_type in (vfrnn.RNNCell, torch.nn.RNNCell))
    assert list(state) == list(expected)


def test_repr():
    assert repr(vfrnn.RNNCell(3, 4, nonlinearity="relu")) == "RNNCell(3, 4, nonlinearity='relu')"
    assert repr(vfrnn.VFRNNCell(3, 4, dt=0.5, substeps=2)) == "VFRNNCell(3, 4, dt=0.5, substeps=2)"


@pytest.mark.parametrize("cell", [vfrnn.VFRNNCell, vfrnn.OrthogonalRNNCell])
def test_a_step_matrix_of_another_size_is_named(cell):
    with pytest.raises(ValueError, match=r"M must have shape \(n, n\) with n = 4, got \(2, 2\)"):
        cell(3, 4)(torch.zeros(1, 3), M=torch.zeros(2, 2))
    with pytest.raises(TypeError, match="M must be a tensor, got float"):
        cell(3, 4)(torch.zeros(1, 3), M=1.0)
