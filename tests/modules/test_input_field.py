"""VFRNN(..., field="input"): the module on flow_recurrence."""

import pytest
import torch

from tests import cases
from vfrnn import VFRNN, LatentMesh
from vfrnn_kernels import flow_recurrence

F64 = torch.float64


def network(input_size=3, n=6, *args, mesh=None, **kwargs):
    """With all parameters away from 0, in float64."""
    mesh = LatentMesh.random(n, cells=5, dim=2, dtype=F64) if mesh is None else mesh
    model = VFRNN(input_size, n, *args, mesh=mesh, field="input", dtype=F64, **kwargs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def layer(model, x, h0, suffix, dt):
    names = ("weight_ih", "bias", "field", "field_input_weight")
    tensors = [getattr(model, name + suffix) for name in names]
    mesh, beta, scale = (
        model.mesh.tensors(),
        getattr(model, "beta" + suffix),
        getattr(model, "divergence_scale" + suffix),
    )
    return flow_recurrence(x, *tensors, *mesh, h0, model.nonlinearity, beta, dt, scale, backend="reference")


def test_module_parameters():
    model = VFRNN(3, 6, 2, mesh=LatentMesh.random(6, cells=5, dim=2), field="input")
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes["field_input_weight_l0"] == (5, 2, 3)
    assert shapes["field_input_weight_l1"] == (5, 2, 6)
    assert not model.field_input_weight_l0.any()
    assert model.weight_names[0] == [
        f"{name}_l0" for name in ("weight_ih", "bias", "field", "field_input_weight", "divergence_scale", "beta")
    ]
    assert "field=input" in repr(model)
    assert "field_input_weight_l0" not in dict(VFRNN(3, 6).named_parameters())


def test_at_first_it_is_the_static_model():
    mesh = LatentMesh.random(6, cells=5, dim=2, dtype=F64)
    model, static = (VFRNN(3, 6, mesh=mesh, field=field, dtype=F64) for field in ("input", "static"))
    missing = static.load_state_dict({k: v for k, v in model.state_dict().items() if "input_weight" not in k})
    assert not missing.missing_keys
    x = torch.randn(5, 2, 3, dtype=F64)
    torch.testing.assert_close(model(x)[0], static(x)[0], rtol=1e-11, atol=1e-12)
    model(x)[0].square().sum().backward()
    assert model.field_input_weight_l0.grad.abs().max() > 1e-3  # it learns from the first step


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


def test_module_gradients():
    model = network(
        volume_preserving=True, mesh=LatentMesh.random(6, cells=5, dim=2, learn=("b", "w", "N", "G"), dtype=F64)
    )
    x, dt = torch.randn(3, 2, 3, dtype=F64, requires_grad=True), torch.tensor(0.3, dtype=F64, requires_grad=True)
    names = [name for name, _ in model.named_parameters()]

    def function(x, dt, *parameters):
        return torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x,), {"dt": dt})[0]

    assert torch.autograd.gradcheck(function, (x, dt, *model.parameters()), fast_mode=True)


def test_it_trains():
    torch.manual_seed(1)
    model = VFRNN(1, 8, mesh=LatentMesh.random(8, cells=12, dim=2), field="input")
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_module_in_16_bits(dtype):
    model = network().to(dtype)
    x = torch.randn(4, 2, 3, dtype=dtype)
    output, _ = model(x, dt=torch.tensor(0.5, dtype=dtype))
    assert output.dtype == dtype
    exact, _ = model.float()(x.float(), dt=0.5)
    assert cases.relative_error(output, exact) < 2 * torch.finfo(dtype).eps


def test_module_under_autocast():
    model = network().float()
    x = torch.randn(4, 2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, _ = model(x)
    assert torch.equal(output, model(x)[0])


@pytest.mark.parametrize(
    ("arguments", "changes", "error", "message"),
    [
        ((3, 6), {"mesh": None}, ValueError, "mesh must be given with field='input', such as LatentMesh.random"),
        ((3, 6), {"mesh": LatentMesh.complete(6)}, ValueError, r"got a complete mesh: pass its dense\(\)"),
        ((3, 7), {}, ValueError, "mesh must have n = hidden_size = 7 nodes, got 6"),
        ((3, 6), {"mesh": torch.ones(6)}, TypeError, "mesh must be a LatentMesh, got Tensor"),
        ((0, 6), {}, ValueError, "input_size must be greater than zero"),
        ((None, 6), {}, TypeError, "input_size should be of type int, got: NoneType"),
        ((3, 6), {"field": "output"}, ValueError, "field must be one of 'static', 'input', got 'output'"),
        ((3, 6), {"exp_dtype": F64}, ValueError, "exp_dtype must be None with field='input'"),
        ((3, 6), {"dtype": F64}, TypeError, "mesh.b must have the dtype of the parameters"),
        ((3, 6), {"substeps": 0}, ValueError, "substeps must be at least 1"),
    ],
    ids=str,
)
def test_bad_module_arguments(arguments, changes, error, message):
    with pytest.raises(error, match=message):
        VFRNN(*arguments, **{"mesh": LatentMesh.random(6, cells=5), "field": "input", **changes})


def test_bad_calls_of_the_module():
    model = network()
    x = torch.randn(4, 2, 3, dtype=F64)
    with pytest.raises(ValueError, match="field must be 'static' for a step matrix"):
        model.step_matrix()
    with pytest.raises(ValueError, match=r"dt must be a number or have shape \(\) with field='input', got \(4,\)"):
        model(x, dt=torch.ones(4, dtype=F64))
    with pytest.raises(ValueError, match="dt must be finite"):
        model(x, dt=float("inf"))
    with pytest.raises(RuntimeError, match="must be finite"):
        model(x * float("nan"))
    model.substeps = 1
    with pytest.raises(RuntimeError, match="substeps must be at least"):
        model(x, dt=20.0)
