"""vfrnn.convert replaces torch.nn.RNN layers and says so; param_groups finds the generators."""

import copy
import math

import pytest
import torch
from torch import nn

import vfrnn
from tests.cases import skew_matrix
from vfrnn import convert
from vfrnn.convert import nearest_rotation, rotation_logarithm

OPTIONS = [
    {},
    {"nonlinearity": "relu", "bias": False},
    {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.3},
]
LAYERS = {"orthogonal": vfrnn.OrthogonalRNN, "vfrnn": vfrnn.VFRNN}


class Tagger(nn.Module):
    """RNNs at several depths, one of them in two places, and recurrent layers of other kinds."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleDict({"rnn": nn.RNN(3, 4, batch_first=True), "norm": nn.LayerNorm(4)})
        self.stack = nn.ModuleList([nn.RNN(4, 4, 2), nn.GRU(4, 4)])
        self.again = self.encoder["rnn"]
        self.lstm = nn.LSTM(4, 4)


def rotation(angles, n):
    """A rotation by these angles in random planes."""
    blocks = torch.eye(n, dtype=torch.float64)
    for k, angle in enumerate(angles):
        c, s = math.cos(angle), math.sin(angle)
        blocks[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    U = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64)).Q
    return U @ blocks @ U.mT


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_rnn_has_equal_outputs_and_the_same_parameters(options):
    theirs = nn.RNN(3, 5, **options).eval()
    parameters, x = list(theirs.parameters()), torch.randn(2, 4, 3)
    state = torch.get_rng_state()
    report = convert(theirs)
    assert torch.equal(torch.get_rng_state(), state)  # no random number is drawn
    ours = report.model
    assert type(ours) is vfrnn.RNN
    assert not ours.training
    for p, q in zip(ours.parameters(), parameters, strict=True):
        assert p is q
    for p, q in zip(ours(x), theirs(x), strict=True):
        torch.testing.assert_close(p, q)
    assert report.replaced[0].names == ("",)
    assert set(report.replaced[0].distances.values()) == {0.0}
    assert str(report) == f"(the model): {theirs} -> {ours}"


@pytest.mark.parametrize("to", ["orthogonal", "vfrnn"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_field_layers_start_from_the_polar_factor(to, options):
    theirs = nn.RNN(3, 6, dtype=torch.float64, **options)
    report = convert(copy.deepcopy(theirs), to)
    ours = report.model
    assert type(ours) is LAYERS[to]
    for name in ("num_layers", "bias", "batch_first", "bidirectional", "dropout", "nonlinearity", "training"):
        assert getattr(ours, name) == getattr(theirs, name)
    replica = copy.deepcopy(theirs)
    for layer in range(theirs.num_layers):
        for reverse in (False, True)[: 1 + theirs.bidirectional]:
            suffix = f"l{layer}_reverse" if reverse else f"l{layer}"
            W = getattr(theirs, f"weight_hh_{suffix}").detach()
            Q, reflected = nearest_rotation(W)
            torch.testing.assert_close(ours.step_matrix(layer, reverse).detach(), Q, rtol=0, atol=1e-12)
            distance = float(torch.linalg.matrix_norm(W - Q))
            assert report.replaced[0].distances[suffix] == pytest.approx(distance)
            assert (suffix in report.replaced[0].reflections) == reflected
            with torch.no_grad():
                getattr(replica, f"weight_hh_{suffix}").copy_(Q)
    # With the polar factors as its weights, torch.nn.RNN computes the same.
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    for p, q in zip(ours.eval()(x), replica.eval()(x), strict=True):
        torch.testing.assert_close(p, q)


def test_an_orthogonal_weight_is_kept():
    rnn = nn.RNN(3, 8)
    nn.init.orthogonal_(rnn.weight_hh_l0)
    if torch.linalg.det(rnn.weight_hh_l0) < 0:
        with torch.no_grad():
            rnn.weight_hh_l0[0] *= -1
    report = convert(rnn, "orthogonal", exp_dtype=torch.float64)
    assert report.replaced[0].distances["l0"] < 1e-5
    x = torch.randn(5, 2, 3)
    for p, q in zip(report.model(x), rnn(x), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-5)
    assert report.model.exp_dtype == torch.float64


def test_a_model_is_converted_in_place_shared_layers_once():
    model = Tagger()
    norm, outputs = model.encoder["norm"], model.encoder["rnn"](torch.ones(2, 5, 3))[0]
    report = convert(model)
    assert report.model is model
    assert type(model.encoder["rnn"]) is type(model.stack[0]) is vfrnn.RNN
    assert model.again is model.encoder["rnn"]
    assert model.encoder["norm"] is norm
    torch.testing.assert_close(model.again(torch.ones(2, 5, 3))[0], outputs)
    assert [r.names for r in report.replaced] == [("encoder.rnn", "again"), ("stack.0",)]
    assert report.kept == {"stack.1": "GRU has gates", "lstm": "LSTM has gates"}
    assert str(report).splitlines() == [
        "encoder.rnn, again: RNN(3, 4, batch_first=True) -> RNN(3, 4, batch_first=True)",
        "stack.0: RNN(4, 4, num_layers=2) -> RNN(4, 4, num_layers=2)",
        "stack.1: kept, GRU has gates",
        "lstm: kept, LSTM has gates",
    ]
    assert str(convert(nn.Linear(2, 2))) == "no recurrent layer found"
    assert "||W - Q||" in str(convert(nn.RNN(3, 4), "vfrnn"))


def test_what_cannot_be_replaced_is_kept_with_the_reason():
    class Mine(nn.RNN):
        pass

    hooked = nn.RNN(3, 4)
    hooked.register_forward_hook(lambda *_: None)
    model = nn.ModuleDict(
        {
            "cell": nn.RNNCell(3, 4),
            "gates": nn.GRUCell(3, 4),
            "parametrized": vfrnn.parametrizations.orthogonal(nn.RNN(3, 4), "weight_hh_l0"),
            "mine": Mine(3, 4),
            "hooked": hooked,
        }
    )
    before = dict(model.items())
    report = convert(model)
    assert not report.replaced
    assert dict(model.items()) == before
    reasons = ["not cells", "has gates", "remove_parametrizations", "no torch.nn.RNN but a Mine", "has hooks"]
    assert all(reason in report.kept[name] for name, reason in zip(before, reasons, strict=True))
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got NoneType"):
        vfrnn.convert(None)
    with pytest.raises(ValueError, match="W must have values, got a tensor on the meta device"):
        vfrnn.convert(nn.RNN(2, 3, device="meta"), "vfrnn")
    with pytest.raises(ValueError, match="to must be one of 'rnn', 'orthogonal', 'vfrnn', 'torch', got 'lstm'"):
        convert(model, "lstm")
    broken = nn.RNN(3, 4)
    nn.init.constant_(broken.weight_hh_l0, math.nan)
    with pytest.raises(ValueError, match="must be finite"):
        convert(broken, "vfrnn")


def test_frozen_weights_stay_frozen_and_dtypes_stay():
    rnn = nn.RNN(3, 4, dtype=torch.float64)
    rnn.weight_hh_l0.requires_grad_(False)
    ours = convert(rnn, "vfrnn", backend="reference").model
    assert {p.dtype for p in [*ours.parameters(), *ours.buffers()]} == {torch.float64}
    assert {p.device.type for p in [*ours.parameters(), *ours.buffers()]} == {"cpu"}
    frozen = {name for name, p in ours.named_parameters() if not p.requires_grad}
    assert frozen == {"field_l0", "divergence_scale_l0"}
    assert ours.backend == "reference"
    ours(torch.randn(4, 2, 3, dtype=torch.float64))[0].sum().backward()


def test_a_reflection_is_reported():
    W = torch.diag(torch.tensor([3.0, 2.0, -1.0], dtype=torch.float64))
    Q, reflected = nearest_rotation(W)
    assert reflected
    torch.testing.assert_close(Q, torch.eye(3, dtype=torch.float64))
    rnn = nn.RNN(2, 3, dtype=torch.float64)
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(W)
    report = convert(rnn, "orthogonal")
    assert report.replaced[0].reflections == ("l0",)
    assert "a reflection is nearer" in str(report)
    # sqrt((3 - 1)^2 + (2 - 1)^2 + (-1 - 1)^2)
    assert report.replaced[0].distances["l0"] == pytest.approx(3.0)


@pytest.mark.parametrize("n", [1, 2, 3, 17, 40])
@pytest.mark.parametrize(
    "angle",
    [
        lambda k, m: 0.0,
        lambda k, m: math.pi,
        lambda k, m: 1.0,
        lambda k, m: (-1) ** k * 2.9,
        lambda k, m: math.pi * (k + 1) / m,
        lambda k, m: math.pi - 10.0**-k,
        lambda k, m: math.pi - 3e-13 * (k % 5),
        lambda k, m: 1e-9 * k,
        lambda k, m: math.pi if k % 2 else 0.3 * k,
    ],
    ids=["identity", "all pi", "equal", "equal, both senses", "spread", "near pi", "at pi", "tiny", "some pi"],
)
def test_the_logarithm_of_a_rotation(n, angle):
    Q = rotation([angle(k, n // 2) for k in range(n // 2)], n)
    S = rotation_logarithm(Q)
    assert torch.equal(S, -S.mT)
    # 6 square roots amplify the rounding 64 times.
    torch.testing.assert_close(torch.linalg.matrix_exp(S), Q, rtol=0, atol=1e-12)
    assert torch.linalg.matrix_norm(S, 2) < math.pi + 1e-9


@pytest.mark.parametrize("n", [2, 5, 40])
def test_the_logarithm_is_the_principal_one(n):
    S = skew_matrix(n, 3.0)
    torch.testing.assert_close(rotation_logarithm(torch.linalg.matrix_exp(S)), S, rtol=0, atol=1e-11)
