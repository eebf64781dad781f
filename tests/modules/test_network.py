"""What networks share: torch.nn.RNN's shapes, dropout, methods, attributes and errors."""

import pytest
import torch
from torch import nn

import vfrnn
from vfrnn import RNN, VFRNN, InputFieldRNN, LatentMesh, OrthogonalRNN

NETWORKS = (RNN, VFRNN, OrthogonalRNN, InputFieldRNN)


def construct(network_type, n, *args, input_size=3, **options):
    if network_type is InputFieldRNN:  # no rotation: few substeps
        options = {"mesh": LatentMesh.random(n, 4), "init": "zero", **options}
    return network_type(input_size, n, *args, **options)


def test_dropout_is_torchs():
    theirs, ours = torch.nn.RNN(3, 5, 3, dropout=0.5), RNN(3, 5, 3, dropout=0.5)
    ours.load_state_dict(theirs.state_dict())
    x, outputs = torch.randn(4, 2, 3), []
    for network in (theirs, ours):
        torch.manual_seed(1)
        outputs.append((network(x)[0], network.eval()(x)[0]))
    for their, our in zip(*outputs, strict=True):
        torch.testing.assert_close(our, their)
    assert not torch.equal(*outputs[1])


@pytest.mark.parametrize(
    "call",
    [
        lambda rnn: rnn(torch.zeros(0, 2, 3)),
        lambda rnn: rnn(torch.zeros(0, 3)),
        lambda rnn: rnn(torch.zeros(5, 2, 4)),
        lambda rnn: rnn(torch.zeros(5, 2, 3, 1)),
        lambda rnn: rnn(torch.zeros(3)),
        lambda rnn: rnn(torch.zeros(5, 2, 3, dtype=torch.float64)),
        lambda rnn: rnn(torch.zeros(5, 2, 3), torch.zeros(1, 2, 5)),
        lambda rnn: rnn(torch.zeros(5, 2, 3), torch.zeros(2, 4)),
        lambda rnn: rnn(torch.zeros(5, 3), torch.zeros(1, 2, 4)),
        lambda rnn: rnn(torch.zeros(5, 3), torch.zeros(2, 4)),
        lambda rnn: type(rnn)(0, 4),
        lambda rnn: type(rnn)(3, -1),
        lambda rnn: type(rnn)(3.0, 4),
        lambda rnn: type(rnn)(3, 4, 0),
        lambda rnn: type(rnn)(3, 4, dropout=1.5),
        lambda rnn: type(rnn)(3, 4, bias=1),
        lambda rnn: type(rnn)(3, 4, proj_size=0),
        lambda rnn: type(rnn)(3, 4, batch_first=None),
        lambda rnn: type(rnn)(3, 4, dropout=0.5),
    ],
)
def test_errors_are_torchs(call):
    errors = []
    for rnn in (torch.nn.RNN(3, 4), RNN(3, 4)):
        with pytest.raises((RuntimeError, ValueError, TypeError, UserWarning)) as caught:
            call(rnn)
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("network_type", NETWORKS[1:])
@pytest.mark.parametrize("n", [1, 2, 17])
def test_shapes_are_torchs(network_type, n, backend):
    options = {"num_layers": 2, "bidirectional": True, "batch_first": True}
    theirs, ours = torch.nn.RNN(3, n, **options), construct(network_type, n, backend=backend, **options)
    for x in (torch.randn(2, 4, 3), torch.randn(4, 3), torch.randn(0, 4, 3)):
        assert [t.shape for t in ours(x)] == [t.shape for t in theirs(x)]


def test_what_is_no_tensor_is_named():
    with pytest.raises(TypeError, match="VFRNN: input must be a tensor or a PackedSequence, got list"):
        VFRNN(3, 5)([0.0])
    with pytest.raises(TypeError, match="VFRNN: hx must be a tensor, got list"):
        VFRNN(3, 5)(torch.zeros(2, 3), [0.0])
    with pytest.raises(ValueError, match=r"VFRNN hx dtype \(torch.float64\) does not match weight dtype"):
        VFRNN(3, 5)(torch.zeros(2, 3), torch.zeros(1, 5, dtype=torch.float64))
    with pytest.raises(ValueError, match="layer must be below num_layers = 1 and reverse needs bidirectional=True"):
        VFRNN(3, 5).step_matrix(1)


@pytest.mark.parametrize("network_type", NETWORKS)
def test_methods_of_torchs_networks(network_type):
    options = {"num_layers": 2, "bidirectional": True, "batch_first": True}
    network, peer = construct(network_type, 5, **options), nn.RNN(3, 5, **options)
    network.flatten_parameters()
    assert network.proj_size == peer.proj_size
    assert [len(weights) for weights in network.all_weights] == [len(network.weight_names[0])] * 4
    assert {id(w) for weights in network.all_weights for w in weights} == {
        id(p) for p in network.parameters(recurse=False)
    }
    x, h = torch.randn(2, 7, 3), torch.randn(4, 2, 5)
    for batch_sizes in (None, torch.tensor([2, 1])):
        given = x if batch_sizes is None else x[0, :3]
        assert network.get_expected_hidden_size(given, batch_sizes) == peer.get_expected_hidden_size(given, batch_sizes)
        network.check_forward_args(given, h, batch_sizes)
        with pytest.raises(RuntimeError, match=r"Expected hidden size \(4, 2, 5\), got \[4, 1, 5\]"):
            network.check_forward_args(given, h[:, :1], batch_sizes)
    for order in (None, torch.tensor([1, 0])):
        assert torch.equal(network.permute_hidden(h, order), peer.permute_hidden(h, order))
    with pytest.raises(ValueError, match="proj_size argument is only supported for LSTM"):
        construct(network_type, 5, proj_size=2)


def test_attributes_of_torchs_rnn():
    options = {"nonlinearity": "relu", "num_layers": 2, "bias": False, "dropout": 0.25, "bidirectional": True}
    ours, theirs = RNN(3, 5, **options), nn.RNN(3, 5, **options)
    names = [key for key in vars(theirs) if not key.startswith("_")]
    assert {"mode", "hidden_size", "dropout", "proj_size"} <= set(names)
    assert all(getattr(ours, key) == getattr(theirs, key) for key in names)
    assert [[w.shape for w in weights] for weights in ours.all_weights] == [
        [w.shape for w in weights] for weights in theirs.all_weights
    ]


@pytest.mark.parametrize("network_type", NETWORKS[1:])
def test_dropout_is_between_the_layers(network_type):
    """In training the second layer reads zeroed and scaled states; in evaluation it reads them as they are."""
    network = construct(network_type, 5, 2, dropout=0.5)
    x, seed = torch.randn(4, 2, 3), 1
    lower = construct(network_type, 5)
    upper = construct(network_type, 5, input_size=5)
    for part, k in ((lower, 0), (upper, 1)):
        names = {name.replace("_l0", f"_l{k}"): name for name in part.state_dict()}
        part.load_state_dict({names[name]: value for name, value in network.state_dict().items() if name in names})
    torch.manual_seed(seed)
    output, _ = network(x)
    torch.manual_seed(seed)
    torch.testing.assert_close(output, upper(torch.nn.functional.dropout(lower(x)[0], 0.5))[0])
    torch.testing.assert_close(network.eval()(x)[0], upper(lower(x)[0])[0])


def test_a_plain_network_has_no_time():
    with pytest.raises(TypeError, match="unexpected keyword argument 'dt'"):
        RNN(3, 5)(torch.zeros(4, 2, 3), dt=1.0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'dt'"):
        RNN(3, 5).step(torch.zeros(2, 3), dt=1.0)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_nested_tensors_are_refused_with_what_to_do(layout):
    sequences = [torch.randn(length, 3) for length in (4, 1, 6)]
    nested, x = torch.nested.nested_tensor(sequences, layout=layout), torch.randn(4, 3, 3)
    rnn, cell, mesh = vfrnn.VFRNN(3, 6, batch_first=True), vfrnn.RNNCell(3, 6), vfrnn.LatentMesh.grid(2, 3)
    calls = {
        "VFRNN: input": lambda: rnn(nested),
        "VFRNN: hx": lambda: rnn(x, nested),
        "dt": lambda: rnn(x, dt=nested),
        "VFRNN.step: input": lambda: rnn.step(nested),
        "InputFieldRNN: input": lambda: vfrnn.InputFieldRNN(3, 6, mesh=mesh)(nested),
        "RNNCell: input": lambda: cell(nested),
        "RNNCell: hidden": lambda: cell(x[:, 0], nested),
        "x": lambda: vfrnn.recurrence(nested, torch.ones(6, 3), None, torch.eye(6)),
        "f": lambda: vfrnn.gradient(mesh, nested),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=rf"^{name} must be a dense tensor, got a nested one: pack .* or pad"):
            call()
    # what the sentence says
    packed = torch.nn.utils.rnn.pack_sequence(list(nested.unbind()), enforce_sorted=False)
    padded = torch.nested.to_padded_tensor(nested, 0.0)
    output = torch.nn.utils.rnn.pad_packed_sequence(rnn(packed)[0], batch_first=True)[0]
    torch.testing.assert_close(output[2], rnn(padded)[0][2])
