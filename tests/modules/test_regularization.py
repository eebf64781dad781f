"""Recurrent dropout and zoneout: the loop with masks drawn again from the same seed, and their rates."""

import copy
import math
import pickle

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import vfrnn
from tests.modules.loops import F64, NETWORKS, compare, construct, loop, on_every_backend
from vfrnn import (
    RNN,
    VFRNN,
    InputFieldRNN,
    InputFieldRNNCell,
    OrthogonalRNN,
    OrthogonalRNNCell,
    RNNCell,
    VFRNNCell,
    convert,
)

T, B, N = 7, 4, 5
OPTIONS = [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True, "learn_h0": True}]
options_of = pytest.mark.parametrize("options", OPTIONS, ids=["plain", "all"])
NOISES = [
    {"recurrent_dropout": 0.4},
    {"zoneout": 0.3},
    {"recurrent_dropout": 0.25, "zoneout": 0.5},
    {"recurrent_dropout": 1.0},
    {"zoneout": 1.0},
]
EXTREMES = [pytest.param(noise, marks=pytest.mark.slow) for noise in NOISES[3:]]
noises = pytest.mark.parametrize("noise", [*NOISES[:3], *EXTREMES], ids=str)
CELLS = {RNN: RNNCell, VFRNN: VFRNNCell, OrthogonalRNN: OrthogonalRNNCell, InputFieldRNN: InputFieldRNNCell}


def inputs(network, B=B):
    x = torch.randn(T, B, 3, dtype=F64, requires_grad=True)
    layers = network.num_layers * (1 + network.bidirectional)
    return x, torch.randn(layers, B, N, dtype=F64, requires_grad=True)


def laid_out(network, value):
    return value.transpose(0, 1) if network.batch_first else value


def drawn(network, B=B, T=T, dtype=F64):
    """The change of the loop that the next call of the network makes, from the generator as it is."""
    masks, kept = [], []
    for _ in network.suffixes:
        ones = torch.ones(B, N, dtype=dtype)
        masks.append(F.dropout(ones, network.recurrent_dropout) if network.recurrent_dropout else ones)
        kept.append(F.dropout(torch.ones(T, B, N, dtype=dtype), network.zoneout) == 0 if network.zoneout else None)

    def change(k, t, b, h, step):
        after = step(masks[k][b] * h)
        if kept[k] is None:
            return after
        # the second direction draws in the order of its steps
        now = T - 1 - t if network.suffixes[k].endswith("reverse") else t
        return torch.where(kept[k][now][b], h, after)

    return change


@options_of
@noises
@on_every_backend
def test_training_is_the_loop_with_these_masks(network_type, noise, options, backend):
    network = construct(network_type, backend=backend, **options, **noise)
    x, hx = inputs(network)
    torch.manual_seed(3)
    output, h_n = network(laid_out(network, x), hx)
    torch.manual_seed(3)
    outputs, last = loop(network, x, hx, change=drawn(network))
    compare(network, [laid_out(network, output), h_n], [outputs[-1], last], [x, hx])


@options_of
@on_every_backend
def test_evaluation(network_type, options, backend):
    """Recurrent dropout does nothing; zoneout mixes both states by its probability."""
    network = construct(network_type, backend=backend, recurrent_dropout=0.4, zoneout=0.3, **options).eval()
    x, hx = inputs(network)
    output, h_n = network(laid_out(network, x), hx)
    outputs, last = loop(network, x, hx, change=lambda k, t, b, h, step: 0.3 * h + 0.7 * step(h))
    compare(network, [laid_out(network, output), h_n], [outputs[-1], last], [x, hx])
    network.zoneout = 0.0
    plain = construct(network_type, backend=backend, **options)
    plain.load_state_dict(network.state_dict())
    for mine, expected in zip(network(laid_out(network, x), hx), plain(laid_out(network, x), hx), strict=True):
        assert torch.equal(mine, expected)  # the same call of the op


@pytest.mark.parametrize("network_type", NETWORKS)
@pytest.mark.parametrize("how", ["packed", "lengths", "last", "unbatched", "dt"])
def test_with_other_arguments(network_type, how):
    network, ends = construct(network_type, 2, recurrent_dropout=0.25, zoneout=0.5), [T, 3, 5, 1]
    samples = 1 if how == "unbatched" else B
    x, hx = inputs(network, samples)
    if how == "dt" and network_type is RNN:
        pytest.skip("it has no time")
    dt = torch.tensor(0.5, dtype=F64, requires_grad=True) if how == "dt" else None
    torch.manual_seed(3)
    if how == "packed":
        output, h_n = network(pack_padded_sequence(x, torch.tensor(ends), enforce_sorted=False), hx)
        output = pad_packed_sequence(output)[0]
    elif how == "unbatched":
        output, h_n = network(x[:, 0], hx[:, 0])
        output, h_n = output[:, None], h_n[:, None]
    else:
        named = {"lengths": {"lengths": ends}, "last": {"return_sequence": False}, "dt": {"dt": dt}}[how]
        output, h_n = network(x, hx, **named)
    torch.manual_seed(3)
    change = drawn(network, samples)
    if how == "packed":  # the masks are those of the sequences from the longest to the shortest
        order = sorted(range(B), key=lambda b: -ends[b])
        by_length = change
        change = lambda k, t, b, h, step: by_length(k, t, order.index(b), h, step)  # noqa: E731
    lengths = ends if how in ("packed", "lengths") else None
    outputs, last = loop(network, x, hx, change=change, lengths=lengths, dt=dt)
    expected = [last[-1] if how == "last" else outputs[-1], last]
    compare(network, [output, h_n], expected, [x, hx, *([] if dt is None else [dt])])


def test_a_segment_has_a_mask_of_its_own():
    """After a reset another sequence begins. With the identity and no input, ones become 0 or 1 / (1 - p)."""
    network = RNN(1, 200, nonlinearity="identity", bias=False, recurrent_dropout=0.5)
    with torch.no_grad():
        network.weight_ih_l0.zero_()
        torch.nn.init.eye_(network.weight_hh_l0)
        network.register_parameter("h0_l0", torch.nn.Parameter(torch.ones(200)))
        network.learn_h0 = True
    reset = torch.zeros(6, 1, dtype=torch.bool)
    reset[2] = reset[4] = True
    states = network(torch.zeros(6, 1, 1), reset=reset)[0][:, 0].detach()
    kept = states > 0
    for begin in (0, 2, 4):
        assert torch.equal(states[begin], 2 * kept[begin])
        assert torch.equal(states[begin + 1], 4 * kept[begin])  # the same mask in both steps
    assert len({tuple(row.tolist()) for row in kept[[0, 2, 4]]}) == 3


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_rates(p):
    """Of many entries a share p, within five standard deviations."""
    count = 20000
    bound = 5 * math.sqrt(p * (1 - p) / count)
    network = RNN(1, count // 100, nonlinearity="identity", bias=False, zoneout=p)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.zero_() if "hh" in name else parameter.fill_(1.0)
        states = network(torch.arange(1.0, 101).view(100, 1, 1))[0][:, 0]  # h_t = t, or what it was
    left = (states != torch.arange(1.0, 101)[:, None]).double()
    assert abs(left.mean() - p) < bound
    mask = RNNCell(1, 200, recurrent_dropout=p).dropout_mask(count // 200)
    assert abs((mask == 0).double().mean() - p) < bound
    assert mask[mask > 0].unique().tolist() == pytest.approx([1 / (1 - p)])


@pytest.mark.parametrize("network_type", NETWORKS)
@pytest.mark.parametrize("batched", [True, False])
def test_a_cell_in_a_loop_is_the_network(network_type, batched):
    """The same mask; zoneout, of which a cell draws each step's, in the sequence of one step."""
    noise = {"recurrent_dropout": 0.25, "zoneout": 0.5}
    network, cell = construct(network_type, **noise), construct(CELLS[network_type], **noise)
    cell.load_state_dict({name.replace("_l0", ""): value for name, value in network.state_dict().items()})
    x, hx = inputs(network, B if batched else 1)
    if network_type is InputFieldRNN:
        cell.substeps = network.substeps
    for training, zoneout, steps in ((True, 0.0, T), (True, 0.5, 1), (False, 0.5, T)):
        network.train(training), cell.train(training)
        network.zoneout = cell.zoneout = zoneout
        torch.manual_seed(3)
        expected = network(x[:steps], hx)[0]
        torch.manual_seed(3)
        h, mask = hx[0] if batched else hx[0, 0], cell.dropout_mask(B if batched else None)
        assert (mask is None) == (not training)
        for t in range(steps):
            h = cell(x[t] if batched else x[t, 0], h, mask=mask)
        torch.testing.assert_close(h, expected[-1] if batched else expected[-1, 0])


def test_a_cell_needs_the_mask_of_its_sequence():
    for size, error in (("2", TypeError), (2.0, TypeError), (-1, ValueError)):
        with pytest.raises(error, match="batch_size must be"):
            RNNCell(3, 5).dropout_mask(size)
    with pytest.raises(ValueError, match="batch_size must be at most 2147483647, got 9223372036854775808"):
        RNNCell(3, 5, recurrent_dropout=0.5).dropout_mask(2**63)
    cell = VFRNNCell(3, 5, recurrent_dropout=0.5)
    with pytest.raises(ValueError, match=r"mask must be given where recurrent_dropout acts: mask = cell\.dropout_mask"):
        cell(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"mask must have shape \(B, n\) with n = 5, got \(5,\)"):
        cell(torch.zeros(2, 3), mask=torch.ones(5))
    with pytest.raises(TypeError, match=r"mask must have the dtype of the state, torch\.float32, got torch\.float64"):
        cell(torch.zeros(2, 3), mask=torch.ones(2, 5, dtype=F64))
    assert cell.eval()(torch.zeros(2, 3)).shape == (2, 5)
    assert cell.dropout_mask(2) is None


@pytest.mark.parametrize("network_type", NETWORKS)
def test_streams(network_type):
    network = construct(network_type, 2, recurrent_dropout=0.5, zoneout=0.3, learn_h0=True).eval()
    x, state = torch.randn(T, B, 3, dtype=F64), None
    for x_t in x:
        y, state = network.step(x_t, state)
    output, h_n = network(x)
    torch.testing.assert_close((y, state), (output[-1], h_n))
    with pytest.raises(RuntimeError, match=r"step needs eval\(\) where recurrent_dropout is positive"):
        network.train().step(x[0])
    network.recurrent_dropout = 0.0
    _, state = network.step(x[0])
    assert not torch.equal(state, network.step(x[0])[1])  # zoneout draws


@pytest.mark.parametrize("noise", [{"recurrent_dropout": 0.5}, {"zoneout": 0.5}], ids=str)
def test_randomness_of_vmap(noise):
    network = construct(VFRNN, **noise)
    xs = torch.randn(3, T, B, 3, dtype=F64)[:1].expand(3, -1, -1, -1)
    run = lambda x: network(x)[0]  # noqa: E731
    different = torch.vmap(run, randomness="different")(xs)
    assert not torch.equal(different[0], different[1])
    same = torch.vmap(run, randomness="same")(xs)
    torch.testing.assert_close(same[0], same[1], rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(run)(xs)
    torch.vmap(lambda x: network.eval()(x)[0])(xs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits_are_rounded_once(dtype):
    low = construct(VFRNN, dtype=dtype, nonlinearity="tanh", recurrent_dropout=0.25, zoneout=0.25)
    wide = copy.deepcopy(low).float()
    x, results = torch.randn(40, B, 3, dtype=dtype), []
    for network, given in ((low, x), (wide, x.float())):
        torch.manual_seed(3)
        results.append(network(given)[0])
    # one rounding of every state, where each step would add its own
    torch.testing.assert_close(results[0].float(), results[1], rtol=torch.finfo(dtype).eps, atol=1e-6)
    with torch.autocast("cpu", dtype):
        assert wide(x.float())[0].dtype == torch.float32


def test_compile():
    network = construct(OrthogonalRNN, dtype=torch.float32, zoneout=0.3).eval()
    x = torch.randn(T, B, 3)
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="eager")(x), network(x))
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), network(x))
    with pytest.raises(RuntimeError, match="zoneout must be 0 in a program for every T"):
        torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("T")},))


def test_the_exponential_is_computed_once(monkeypatch):
    from vfrnn import steps

    calls, original = [], steps.skew_expm
    monkeypatch.setattr(steps, "skew_expm", lambda *args, **options: calls.append(1) or original(*args, **options))
    construct(OrthogonalRNN, 2, bidirectional=True, recurrent_dropout=0.5)(torch.randn(T, B, 3, dtype=F64))
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("noise", "name"), [({"recurrent_dropout": 0.5}, "recurrent_dropout"), ({"zoneout": 0.5}, "zoneout")]
)
def test_times_of_every_step_are_refused(noise, name):
    network, dt = construct(VFRNN, **noise), torch.ones(T, dtype=F64)
    words = f"dt must be one time for all steps where {name} acts, got one for every step"
    with pytest.raises(ValueError, match=words):
        network(torch.zeros(T, B, 3, dtype=F64), dt=dt)
    with pytest.raises(ValueError, match=words):
        network(torch.zeros(T, B, 3, dtype=F64), dt=pack_padded_sequence(torch.ones(T, B, dtype=F64), [T] * B))
    network.recurrent_dropout = network.zoneout = 0.0
    network(torch.zeros(T, B, 3, dtype=F64), dt=dt)


def test_copies_words_and_conversion():
    network = OrthogonalRNN(3, 5, recurrent_dropout=0.5, zoneout=0.25)
    assert repr(network) == "OrthogonalRNN(3, 5, recurrent_dropout=0.5, zoneout=0.25)"
    assert repr(RNNCell(3, 5, zoneout=0.25)) == "RNNCell(3, 5, zoneout=0.25)"
    assert "zoneout" not in repr(VFRNN(3, 5))
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert (copied.recurrent_dropout, copied.zoneout) == (0.5, 0.25)
    converted = convert(torch.nn.RNN(3, 5)).model
    assert (converted.recurrent_dropout, converted.zoneout, converted.learn_h0) == (0.0, 0.0, False)
    found = vfrnn.inspect(OrthogonalRNN(3, 5, zoneout=0.5, nonlinearity="identity"), torch.zeros(9, 1, 3), lags=[1])
    # || (I + M) / 2 ||: a plane that turns by an angle a is shortened to |cos(a / 2)|, the fifth axis stays
    torch.testing.assert_close(found.layers[0].gradient, torch.ones(1, 1, dtype=F64))


@pytest.mark.parametrize("name", ["recurrent_dropout", "zoneout"])
@pytest.mark.parametrize("value", [-0.1, 1.5, True, "0.5", None, math.nan])
def test_what_is_no_probability(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be a probability, a number in \[0, 1\], got"):
        RNN(3, 5, **{name: value})
    with pytest.raises(ValueError, match=rf"{name} must be a probability"):
        VFRNNCell(3, 5, **{name: value})
    network = RNN(3, 5)
    setattr(network, name, value)
    with pytest.raises(ValueError, match=rf"{name} must be a probability"):
        network.eval()(torch.zeros(2, 1, 3))
