"""PackedSequence in and out: torch.nn.RNN's results and gradients, and every sequence as if it were alone."""

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence, unpack_sequence

from tests.modules.loops import in_todays_words
from vfrnn import RNN, VFRNN, OrthogonalRNN

NETWORKS = (RNN, VFRNN, OrthogonalRNN)
LENGTHS = (3, 6, 1, 6, 2)  # not sorted
OPTIONS = pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2, "bias": False}, {"num_layers": 2, "bidirectional": True, "batch_first": True}],
    ids=str,
)


def sequences(lengths=LENGTHS, dtype=torch.float64):
    return [torch.randn(length, 3, dtype=dtype, requires_grad=True) for length in lengths]


def first_states(options, B):
    layers = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    return torch.randn(layers, B, 5, dtype=torch.float64, requires_grad=True)


def results(network, packed, h0, leaves):
    """Packed output, h_n, and the gradients of a scalar that weighs all of them."""
    output, h_n = network(packed, h0)
    weights = [torch.linspace(-1, 1, t.numel(), dtype=t.dtype).view_as(t) for t in (output.data, h_n)]
    loss = (output.data * weights[0]).sum() + (h_n * weights[1]).sum()
    return output, h_n, torch.autograd.grad(loss, [*network.parameters(), *leaves])


@OPTIONS
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("lengths", [LENGTHS, (6, 6, 3, 2, 1), (4,), (4, 4)], ids=str)
@pytest.mark.parametrize("given", [True, False])
def test_results_are_torchs(options, nonlinearity, lengths, given, backend):
    theirs = torch.nn.RNN(3, 5, nonlinearity=nonlinearity, dtype=torch.float64, **options)
    ours = RNN(3, 5, nonlinearity=nonlinearity, dtype=torch.float64, backend=backend, **options)
    ours.load_state_dict(theirs.state_dict())
    xs, h0 = sequences(lengths), first_states(options, len(lengths)) if given else None
    sort = lengths == tuple(sorted(lengths, reverse=True))
    leaves = [*xs, *([h0] if given else [])]
    their, our = (results(network, pack_sequence(xs, enforce_sorted=sort), h0, leaves) for network in (theirs, ours))
    assert isinstance(our[0], PackedSequence)
    assert (our[0].sorted_indices is None) == sort
    for one, other in zip(our[0], their[0], strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(our[1:], their[1:])


@OPTIONS
@pytest.mark.parametrize("network_type", NETWORKS)
def test_every_sequence_runs_as_if_it_were_alone(options, network_type, backend):
    network = network_type(3, 5, dtype=torch.float64, backend=backend, **options)
    xs, h0 = sequences(), first_states(options, len(LENGTHS))
    output, h_n, gradients = results(network, pack_sequence(xs, enforce_sorted=False), h0, [*xs, h0])
    alone = [network(x, h0[:, k]) for k, x in enumerate(xs)]
    for k, states in enumerate(unpack_sequence(output)):
        torch.testing.assert_close(states, alone[k][0])
        torch.testing.assert_close(h_n[:, k], alone[k][1])
    packed = pack_sequence([states for states, _ in alone], enforce_sorted=False).data
    last = torch.stack([last for _, last in alone], 1)
    weights = [torch.linspace(-1, 1, t.numel(), dtype=t.dtype).view_as(t) for t in (packed, last)]
    loss = (packed * weights[0]).sum() + (last * weights[1]).sum()
    torch.testing.assert_close(gradients, torch.autograd.grad(loss, [*network.parameters(), *xs, h0]))


def test_second_derivatives():
    network = VFRNN(3, 4, bidirectional=True, nonlinearity="tanh", dtype=torch.float64)
    packed = pack_sequence(sequences((3, 1)))

    def function(data):
        output, h_n = network(packed._replace(data=data))
        return output.data, h_n

    data = packed.data.detach().requires_grad_()
    assert torch.autograd.gradgradcheck(function, data, fast_mode=True, check_undefined_grad=False)


def test_dropout_is_torchs():
    theirs, ours = (network_type(3, 5, 3, dropout=0.5) for network_type in (torch.nn.RNN, RNN))
    ours.load_state_dict(theirs.state_dict())
    packed, outputs = pack_sequence(sequences(dtype=torch.float32), enforce_sorted=False), []
    for network in (theirs, ours):
        torch.manual_seed(1)
        outputs.append(network(packed)[0].data)
    torch.testing.assert_close(outputs[1], outputs[0])


@pytest.mark.parametrize("network_type", NETWORKS)
@pytest.mark.parametrize("batch_first", [True, False])
def test_padded_in_padded_out(network_type, batch_first):
    """The everyday use: pad, pack, run, pad again."""
    network = network_type(3, 5, batch_first=batch_first, bidirectional=True)
    x = torch.randn(5, 6, 3) if batch_first else torch.randn(6, 5, 3)
    packed = pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=batch_first, enforce_sorted=False)
    output, lengths = pad_packed_sequence(network(packed)[0], batch_first=batch_first)
    assert lengths.tolist() == list(LENGTHS)
    assert output.shape == (*x.shape[:2], 10)
    time = 1 if batch_first else 0
    assert output.select(time, 5).abs().sum(-1).count_nonzero() == LENGTHS.count(6)


@in_todays_words
@pytest.mark.parametrize(
    "call",
    [
        lambda rnn: rnn(pack_sequence([torch.zeros(2, 4)])),
        lambda rnn: rnn(pack_sequence([torch.zeros(2, 3, 1)])),
        lambda rnn: rnn(pack_sequence([torch.zeros(2, 3)]).double()),
        lambda rnn: rnn(pack_sequence([torch.zeros(2, 3)]), torch.zeros(1, 2, 4)),
        lambda rnn: rnn(pack_sequence([torch.zeros(2, 3)]), torch.zeros(1, 4)),
    ],
)
def test_errors_are_torchs(call):
    errors = []
    for rnn in (torch.nn.RNN(3, 4), RNN(3, 4)):
        with pytest.raises((RuntimeError, ValueError)) as caught:
            call(rnn)
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_packed_sequence_is_converted_with_to(dtype):
    network = RNN(3, 5, dtype=dtype)
    packed = pack_sequence(sequences(dtype=torch.float32), enforce_sorted=False)
    output, h_n = network(packed.to(dtype))
    assert output.data.dtype == h_n.dtype == dtype


@pytest.mark.parametrize("sort", [False, True])
def test_compiles_without_a_graph_break(sort):
    network = VFRNN(3, 5, 2, bidirectional=True)
    packed = pack_sequence([x.detach() for x in sequences((4, 2, 1), torch.float32)], enforce_sorted=sort)
    results = []
    for run in (network, torch.compile(network, fullgraph=True, backend="aot_eager")):
        output, h_n = run(packed)
        loss = output.data.square().sum() + h_n.sum()
        results.append((output.data, h_n, *torch.autograd.grad(loss, list(network.parameters()))))
    torch.testing.assert_close(*results)


def test_packed_within_an_exported_program():
    class Packs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = RNN(3, 5)

        def forward(self, x, lengths, sort):
            packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=sort)
            return self.network(packed)[0].data

    for sort in (True, False):
        with pytest.raises(RuntimeError, match=r"input must not be packed within torch\.export: give padded sequences"):
            torch.export.export(Packs(), (torch.zeros(4, 2, 3), torch.tensor([4, 2]), sort))
    network, packed = RNN(3, 5), pack_sequence([torch.randn(2, 3), torch.randn(4, 3)], enforce_sorted=False)
    program = torch.export.export(network, (packed,)).module()
    torch.testing.assert_close(program(packed)[0].data, network(packed)[0].data)


def test_times_packed_like_an_input_without_values():
    net = VFRNN(2, 3, device="meta")
    x = pack_sequence([torch.zeros(4, 2), torch.zeros(2, 2)]).to("meta")
    dt = pack_sequence([torch.zeros(4), torch.zeros(2)]).to("meta")
    assert net(x, dt=dt)[0].data.shape == (6, 3)


def test_states_of_another_rank_are_named():
    x = pack_sequence([torch.zeros(4, 2), torch.zeros(2, 2)])
    with pytest.raises(RuntimeError, match=r"Expected hidden size \(1, 2, 3\), got \[3\]"):
        VFRNN(2, 3)(x, torch.zeros(3))
