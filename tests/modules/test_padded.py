"""Lengths of padded batches: a loop over samples and steps in float64, and torch.nn.RNN on packed sequences."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import vfrnn
from tests.modules.loops import F64, NETWORKS, compare, construct, loop, on_every_backend
from vfrnn import RNN, VFRNN, OrthogonalRNN

T, LENGTHS = 9, [4, 9, 1, 7]
OPTIONS = [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True, "learn_h0": True}]
options_of = pytest.mark.parametrize("options", OPTIONS, ids=["plain", "all"])


def inputs(network):
    """x (T, B, 3), NaN in the padding, and hx."""
    x = torch.randn(T, 4, 3, dtype=F64)
    for b, length in enumerate(LENGTHS):
        x[length:, b] = torch.nan
    layers = network.num_layers * (1 + network.bidirectional)
    return x.requires_grad_(), torch.randn(layers, 4, 5, dtype=F64, requires_grad=True)


def laid_out(network, value):
    return value.transpose(0, 1) if network.batch_first else value


@options_of
@on_every_backend
def test_values_and_gradients_are_those_of_a_loop(network_type, options, backend):
    network = construct(network_type, backend=backend, **options)
    x, hx = inputs(network)
    output, h_n = network(laid_out(network, x), hx, lengths=LENGTHS)
    outputs, expected = loop(network, x, hx, lengths=LENGTHS)
    compare(network, [laid_out(network, output), h_n], [outputs[-1], expected], [x, hx])


@options_of
@pytest.mark.parametrize("network_type", [VFRNN, OrthogonalRNN])
@pytest.mark.parametrize("shape", [(), (T,), (T, 4)], ids=str)
def test_with_times(network_type, shape, options):
    network = construct(network_type, **options)
    x, hx = inputs(network)
    dt = 0.5 + torch.rand(shape, dtype=F64)
    if len(shape) == 2:
        dt[5:, 0] = torch.nan  # behind the end
    dt.requires_grad_()
    given = dt.mT if network.batch_first and len(shape) == 2 else dt
    output, h_n = network(laid_out(network, x), hx, dt=given, lengths=torch.tensor(LENGTHS))
    outputs, expected = loop(network, x, hx, dt=dt, lengths=LENGTHS)
    compare(network, [laid_out(network, output), h_n], [outputs[-1], expected], [x, hx, dt])


@options_of
def test_results_are_those_of_packed_sequences_in_torch(options):
    options = {name: value for name, value in options.items() if name != "learn_h0"}
    theirs = torch.nn.RNN(3, 5, dtype=F64, **options)
    ours = RNN(3, 5, dtype=F64, **options)
    ours.load_state_dict(theirs.state_dict())
    x, hx = inputs(ours)
    x = laid_out(ours, x.detach().nan_to_num())
    packed = pack_padded_sequence(x, LENGTHS, ours.batch_first, enforce_sorted=False)
    expected, last = theirs(packed, hx)
    expected, _ = pad_packed_sequence(expected, ours.batch_first)
    for lengths in (LENGTHS, tuple(LENGTHS), list(np.array(LENGTHS)), torch.tensor(LENGTHS, dtype=torch.int32)):
        torch.testing.assert_close(ours(x, hx, lengths=lengths), (expected, last))


@pytest.mark.parametrize("network_type", NETWORKS)
def test_last_states_and_all_layers(network_type):
    network = construct(network_type, **OPTIONS[1])
    x, hx = inputs(network)
    outputs, last = loop(network, x, hx, lengths=LENGTHS)
    output, h_n = network(laid_out(network, x), hx, lengths=LENGTHS, return_sequence=False)
    compare(network, [output, h_n], [torch.cat([*last[-2:]], -1), last], [x, hx])
    outputs, last = loop(network, x, hx, lengths=LENGTHS)
    found, h_n = network(laid_out(network, x), hx, lengths=LENGTHS, return_all_layers=True)
    compare(network, [*(laid_out(network, hs) for hs in found), h_n], [*outputs, last], [x, hx])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_dtypes(dtype):
    """The states of a sequence are those that it has alone."""
    network, x = construct(VFRNN, dtype=dtype, num_layers=2), torch.randn(T, 4, 3, dtype=dtype)
    output, h_n = network(x, lengths=LENGTHS)
    tolerance = 4 * torch.finfo(dtype).eps
    for b, length in enumerate(LENGTHS):
        alone, last = network(x[:length, b])
        torch.testing.assert_close(output[:length, b], alone, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(h_n[:, b], last, rtol=tolerance, atol=tolerance)
    assert not output[LENGTHS[0] :, 0].any()


@pytest.mark.parametrize("network_type", [RNN, VFRNN, OrthogonalRNN])
def test_compiled_exported_and_mapped(network_type):
    """No shape depends on the lengths: one graph serves all of them."""
    network = construct(network_type, bidirectional=True, dtype=torch.float32)
    x, every = torch.randn(T, 4, 3), [torch.tensor(LENGTHS), torch.tensor([1, 2, 9, 3])]
    expected = [network(x, lengths=lengths) for lengths in every]
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    program = torch.export.export(network, (x,), {"lengths": every[0]}).module()
    for lengths, wanted in zip(every, expected, strict=True):
        torch.testing.assert_close(compiled(x, lengths=lengths), wanted)
        torch.testing.assert_close(program(x, lengths=lengths), wanted)
    mapped = torch.vmap(lambda lengths: network(x, lengths=lengths)[1])(torch.stack(every))
    torch.testing.assert_close(mapped, torch.stack([h_n for _, h_n in expected]))


def test_inspect_reads_each_sequence_to_its_end():
    network = construct(VFRNN)
    x = inputs(network)[0].detach().nan_to_num()

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = copy.deepcopy(network)

        def forward(self, x, lengths):
            if lengths == "packed":
                return self.network(pack_padded_sequence(x, LENGTHS, enforce_sorted=False))
            return self.network(x, lengths=lengths)

    found, packed = (vfrnn.inspect(Model(), (x, how)) for how in (LENGTHS, "packed"))
    (one,), (other,) = found.layers, packed.layers
    assert one.gradient is not None
    torch.testing.assert_close(one.gradient, other.gradient, equal_nan=True)


@pytest.mark.parametrize(
    ("lengths", "error", "words"),
    [
        (3, TypeError, "lengths must be a tensor or a list of integers, got int"),
        ([1.0, 2, 3, 4], TypeError, "lengths must be integers, got float in a list"),
        (torch.ones(4), TypeError, "lengths must be integers, got torch.float32"),
        (torch.ones(4, dtype=torch.bool), TypeError, "lengths must be integers, got torch.bool"),
        ([True, 2, 3, 4], TypeError, "lengths must be integers, got bool in a list"),
        (torch.ones(4, dtype=torch.long).to_sparse(), TypeError, "lengths must be a dense tensor, got layout"),
        (torch.ones(4, dtype=torch.long, device="meta"), ValueError, "lengths must be on the CPU or on the device of"),
        (torch.tensor([1, 2, 3, 10], dtype=torch.uint16), ValueError, "lengths must be from 1 to T = 9, got 10"),
        ([1, 2, 3, 2**70], ValueError, "lengths must be from 1 to T = 9, got"),
        ([1, 2], ValueError, r"lengths must have shape \(B,\) with B = 4, got \(2,\)"),
        ([1, 2, 3, 0], ValueError, "lengths must be from 1 to T = 9, got 0"),
        ([1, 2, 3, 10], ValueError, "lengths must be from 1 to T = 9, got 10"),
    ],
)
def test_bad_lengths(lengths, error, words):
    with pytest.raises(error, match=words):
        VFRNN(3, 5)(torch.zeros(T, 4, 3), lengths=lengths)


def test_what_has_no_padding():
    network, x = RNN(3, 5), torch.zeros(T, 4, 3)
    with pytest.raises(ValueError, match=r"lengths must be None for an unbatched input \(T, i\)"):
        network(x[:, 0], lengths=[3])
    with pytest.raises(ValueError, match="lengths must be None for a PackedSequence, which has its own"):
        network(pack_padded_sequence(x, [T] * 4), lengths=[T] * 4)
    assert network(torch.zeros(T, 0, 3), lengths=[])[0].shape == (T, 0, 5)
