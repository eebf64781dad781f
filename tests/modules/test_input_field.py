"""InputFieldRNN and InputFieldRNNCell: networks on flow_recurrence."""

import copy
import pickle

import pytest
import torch

from tests.cases import dense_flow, relative_error
from vfrnn import VFRNN, InputFieldRNN, InputFieldRNNCell, LatentMesh, OrthogonalRNN
from vfrnn_kernels import flow_recurrence

F64 = torch.float64
KINDS = (InputFieldRNN, InputFieldRNNCell)
NAMES = ("weight_ih", "bias", "field", "field_input_weight", "divergence_scale", "beta")


def network(input_size=3, n=6, *args, kind=InputFieldRNN, mesh=None, **kwargs):
    """With all parameters away from 0, in float64."""
    mesh = LatentMesh.random(n, cells=5, dim=2, dtype=F64) if mesh is None else mesh
    model = kind(input_size, n, *args, mesh=mesh, dtype=F64, **kwargs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def layer(model, x, h0, suffix, dt):
    U, c, v, V, scale, beta = (getattr(model, name + suffix) for name in NAMES)
    mesh = model.mesh.tensors()
    return flow_recurrence(x, U, c, v, V, *mesh, h0, model.nonlinearity, beta, dt, scale, backend="reference")


def modrelu(z, beta):
    return z.sign() * torch.relu(z.abs() + beta)


def test_parameters():
    model = InputFieldRNN(3, 6, 2, mesh=LatentMesh.random(6, cells=5, dim=2))
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes["field_input_weight_l0"] == (5, 2, 3)
    assert shapes["field_input_weight_l1"] == (5, 2, 6)
    assert not model.field_input_weight_l0.any()
    assert model.weight_names[0] == [f"{name}_l0" for name in NAMES]
    cell = InputFieldRNNCell(3, 6, mesh=model.mesh)
    assert cell.weight_names == [list(NAMES)]
    assert "field_input_weight_l0" not in dict(VFRNN(3, 6).named_parameters())


def test_repr():
    mesh = LatentMesh.random(6, cells=5)
    given = "mesh=LatentMesh.random(6, cells=5, dim=1))"
    assert repr(InputFieldRNN(3, 6, mesh=mesh)) == f"InputFieldRNN(3, 6, {given}"
    text = repr(InputFieldRNN(3, 6, 2, "tanh", mesh=mesh, dt=0.5, substeps=3, init="zero", volume_preserving=True))
    chosen = "nonlinearity='tanh', dt=0.5, substeps=3, init='zero', volume_preserving=True"
    assert text == f"InputFieldRNN(3, 6, num_layers=2, {chosen}, {given}"
    assert repr(InputFieldRNNCell(3, 6, False, mesh=mesh, substeps=1)) == (
        f"InputFieldRNNCell(3, 6, bias=False, substeps=1, {given}"
    )


@pytest.mark.parametrize("static", [VFRNN, OrthogonalRNN])
def test_at_first_it_is_the_static_model(static):
    mesh = LatentMesh.random(6, cells=5, dim=2, dtype=F64)
    model, static = (kind(3, 6, mesh=mesh, dtype=F64) for kind in (InputFieldRNN, static))
    known = static.state_dict()
    missing = static.load_state_dict({key: value for key, value in model.state_dict().items() if key in known})
    assert not missing.missing_keys
    x = torch.randn(5, 2, 3, dtype=F64)
    torch.testing.assert_close(model(x)[0], static(x)[0], rtol=1e-11, atol=1e-12)
    model(x)[0].square().sum().backward()
    assert model.field_input_weight_l0.grad.abs().max() > 1e-3  # it learns from the first step


@pytest.mark.parametrize("volume_preserving", [False, True])
def test_the_cell_follows_its_equation(volume_preserving):
    cell = network(kind=InputFieldRNNCell, volume_preserving=volume_preserving, substeps=40)
    x, h = torch.randn(2, 3, dtype=F64), torch.randn(2, 6, dtype=F64)
    fields = cell.field + torch.einsum("cdi,ki->kcd", cell.field_input_weight, x)
    moved = dense_flow(
        h, fields, *cell.mesh.tensors(), 0.7, cell.divergence_scale, volume_preserving=volume_preserving, substeps=40
    )
    expected = modrelu(moved + x @ cell.weight_ih.mT + cell.bias, cell.beta)
    torch.testing.assert_close(cell(x, h, dt=0.7), expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(cell(x[1], h[1], dt=torch.tensor(0.7, dtype=F64)), expected[1], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
def test_the_cell_steps_like_its_network(bias, backend):
    # substeps are given: planned ones depend on the inputs of the whole sequence
    model = network(bias=bias, substeps=40, backend=backend)
    cell = InputFieldRNNCell(3, 6, bias, mesh=model.mesh, dtype=F64, substeps=40, backend=backend)
    cell.load_state_dict({name.replace("_l0", ""): value for name, value in model.state_dict().items()})
    x, h = torch.randn(4, 2, 3, dtype=F64), torch.randn(2, 6, dtype=F64)
    output, _ = model(x, h[None])
    for x_t, expected in zip(x, output, strict=True):
        h = cell(x_t, h)
        torch.testing.assert_close(h, expected)
    torch.testing.assert_close(cell(x[0, 0]), model(x[:1, 0])[0][0])
    assert cell(x[0, :0]).shape == (0, 6)


def test_layers_and_directions():
    model = network(3, 6, 2, bidirectional=True, batch_first=True)
    x, hx = torch.randn(2, 5, 3, dtype=F64), torch.randn(4, 2, 6, dtype=F64)
    output, h_n = model(x, hx, dt=0.7)
    y, last = x.transpose(0, 1), []
    for k in range(2):
        forward = layer(model, y, hx[2 * k], f"_l{k}", 0.7)
        backward = layer(model, y.flip(0), hx[2 * k + 1], f"_l{k}_reverse", 0.7)
        last += [forward[-1], backward[-1]]
        y = torch.cat([forward, backward.flip(0)], -1)
    torch.testing.assert_close(output, y.transpose(0, 1), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(h_n, torch.stack(last), rtol=1e-10, atol=1e-12)


def test_packed_sequences():
    # substeps are given: planned ones may differ from sequence to sequence
    model = network(bidirectional=True, substeps=200)
    lengths = [3, 5, 1]
    sequences = [torch.randn(length, 3, dtype=F64) for length in lengths]
    packed = torch.nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False)
    output, h_n = model(packed)
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(output)
    for k, x in enumerate(sequences):
        alone, last = model(x)
        torch.testing.assert_close(padded[: lengths[k], k], alone, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(h_n[:, k], last, rtol=1e-11, atol=1e-12)


def test_a_stream_takes_dt_at_every_step():
    model = network(substeps=60)
    x, state, h = torch.randn(3, 2, 3, dtype=F64), None, torch.zeros(1, 2, 6, dtype=F64)
    for x_t, dt in zip(x, (0.5, torch.tensor(-0.3, dtype=F64), None), strict=True):
        output, state = model.step(x_t, state, dt=dt)
        expected, h = model(x_t[None], h, dt=dt)
        torch.testing.assert_close(output, expected[0], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(state, h, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    mesh = LatentMesh.random(6, cells=5, dim=2, learn=("b", "w", "N", "G"), dtype=F64)
    model = network(kind=kind, volume_preserving=True, mesh=mesh)
    batch = (3, 2) if kind is InputFieldRNN else (2,)
    x, dt = torch.randn(*batch, 3, dtype=F64, requires_grad=True), torch.tensor(0.3, dtype=F64, requires_grad=True)
    names = [name for name, _ in model.named_parameters()]

    def function(x, dt, *parameters):
        result = torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x,), {"dt": dt})
        return result[0] if kind is InputFieldRNN else result

    assert torch.autograd.gradcheck(function, (x, dt, *model.parameters()), fast_mode=True)


def test_compile_and_export():
    model, x = network(), torch.randn(4, 2, 3, dtype=F64)
    expected = model(x)[0]
    assert torch.equal(torch.compile(model, fullgraph=True, backend="aot_eager")(x)[0], expected)
    assert torch.equal(torch.export.export(model, (x,)).module()(x)[0], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_equal_and_apart(kind):
    model, x = network(kind=kind), torch.randn(2, 3, dtype=F64)
    for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        for mine, other in zip(model(x), same(x), strict=True):
            assert torch.equal(mine, other)
        same.dt = 0.5
        assert model.dt == 1.0
        assert not {p.data_ptr() for p in same.parameters()} & {p.data_ptr() for p in model.parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_meta_then_real_parameters(kind):
    def make(**options):
        return kind(3, 6, mesh=LatentMesh.random(6, cells=5, dim=2, **options), **options)

    expected = make()
    late = make(device="meta")
    assert all(value.is_meta for value in late.state_dict().values())
    late.to_empty(device="cpu")
    # A mesh that was given keeps its values: to_empty lost them.
    late.mesh.load_state_dict(expected.mesh.state_dict())
    for model in (expected, late):
        torch.manual_seed(5)
        model.reset_parameters()
    state = expected.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in late.state_dict().items())


def test_it_trains():
    torch.manual_seed(1)
    model = InputFieldRNN(1, 8, mesh=LatentMesh.random(8, cells=12, dim=2))
    readout = torch.nn.Linear(8, 1)
    optimizer = torch.optim.Adam([*model.parameters(), *readout.parameters()], lr=0.02)
    x = torch.randint(0, 2, (6, 32, 1)).float()
    target, losses = x.sum(0) % 2, []  # parity: the input must act on the state, not add to it
    for _ in range(60):
        optimizer.zero_grad()
        loss = (readout(model(x)[1][0]) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_in_16_bits(kind, dtype):
    model = network(kind=kind).to(dtype)
    x = torch.randn(4, 3, dtype=dtype)
    output = model(x, dt=torch.tensor(0.5, dtype=dtype))
    exact = model.float()(x.float(), dt=0.5)
    for mine, expected in zip(output, exact, strict=True):
        assert mine.dtype == dtype
        assert relative_error(mine, expected) < 2 * torch.finfo(dtype).eps


def test_under_autocast():
    model = network().float()
    x = torch.randn(4, 2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, _ = model(x)
    assert torch.equal(output, model(x)[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("arguments", "changes", "error", "message"),
    [
        ((3, 6), {"mesh": None}, TypeError, "mesh must be a LatentMesh, such as LatentMesh.random.* got None"),
        ((3, 6), {"mesh": LatentMesh.complete(6)}, ValueError, r"got a complete mesh: pass its dense\(\)"),
        ((3, 7), {}, ValueError, "mesh must have n = hidden_size = 7 nodes, got 6"),
        ((3, 6), {"mesh": torch.ones(6)}, TypeError, "mesh must be a LatentMesh, got Tensor"),
        ((0, 6), {}, ValueError, "input_size must be greater than zero"),
        ((None, 6), {}, TypeError, "input_size should be of type int, got: NoneType"),
        ((3, 6), {"exp_dtype": F64}, TypeError, "exp_dtype"),
        ((3, 6), {"field": "input"}, TypeError, "field"),
        ((3, 6), {"dtype": F64}, TypeError, "mesh.b must have the dtype of the parameters"),
        ((3, 6), {"substeps": 0}, ValueError, "substeps must be at least 1"),
        ((3, 6), {"dt": float("nan")}, ValueError, "dt must be finite, got nan"),
    ],
    ids=str,
)
def test_bad_arguments(kind, arguments, changes, error, message):
    with pytest.raises(error, match=message):
        kind(*arguments, **{"mesh": LatentMesh.random(6, cells=5), **changes})


def test_the_mesh_is_required():
    for kind in KINDS:
        with pytest.raises(TypeError, match="mesh"):
            kind(3, 6)
    with pytest.raises(TypeError, match="field"):
        VFRNN(3, 6, field="input")


def test_every_step_takes_the_same_time():
    model, cell, x = network(), network(kind=InputFieldRNNCell), torch.randn(4, 2, 3, dtype=F64)
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(4, dtype=F64)] * 2)
    sentence = (
        r"dt must be a number or have shape \(\) where the field reads the input and all steps take the same time"
    )
    calls = {
        (4,): lambda: model(x, dt=torch.ones(4, dtype=F64)),
        (4, 2): lambda: model(x, dt=torch.ones(4, 2, dtype=F64)),
        (8,): lambda: model(x, dt=packed),
        (2,): lambda: model.step(x[0], dt=torch.ones(2, dtype=F64)),
        (1,): lambda: cell(x[0], dt=torch.ones(1, dtype=F64)),
    }
    for shape, call in calls.items():
        with pytest.raises(ValueError, match=sentence) as caught:
            call()
        assert str(caught.value).endswith(f"got {shape}")


def test_bad_calls():
    model = network()
    x = torch.randn(4, 2, 3, dtype=F64)
    assert not hasattr(model, "step_matrix")  # every step has its own field
    assert not hasattr(InputFieldRNNCell, "step_matrix")
    with pytest.raises(ValueError, match="dt must be finite"):
        model(x, dt=float("inf"))
    with pytest.raises(TypeError, match=r"dt must have the dtype of the parameters, torch.float64, got torch.float32"):
        model(x, dt=torch.tensor(0.5))
    with pytest.raises(RuntimeError, match="must be finite"):
        model(x * float("nan"))
    with pytest.raises(RuntimeError, match="needs bidirectional=False"):
        network(bidirectional=True).step(x[0])
    model.substeps = 1
    with pytest.raises(RuntimeError, match="substeps must be at least"):
        model(x, dt=20.0)
