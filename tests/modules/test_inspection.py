"""inspect: rotations, memory, normality and divergence against closed forms; every layer of any model is found."""

import copy
import math

import pytest
import torch
from torch import nn

import vfrnn
from tests.modules.meshes import MESHES
from vfrnn.inspection.records import QUANTILES, layer_records
from vfrnn.inspection.spectrum import (
    departure_from_normality,
    generator_angles,
    half_lives,
    orthogonal_angles,
    orthogonal_part,
    plane_eigenvalues,
    power_norms,
)

F64 = torch.float64


def rotation(angle: float) -> torch.Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=F64)


def generator_of(*angles: float, axes: int = 0) -> torch.Tensor:
    blocks = [torch.tensor([[0.0, -angle], [angle, 0.0]], dtype=F64) for angle in angles]
    return torch.block_diag(*blocks, *([torch.zeros(1, 1, dtype=F64)] * axes))


def rnn_with(M: torch.Tensor, **options) -> vfrnn.RNN:
    rnn = vfrnn.RNN(2, len(M), dtype=F64, **options)
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(M)
    return rnn


def close(found, expected, tolerance=1e-12):
    torch.testing.assert_close(torch.as_tensor(found, dtype=F64), torch.as_tensor(expected, dtype=F64),
                               rtol=tolerance, atol=tolerance)  # fmt: skip


# The mathematics of a step matrix


def test_a_generator_turns_by_its_frequencies_times_the_time_brought_to_half_a_turn():
    S = generator_of(0.3, -1.2, 0.0, axes=1)
    mix = torch.linalg.qr(torch.randn(7, 7, dtype=F64)).Q
    close(generator_angles(mix @ S @ mix.mT, 1.0), [0.0, 0.3, 1.2], 1e-9)
    close(generator_angles(S, -0.5), [0.0, 0.15, 0.6])
    close(generator_angles(generator_of(4.0), 1.0), [2 * math.pi - 4.0])  # three quarters of a turn and a bit


def test_the_angles_of_an_orthogonal_matrix():
    close(orthogonal_angles(rotation(0.7)), [0.7])
    close(orthogonal_angles(torch.block_diag(rotation(2.0), torch.eye(3, dtype=F64))), [0.0, 2.0])
    half_turns = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=F64))
    close(orthogonal_angles(half_turns), [math.pi])
    assert orthogonal_angles(torch.diag(torch.tensor([1.0, -1.0], dtype=F64))).numel() == 0  # a reflection: two axes


def test_generator_and_orthogonal_angles_agree():
    S = torch.randn(9, 9, dtype=F64)
    S = S - S.mT
    close(generator_angles(S, 0.4), orthogonal_angles(torch.linalg.matrix_exp(0.4 * S)), 1e-9)


def test_the_orthogonal_part_of_a_stretched_rotation():
    stretch = torch.diag(torch.tensor([0.2, 3.0], dtype=F64))
    close(orthogonal_part(rotation(0.9) @ stretch), rotation(0.9))


def test_half_lives_of_a_diagonal_contraction_and_of_a_spiral():
    eigenvalues = torch.linalg.eigvals(torch.block_diag(0.9 * rotation(0.4), torch.diag(torch.tensor([0.5, 0.0]))))
    planes = plane_eigenvalues(eigenvalues.to(torch.complex128))
    assert len(planes) == 3  # a plane and two axes
    assert planes[0].imag > 0
    close(half_lives(planes, 1e-12), [math.log(2) / -math.log(0.9), 1.0, 0.0], 1e-6)
    close(
        half_lives(torch.tensor([1 + 1e-14, 1 - 1e-14, 2.0], dtype=torch.complex128), 1e-12), [math.inf, math.inf, -1.0]
    )


def test_the_departure_of_a_triangular_matrix_is_the_norm_of_what_is_above_its_diagonal():
    M = torch.randn(6, 6, dtype=F64).triu()
    Q = torch.linalg.qr(torch.randn(6, 6, dtype=F64)).Q
    for matrix in (M, Q @ M @ Q.mT):  # the same in every orthonormal basis
        close(departure_from_normality(matrix, torch.linalg.eigvals(matrix)), M.triu(1).norm(), 1e-9)
    normal = Q @ torch.diag(torch.randn(6, dtype=F64)) @ Q.mT
    assert departure_from_normality(normal, torch.linalg.eigvals(normal)) == 0.0


def test_the_norms_of_powers():
    jordan = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=F64)  # its k-th power has k above the diagonal
    lags = (1, 2, 7, 100)
    expected = [torch.linalg.matrix_norm(torch.tensor([[1.0, k], [0.0, 1.0]], dtype=F64), ord=2) for k in lags]
    close(power_norms(jordan, lags), torch.stack(expected), 1e-10)
    close(power_norms(0.5 * rotation(0.1), (1, 3, 20)), [0.5, 0.125, 0.5**20])
    assert power_norms(torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=F64), (1, 2, 5)).tolist() == [1.0, 0.0, 0.0]
    grown = power_norms(torch.tensor([[10.0]], dtype=F64), (100, 1000))
    close(grown[0] / 1e100, 1.0, 1e-9)
    assert grown[1] == math.inf


# Modules


def test_an_orthogonal_network_of_known_angles():
    rnn = vfrnn.OrthogonalRNN(1, 4, dt=0.5)
    S = generator_of(0.6, 2.0).float()
    with torch.no_grad():
        rnn.field_l0.copy_(S[tuple(torch.triu_indices(4, 4, 1))].unsqueeze(1))
    (found,) = vfrnn.inspect(rnn, lags=(1, 50)).layers
    close(found.angles, [0.3, 1.0], 1e-6)
    close(found.singular_values, torch.ones(4), 1e-12)
    close(found.linear_gradient, torch.ones(2), 1e-12)
    assert found.half_lives.isinf().all()
    assert found.departure == 0.0
    assert (found.title, found.dt, found.divergence_scale, found.gradient) == ("OrthogonalRNN", 0.5, None, None)
    assert not found.divergence.any()
    (twice,) = vfrnn.inspect(rnn, dt=1.0).layers
    close(twice.angles, 2 * found.angles)


def test_a_plain_network_of_a_known_matrix():
    M = torch.tensor([[0.5, 3.0], [0.0, 0.5]], dtype=F64)
    (found,) = vfrnn.inspect(rnn_with(M)).layers
    assert torch.equal(found.M, M)
    close(found.departure, 3.0)
    close(found.half_lives, [1.0, 1.0], 1e-6)
    close(found.singular_values, torch.linalg.svdvals(M))
    assert found.dt is found.divergence is found.divergence_scale is found.grid is None
    close(vfrnn.inspect(rnn_with(0.5 * rotation(1.1))).layers[0].angles, [1.1])


@pytest.mark.parametrize("kind", MESHES)
@pytest.mark.parametrize("preserving", [False, True])
def test_a_field_is_stepped_and_diverges_as_the_network_has_it(kind, preserving):
    mesh = MESHES[kind](dtype=F64)
    rnn = vfrnn.VFRNN(2, mesh.n, mesh=mesh, dtype=F64, dt=0.7, substeps=2, volume_preserving=preserving, init="cayley")
    with torch.no_grad():
        rnn.divergence_scale_l0.fill_(0.3)
    (found,) = vfrnn.inspect(rnn).layers
    close(found.M, rnn.step_matrix())
    S, delta = vfrnn.field_generator(mesh, rnn.field_l0)
    delta = 0.3 * (delta - delta.mean() if preserving else delta)
    close(found.divergence, delta)
    close(vfrnn.strang_step(S, found.divergence, 0.7, 2), found.M)
    close(found.angles, orthogonal_angles(torch.linalg.matrix_exp(0.7 * S)), 1e-8)
    assert found.divergence_scale == pytest.approx(0.3)


@pytest.mark.parametrize("substeps", [None, 4])
def test_a_field_that_reads_the_input_is_told_at_input_0(substeps):
    mesh, identity = vfrnn.LatentMesh.random(6, cells=8, dim=2), {"nonlinearity": "identity", "bias": False}
    rnn = vfrnn.InputFieldRNN(2, 6, mesh=mesh, init="cayley", substeps=substeps, **identity)
    with torch.no_grad():
        rnn.field_input_weight_l0.normal_()
        rnn.divergence_scale_l0.fill_(0.0 if substeps is None else 0.5)  # planned substeps are others in float64
    (found,) = vfrnn.inspect(rnn).layers
    _, h = rnn(torch.zeros(1, 6, 2), torch.eye(6).unsqueeze(0))
    close(found.M, h[0].mT, 1e-5)
    assert "input 0" in found.notes[0]


def test_every_layer_and_direction_of_every_network_is_found():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.ModuleDict({"rnn": vfrnn.VFRNN(3, 4, num_layers=2, bidirectional=True)})
            self.head = nn.Sequential(nn.Linear(8, 3), vfrnn.RNN(3, 5, num_layers=3))
            self.cell = vfrnn.OrthogonalRNNCell(3, 6)
            self.other = nn.LSTM(3, 4)

    titles = [layer.title for layer in vfrnn.inspect(Model()).layers]
    encoder = [f"encoder.rnn (VFRNN), layer {k}{words}" for k in (0, 1) for words in ("", ", backwards")]
    assert titles == [*encoder, *(f"head.1 (RNN), layer {k}" for k in range(3)), "cell (OrthogonalRNNCell)"]


def test_the_model_is_left_as_it_is():
    model = nn.Sequential(vfrnn.VFRNN(3, 4, num_layers=2, dropout=0.5, backend="cpu", exp_dtype=F64))
    model[0].train(True)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    vfrnn.inspect(model, torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0)))
    assert model.training
    assert model[0].training
    assert model[0].backend == "cpu"
    assert model[0].exp_dtype == F64
    assert not model[0]._forward_pre_hooks
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in model.parameters())


def test_parametrized_and_16_bit_weights():
    rnn = vfrnn.RNN(3, 4)
    vfrnn.parametrizations.orthogonal(rnn, "weight_hh_l0")
    (found,) = vfrnn.inspect(rnn).layers
    close(found.singular_values, torch.ones(4), 1e-5)  # its base is an orthogonal matrix rounded to float32
    (half,) = vfrnn.inspect(vfrnn.VFRNN(3, 4).bfloat16()).layers
    close(half.singular_values, torch.ones(4), 1e-10)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((nn.LSTM(2, 3),), {}, ValueError, "module must be or contain an RNN.* got a LSTM without one"),
        (("rnn",), {}, TypeError, "module must be a torch.nn.Module, got str"),
        ((vfrnn.RNN(2, 3),), {"lags": [0]}, ValueError, "lags must be at least 1, got 0"),
        ((vfrnn.RNN(2, 3),), {"lags": []}, ValueError, "lags must name at least one"),
        ((vfrnn.RNN(2, 3),), {"lags": [1.5]}, TypeError, "lags must be ints, got float"),
        ((vfrnn.RNN(2, 3),), {"lags": 3}, TypeError, "lags must be a sequence of ints, got int"),
        ((vfrnn.RNN(2, 3), "x"), {}, TypeError, "RNN: input must be a tensor or a PackedSequence, got str"),
        ((vfrnn.RNN(2, 3),), {"dt": 10**400}, ValueError, "dt must be at most .* got an int of 1329 bits"),
        ((vfrnn.RNN(2, 3),), {"dt": "1"}, TypeError, "dt must be a number, got str"),
        ((vfrnn.RNN(2, 3),), {"dt": math.nan}, ValueError, "dt must be finite, got nan"),
        ((vfrnn.RNN(2, 3), torch.zeros(4, 1, 2)), {"lags": [5]}, ValueError, "lags must be at most 4, .* got 5"),
        ((vfrnn.RNN(2, 3, device="meta"),), {}, ValueError, "got 'weight_ih_l0' on the meta device"),
    ],
)
def test_what_is_wrong_is_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        vfrnn.inspect(*arguments, **options)


def test_weights_that_are_not_finite_are_named():
    rnn = vfrnn.VFRNN(2, 3)
    with torch.no_grad():
        rnn.field_l0[0] = math.nan
    with pytest.raises(ValueError, match="got 'field_l0' with NaN or infinity"):
        vfrnn.inspect(rnn)
    with pytest.raises(ValueError, match="got 'field_l0' with NaN or infinity"):
        vfrnn.inspect(rnn, torch.zeros(4, 1, 2))


def test_a_step_that_overflows_is_named():
    rnn = vfrnn.VFRNN(2, 3)
    with torch.no_grad():
        rnn.divergence_scale_l0.fill_(1e6)
    with pytest.raises(ValueError, match=r"got that of '_l0': .* its exponential overflows"):
        vfrnn.inspect(rnn)


def test_records_hold_the_quantiles_of_the_angles():
    model = nn.Sequential(vfrnn.VFRNN(2, 8, bidirectional=True), nn.Linear(16, 1), vfrnn.RNN(1, 5))
    with torch.no_grad():
        model[0].divergence_scale_l0.fill_(2.0)
    records, found = layer_records(model), vfrnn.inspect(model).layers
    assert [record.name for record in records] == [layer.title for layer in found]
    for record, layer in zip(records, found, strict=True):
        close(record.angles, layer.angles.quantile(torch.tensor(QUANTILES, dtype=F64)))
        assert record.divergence_scale == layer.divergence_scale
    assert records[0].divergence == pytest.approx(found[0].divergence.square().mean().sqrt().item())
    assert [record.divergence for record in records[1:]] == [0.0, None]
    assert layer_records(nn.LSTM(2, 3)) == []


@pytest.mark.parametrize(
    ("x", "message"),
    [((), "missing a required argument: 'input'"), ((torch.ones(1, 2), None, 1.0, 3), "too many positional arguments")],
)
def test_an_example_of_other_arguments_is_named(x, message):
    with pytest.raises(TypeError, match=f"^x must be what a OrthogonalRNNCell is called with, but {message}"):
        vfrnn.inspect(vfrnn.OrthogonalRNNCell(2, 3), x=x)
