"""What networks share: torch.nn.RNN's shapes, dropout and errors; all layers' states, and learned first ones."""

import copy
import pickle

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import vfrnn
from tests.modules.loops import F64, compare, in_todays_words, loop, on_every_backend
from tests.modules.loops import construct as in_float64
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


@in_todays_words
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
    with pytest.raises(ValueError, match="VFRNN input must be on the device of the parameters, cpu, got meta"):
        VFRNN(3, 5)(torch.zeros(2, 3, device="meta"))
    with pytest.raises(ValueError, match="VFRNN hx must be on the device of the parameters, cpu, got meta"):
        VFRNN(3, 5)(torch.zeros(2, 3), torch.zeros(1, 5, device="meta"))
    with pytest.raises(ValueError, match=r"VFRNN input dtype \(torch.int64\) does not match weight dtype"):
        VFRNN(3, 5).step(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="layer must be below num_layers = 1 and reverse needs bidirectional=True"):
        VFRNN(3, 5).step_matrix(1)


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


ALL = {"num_layers": 3, "bidirectional": True, "batch_first": True, "learn_h0": True}


@on_every_backend
@pytest.mark.parametrize("options", [{}, ALL], ids=["plain", "all"])
def test_all_layers_states(network_type, options, backend):
    network = in_float64(network_type, backend=backend, **options)
    x = torch.randn(4, 2, 3, dtype=F64, requires_grad=True)
    laid_out = lambda t: t.transpose(0, 1) if network.batch_first else t  # noqa: E731
    found, h_n = network(laid_out(x), return_all_layers=True)
    assert isinstance(found, tuple)
    outputs, last = loop(network, x)
    compare(network, [*map(laid_out, found), h_n], [*outputs, last], [x])
    torch.testing.assert_close(network(laid_out(x))[0], found[-1], rtol=0, atol=0)
    alone, _ = network(x[:, 0], return_all_layers=True)
    torch.testing.assert_close(alone, tuple(output[:, 0] for output in outputs))
    packed = pack_padded_sequence(laid_out(x), [4, 2], network.batch_first)
    padded = [pad_packed_sequence(one, network.batch_first)[0] for one in network(packed, return_all_layers=True)[0]]
    torch.testing.assert_close(padded, [laid_out(hs) for hs in loop(network, x, lengths=[4, 2])[0]])


def test_all_layers_states_need_the_sequence():
    with pytest.raises(ValueError, match="return_all_layers needs return_sequence=True: h_n has the last states"):
        RNN(3, 5)(torch.zeros(4, 2, 3), return_sequence=False, return_all_layers=True)
    with pytest.raises(TypeError, match="return_all_layers must be a bool, got int"):
        RNN(3, 5)(torch.zeros(4, 2, 3), return_all_layers=1)


@on_every_backend
@pytest.mark.parametrize("how", ["batched", "unbatched", "packed", "last", "step"])
def test_a_learned_first_state(network_type, how, backend):
    options = ALL if how == "packed" else {"num_layers": 2, "learn_h0": True, "bidirectional": how != "step"}
    network = in_float64(network_type, backend=backend, **options)
    x = torch.randn(4, 2, 3, dtype=F64, requires_grad=True)
    expected, last = loop(network, x[:, :1] if how == "unbatched" else x[:1] if how == "step" else x)
    if how == "packed":
        output, h_n = network(pack_padded_sequence(x.transpose(0, 1), [4, 4], batch_first=True))
        output = pad_packed_sequence(output)[0]
    elif how == "unbatched":
        output, h_n = (t.unsqueeze(1) for t in network(x[:, 0]))
    elif how == "step":
        output, h_n = network.step(x[0])
        output = output[None]
    else:
        output, h_n = network(x, return_sequence=how != "last")
    compare(network, [output, h_n], [torch.cat([*last[-2:]], -1) if how == "last" else expected[-1], last], [x])
    h0 = network.get_parameter("h0_l1")
    assert h0.grad is None
    (network.step(x[0])[0] if how == "step" else network(x)[1]).sum().backward()
    assert h0.grad.any()


def test_the_learned_first_state_is_a_parameter():
    network = VFRNN(3, 5, 2, bidirectional=True, learn_h0=True)
    names = ["h0_l0", "h0_l0_reverse", "h0_l1", "h0_l1_reverse"]
    assert [name for name, _ in network.named_parameters() if name.startswith("h0")] == names
    assert all(network.weight_names[k][-1] == name for k, name in enumerate(names))
    plain = VFRNN(3, 5, 2, bidirectional=True)
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("h0")})
    x, hx = torch.randn(4, 2, 3), torch.randn(4, 2, 5)
    torch.testing.assert_close(network(x), plain(x))  # it starts at 0
    with torch.no_grad():
        for name in names:
            network.get_parameter(name).fill_(0.5)
    torch.testing.assert_close(network(x, hx), plain(x, hx))  # hx replaces it
    assert not torch.equal(network(x)[0], plain(x)[0])
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        torch.testing.assert_close(copied(x), network(x))
    other = VFRNN(3, 5, 2, bidirectional=True, learn_h0=True)
    other.load_state_dict(network.state_dict())
    torch.testing.assert_close(other(x), network(x))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict(plain.state_dict())
    network.reset_parameters()
    assert not network.get_parameter("h0_l0").any()
    assert "learn_h0=True" in repr(network)
    assert "learn_h0" not in repr(plain)
    with pytest.raises(TypeError, match="learn_h0 must be a bool, got int"):
        VFRNN(3, 5, learn_h0=1)
    low = VFRNN(3, 5, learn_h0=True, dtype=torch.bfloat16)
    assert low(x.bfloat16())[0].dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert network(x.bfloat16())[0].dtype == torch.float32


def test_a_network_pickled_before_these_arguments():
    network = RNN(3, 5)
    state = network.__getstate__()
    for name in ("learn_h0", "recurrent_dropout", "zoneout"):
        del state[name]
    old = RNN.__new__(RNN)
    old.__setstate__(state)
    x = torch.randn(4, 2, 3)
    torch.testing.assert_close(old(x), network(x))
    assert repr(old) == "RNN(3, 5)"


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
