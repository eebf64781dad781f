"""VFRNN and OrthogonalRNN with a time for every step: the modules on spectral_recurrence."""

import math

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.cases import DTYPES, relative_error
from vfrnn import VFRNN, LatentMesh, OrthogonalRNN
from vfrnn_kernels import recurrence

F64 = torch.float64
T, B = 6, 3


def network(kind=VFRNN, *args, dtype=F64, **kwargs):
    """With all parameters away from 0."""
    model = kind(2, 5, *args, dtype=dtype, **kwargs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def sample(*, batch_first=False, dtype=F64):
    x, dt = torch.randn(T, B, 2, dtype=dtype), torch.randn(T, B, dtype=dtype)
    return (x.transpose(0, 1), dt.mT) if batch_first else (x, dt)


def step_by_step(model, x, dt, layer=0, reverse=False):
    """The states of one layer, each sample's step with a matrix of its own."""
    suffix = f"_l{layer}_reverse" if reverse else f"_l{layer}"
    beta = getattr(model, "beta" + suffix, None)
    samples = []
    for b in range(x.shape[1]):
        h, hs = x.new_zeros(1, model.hidden_size), []
        for x_t, time in zip(x[:, b], dt[:, b], strict=True):
            M = model.step_matrix(layer, reverse, dt=time)
            U, c = getattr(model, "weight_ih" + suffix), getattr(model, "bias" + suffix)
            h = recurrence(x_t[None, None], U, c, M, h, model.nonlinearity, beta, backend="reference")[0]
            hs.append(h)
        samples.append(torch.cat(hs))
    return torch.stack(samples, 1)


@pytest.mark.parametrize("kind", [VFRNN, OrthogonalRNN])
@pytest.mark.parametrize("nonlinearity", ["modrelu", "tanh"])
def test_every_step_has_its_matrix(kind, nonlinearity):
    model = network(kind, nonlinearity=nonlinearity)
    x, dt = sample()
    dt.requires_grad_()
    given = [*model.parameters(), dt]
    results = []
    for hs in (model(x, dt=dt)[0], step_by_step(model, x, dt)):
        results.append((hs, *torch.autograd.grad(hs.square().sum(), given)))
    for mine, expected in zip(*results, strict=True):
        assert relative_error(mine, expected) < 1e-12


@pytest.mark.parametrize(
    "options",
    [{"substeps": 3}, {"volume_preserving": True}, {"mesh": LatentMesh.random(5, cells=4, dim=2, dtype=F64)}],
    ids=str,
)
def test_options(options):
    model = network(**options)
    x, dt = sample()
    assert relative_error(model(x, dt=dt)[0], step_by_step(model, x, dt)) < 1e-12


@pytest.mark.parametrize("kind", [VFRNN, OrthogonalRNN])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_times_are_one_time(kind, dtype):
    model = network(kind, dtype=dtype)
    x, _ = sample(dtype=dtype)
    expected = model(x, dt=0.7)
    for dt in (torch.full((T,), 0.7, dtype=dtype), torch.full((T, B), 0.7, dtype=dtype)):
        for mine, wanted in zip(model(x, dt=dt), expected, strict=True):
            assert relative_error(mine, wanted) < 20 * torch.finfo(dtype).eps


def test_one_time_for_all_samples():
    model = network()
    x, dt = sample()
    torch.testing.assert_close(model(x, dt=dt[:, 0])[0], model(x, dt=dt[:, :1].expand(T, B))[0], rtol=0, atol=0)


def test_layouts():
    model, first = network(), network(batch_first=True)
    first.load_state_dict(model.state_dict())
    x, dt = sample()
    expected, last = model(x, dt=dt)
    output, h_n = first(x.transpose(0, 1), dt=dt.mT)
    assert torch.equal(output.transpose(0, 1), expected)
    assert torch.equal(h_n, last)
    assert torch.equal(first(x.transpose(0, 1), dt=dt[:, 0])[0].transpose(0, 1), model(x, dt=dt[:, 0])[0])
    assert torch.allclose(model(x[:, 1], dt=dt[:, 1])[0], expected[:, 1], rtol=1e-12)


def test_layers_and_directions():
    model = network(VFRNN, 2, bidirectional=True)
    x, dt = sample()
    below = torch.cat(
        [
            step_by_step(model, x, dt),
            step_by_step(model, x.flip(0), dt.flip(0), 0, True).flip(0),
        ],
        -1,
    )
    expected = torch.cat(
        [
            step_by_step(model, below, dt, 1),
            step_by_step(model, below.flip(0), dt.flip(0), 1, True).flip(0),
        ],
        -1,
    )
    assert relative_error(model(x, dt=dt)[0], expected) < 1e-12


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [(6, 4, 1), (2, 6, 5)], ids=str)
def test_packed(lengths, bidirectional):
    model = network(bidirectional=bidirectional)
    x, dt = sample()
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    expected = [model(x[:length, b : b + 1], dt=dt[:length, b : b + 1]) for b, length in enumerate(lengths)]
    for times in (dt, pack_padded_sequence(dt, torch.tensor(lengths), enforce_sorted=False)):
        output, h_n = model(packed, dt=times)
        padded, _ = pad_packed_sequence(output)
        for b, length in enumerate(lengths):
            assert torch.allclose(padded[:length, b], expected[b][0][:, 0], rtol=1e-11, atol=1e-13)
            assert torch.allclose(h_n[:, b], expected[b][1][:, 0], rtol=1e-11, atol=1e-13)
    one = model(packed, dt=dt[:, 0])[0].data
    assert torch.allclose(one, model(packed, dt=dt[:, :1].expand(T, B))[0].data, rtol=1e-12)


def test_gradients_reach_the_times_of_packed_sequences():
    model = network()
    x, dt = sample()
    dt.requires_grad_()
    lengths, hx = torch.tensor([2, 6, 5]), torch.randn(1, B, 5, dtype=F64)
    model(pack_padded_sequence(x, lengths, enforce_sorted=False), hx, dt=dt)[0].data.sum().backward()
    inside = torch.arange(T)[:, None] < lengths
    assert (dt.grad[~inside] == 0).all()
    assert (dt.grad[inside] != 0).all()


def test_stream():
    model = network()
    x, dt = sample()
    expected, state = model(x, dt=dt)[0], None
    for x_t, times, wanted in zip(x, dt, expected, strict=True):
        output, state = model.step(x_t, state, dt=times)
        assert torch.allclose(output, wanted, rtol=1e-12)


def test_sixteen_bits_compute_in_float32():
    model = network(dtype=torch.float32)
    x, dt = sample(dtype=torch.bfloat16)
    half = network(dtype=torch.bfloat16)
    half.load_state_dict(model.state_dict())
    model.load_state_dict(half.state_dict())
    expected = model(x.float(), dt=dt.float())[0]
    assert torch.equal(half(x, dt=dt)[0], expected.to(torch.bfloat16))


def test_compile_and_export():
    model = network()
    x, dt = sample()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, dt=dt)[0], model(x, dt=dt)[0])

    class Sum(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = model

        def forward(self, x, dt):
            return self.rnn(x, dt=dt)[0].sum()

    exported = torch.export.export(Sum(), (x, dt))
    torch.testing.assert_close(exported.module()(x, dt), model(x, dt=dt)[0].sum())


def test_ensemble():
    model = network()
    x, dt = sample()
    other = {name: p + 0.1 for name, p in model.named_parameters()}
    stacked = {name: torch.stack([p.detach(), other[name].detach()]) for name, p in model.named_parameters()}

    def output(parameters):
        return torch.func.functional_call(model, parameters, (x,), {"dt": dt})[0]

    together = torch.func.vmap(output)(stacked)
    assert torch.allclose(together[0], model(x, dt=dt)[0])
    assert torch.allclose(together[1], output(other))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: torch.ones(T + 1, dtype=F64), ValueError, r"dt must have shape \(T,\) or \(T, B\) with T = 6, B = 3"),
        (
            lambda: torch.ones(B, T, dtype=F64),
            ValueError,
            r"dt must have shape \(T,\) or \(T, B\) with T = 6, B = 3, got",
        ),
        (lambda: torch.ones(T, B, 1, dtype=F64), ValueError, r"dt must have shape \(T,\) or \(T, B\)"),
        (
            lambda: torch.ones(T, B),
            TypeError,
            "dt must have the dtype of the parameters, torch.float64, got torch.float32",
        ),
        (lambda: torch.full((T, B), math.nan, dtype=F64), RuntimeError, "dt must be finite, got NaN or infinity"),
        (lambda: torch.full((T,), math.inf, dtype=F64), RuntimeError, "dt must be finite, got NaN or infinity"),
        (lambda: pack_padded_sequence(torch.ones(T, B, dtype=F64), [6, 4, 1]), TypeError, "got PackedSequence with a"),
    ],
)
def test_bad_times(make, error, message):
    with pytest.raises(error, match=message):
        network()(sample()[0], dt=make())


def test_bad_times_of_other_inputs():
    x, dt = sample(batch_first=True)
    with pytest.raises(ValueError, match=r"dt must have shape \(T,\) or \(B, T\) with T = 6, B = 3, got \(6, 3\)"):
        network(batch_first=True)(x, dt=dt.mT)
    packed = pack_padded_sequence(sample()[0], [6, 4, 1])
    with pytest.raises(ValueError, match="dt must be packed like the input, got other batch_sizes"):
        network()(packed, dt=pack_padded_sequence(torch.ones(T, B, dtype=F64), [5, 5, 1]))
    with pytest.raises(ValueError, match=r"dt must have shape \(rows,\) as packed data, like the input, got \(18,\)"):
        network()(packed, dt=pack_padded_sequence(torch.ones(T, B, dtype=F64), [6, 6, 6]))
    with pytest.raises(ValueError, match=r"dt must have shape \(\) or \(B,\) with B = 3, got \(6,\)"):
        network().step(sample()[0][0], dt=sample()[1][:, 0])
