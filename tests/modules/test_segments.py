"""Resets inside sequences: a loop over samples and steps in float64, and what the segments are."""

import copy

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import vfrnn
from tests.cases import quick
from tests.modules.loops import F64, NETWORKS, compare, construct, loop, on_every_backend
from vfrnn import RNN, VFRNN, OrthogonalRNN
from vfrnn.segments import Segments

T, B = 11, 4
OPTIONS = [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True, "learn_h0": True}]
options_of = pytest.mark.parametrize("options", OPTIONS, ids=["plain", "all"])


def marks(kind="some", T=T, B=B):
    reset = torch.rand(T, B) < {"none": -1.0, "some": 0.3, "all": 2.0}[kind]
    if kind == "some":
        reset[0, 0] = reset[T - 1, 1] = True
        reset[:, 2] = False
    return reset


def inputs(network, B=B):
    x = torch.randn(T, B, 3, dtype=F64, requires_grad=True)
    layers = network.num_layers * (1 + network.bidirectional)
    return x, torch.randn(layers, B, 5, dtype=F64, requires_grad=True)


def laid_out(network, value):
    return value.transpose(0, 1) if network.batch_first else value


def times(kind):
    if kind in (None, 0.7):
        return kind
    shape = {"()": (), "(T,)": (T,), "(T, B)": (T, B)}[kind]
    return (0.5 + torch.rand(shape, dtype=F64)).requires_grad_()


@options_of
@on_every_backend
@pytest.mark.parametrize("kind", quick(["none", "some", "all"], "some"))
def test_values_and_gradients_are_those_of_a_loop(network_type, kind, options, backend):
    network = construct(network_type, backend=backend, **options)
    (x, hx), reset = inputs(network), marks(kind)
    output, h_n = network(laid_out(network, x), hx, reset=laid_out(network, reset))
    outputs, expected = loop(network, x, hx, reset=reset)
    compare(network, [laid_out(network, output), h_n], [outputs[-1], expected], [x, hx])


@pytest.mark.parametrize("network_type", [VFRNN, OrthogonalRNN])
@pytest.mark.parametrize("dt", [0.7, "()", "(T,)", "(T, B)"])
def test_with_times(network_type, dt):
    network, dt = construct(network_type, **OPTIONS[1]), times(dt)
    (x, hx), reset = inputs(network), marks()
    given = dt.mT if isinstance(dt, torch.Tensor) and dt.dim() == 2 else dt
    output, h_n = network(laid_out(network, x), hx, reset=reset.mT, dt=given)
    outputs, expected = loop(network, x, hx, reset=reset, dt=dt)
    leaves = [x, hx, *([dt] if isinstance(dt, torch.Tensor) else [])]
    compare(network, [laid_out(network, output), h_n], [outputs[-1], expected], leaves)


@options_of
@pytest.mark.parametrize("network_type", NETWORKS)
@pytest.mark.parametrize("how", ["packed", "packed mask", "lengths"])
def test_of_different_lengths(network_type, how, options):
    network, ends = construct(network_type, **options), [4, 11, 1, 7]
    (x, hx), reset = inputs(network), marks()
    reset[4:, 0] = True  # in the padding, which cuts nothing
    given, mask = laid_out(network, x), laid_out(network, reset)
    pack = lambda t: pack_padded_sequence(t, torch.tensor(ends), network.batch_first, enforce_sorted=False)  # noqa: E731
    if how == "lengths":
        output, h_n = network(given, hx, reset=mask, lengths=ends)
    else:
        output, h_n = network(pack(given), hx, reset=pack(mask) if how == "packed mask" else mask)
        output, _ = pad_packed_sequence(output, network.batch_first)
    outputs, expected = loop(network, x, hx, reset=reset, lengths=ends)
    compare(network, [laid_out(network, output), h_n], [outputs[-1], expected], [x, hx])


@options_of
@pytest.mark.parametrize("network_type", NETWORKS)
def test_unbatched(network_type, options):
    network = construct(network_type, **options)
    (x, hx), reset = inputs(network, 1), marks(B=4)[:, :1]
    output, h_n = network(x[:, 0], hx[:, 0], reset=reset[:, 0])
    outputs, expected = loop(network, x, hx, reset=reset)
    compare(network, [output, h_n], [outputs[-1][:, 0], expected[:, 0]], [x, hx])


@pytest.mark.parametrize("network_type", NETWORKS)
def test_last_states_alone(network_type):
    network = construct(network_type, **OPTIONS[1])
    (x, hx), reset = inputs(network), marks()
    output, h_n = network(laid_out(network, x), hx, reset=reset.mT, return_sequence=False)
    _, expected = loop(network, x, hx, reset=reset)
    compare(network, [output, h_n], [torch.cat([*expected[-2:]], -1), expected], [x, hx])


def test_nothing_crosses_a_mark():
    """Neither a value nor a gradient, not even one that is not finite."""
    network = construct(VFRNN, bidirectional=True)
    x = torch.randn(T, B, 3, dtype=F64)
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[5] = True
    alone = network(x[5:])[0]
    x[:5] = torch.nan
    x.requires_grad_()
    output, _ = network(x, reset=reset)
    torch.testing.assert_close(output[5:], alone)
    assert not torch.autograd.grad(output[5:].sum(), x)[0][5:].isnan().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_dtypes(dtype):
    """Rounded once for each layer: the states are those of the parts between the marks, to the bit."""
    network = construct(VFRNN, dtype=dtype, num_layers=2)
    x = torch.randn(T, B, 3, dtype=dtype)
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[4] = True
    parts = torch.cat([network(x[:4])[0], network(x[4:])[0]])
    tolerance = 4 * torch.finfo(dtype).eps  # of states of order one, summed in another order
    torch.testing.assert_close(network(x, reset=reset)[0], parts, rtol=tolerance, atol=tolerance)
    with torch.autocast("cpu", torch.bfloat16):
        low = construct(VFRNN, dtype=torch.float32)
        assert low(x.bfloat16(), reset=reset)[0].dtype == torch.float32


def test_the_batches_are_few_and_bounded():
    """At most log2(T) + 2 calls, and at most 2 T steps in one after another and 2 T B rows in all."""
    for T, rate in ((1, 0.5), (257, 0.0), (257, 0.02), (1000, 0.3), (1024, 1.0)):
        cut = torch.rand(T, 3) < rate
        batches = Segments(cut).batches
        assert len(batches) <= T.bit_length() + 1
        assert sum(rows.shape[0] for rows, _ in batches) <= 2 * T
        assert sum(rows.numel() for rows, _ in batches) <= 2 * T * 3


def test_the_exponential_is_computed_once(monkeypatch):
    """Once for each layer and direction, in however many batches the segments run."""
    from vfrnn import steps

    calls, original = [], steps.strang_step
    monkeypatch.setattr(steps, "strang_step", lambda *args, **options: calls.append(1) or original(*args, **options))
    network = construct(VFRNN, num_layers=2, bidirectional=True)
    (x, hx), reset = inputs(network), marks()
    assert len(Segments(reset).batches) > 2
    network(x, hx, reset=reset)
    assert len(calls) == 4


def test_second_derivatives():
    network = construct(RNN)
    reset = marks()[:5, :2]
    x = torch.randn(5, 2, 3, dtype=F64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: network(x, reset=reset)[0], x, fast_mode=True)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile reads it where its graph breaks
def test_under_vmap_and_compile():
    network = construct(OrthogonalRNN)
    reset, xs = marks(), torch.randn(2, T, B, 3, dtype=F64)
    expected = torch.stack([network(x, reset=reset)[0] for x in xs])
    torch.testing.assert_close(torch.vmap(lambda x: network(x, reset=reset)[0])(xs), expected)
    with pytest.raises(RuntimeError, match=r"reset must not be mapped by torch\.vmap"):
        torch.vmap(lambda x, reset: network(x, reset=reset)[0])(xs, torch.stack([reset, reset]))
    with pytest.raises(RuntimeError, match=r"reset must be None in torch\.export"):
        torch.export.export(network, (xs[0],), {"reset": reset})
    with pytest.raises(RuntimeError, match=r"reset must be None in torch\.jit\.trace"):
        torch.jit.trace(lambda x: network(x, reset=reset)[0], xs[0])
    torch.compiler.reset()
    compiled = torch.compile(network, backend="eager")
    for mask in (reset, marks(), marks("all")):  # of other segments: nothing is compiled again
        with torch._dynamo.config.patch(error_on_recompile=mask is not reset):
            torch.testing.assert_close(compiled(xs[0], reset=mask), network(xs[0], reset=mask))
    torch.compiler.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="reset= cuts the sequences where its values say"):
        torch.compile(network, backend="eager", fullgraph=True)(xs[0], reset=reset)


def test_without_a_batch():
    network = construct(VFRNN)
    output, h_n = network(torch.zeros(T, 0, 3, dtype=F64), reset=torch.zeros(T, 0, dtype=torch.bool))
    assert output.shape == (T, 0, 5)
    assert h_n.shape == (1, 0, 5)
    meta = copy.deepcopy(network).to("meta")
    x, reset = torch.zeros(T, B, 3, dtype=F64, device="meta"), torch.zeros(T, B, dtype=torch.bool, device="meta")
    assert meta(x, reset=reset)[0].shape == (T, B, 5)


@pytest.mark.parametrize(
    ("reset", "error", "words"),
    [
        ([True], TypeError, "reset must be a boolean tensor or a PackedSequence of one, got list"),
        (torch.zeros(T, B), TypeError, r"reset must be boolean, got torch.float32: reset.bool\(\) makes it so"),
        (torch.zeros(T, dtype=torch.bool), ValueError, r"reset must have shape \(T, B\) with T = 11, B = 4, got"),
        (torch.zeros(B, T, dtype=torch.bool), ValueError, r"reset must have shape \(T, B\) with T = 11, B = 4, got"),
        (torch.zeros(T, B, dtype=torch.bool).to_sparse(), TypeError, "reset must be a dense tensor, got layout"),
        (torch.tensor(True), ValueError, r"reset must have shape \(T, B\) with T = 11, B = 4, got \(\)"),
        (torch.zeros(T, B, dtype=torch.bool, device="meta"), ValueError, "reset must be on the device of the input"),
        (
            pack_padded_sequence(torch.zeros(T, B).bool(), [T] * B),
            TypeError,
            "VFRNN: reset must be a tensor, got Packed",
        ),
    ],
)
def test_bad_masks(reset, error, words):
    network = construct(VFRNN)
    with pytest.raises(error, match=words):
        network(torch.zeros(T, B, 3, dtype=F64), reset=reset)


def test_inspect_needs_sequences_without_marks():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = RNN(3, 5)

        def forward(self, x):
            return self.network(x, reset=marks())

    with pytest.raises(ValueError, match="the example must be read without reset"):
        vfrnn.inspect(Model(), torch.zeros(T, B, 3))
