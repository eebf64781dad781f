"""Step rules: parameters, states and step matrices against plain formulas in float64, and that a rule is a value."""

import copy
import dataclasses
import math
import pickle

import pytest
import torch
from torch import nn

from tests.cases import dense_flow, exact_exponential, generator, random_mesh, relative_error
from vfrnn import LatentMesh
from vfrnn.init import INITS
from vfrnn.steps import FieldStep, InputFieldStep, Layer, PlainStep, check_one_time, is_per_step
from vfrnn_kernels.activations import ACTIVATIONS, has_beta

F64 = torch.float64
N, I, B, T = 5, 3, 2, 4
RULES = {
    "plain": PlainStep(),
    "field": FieldStep(dt=0.7, substeps=2),
    "volume": FieldStep(dt=0.7, volume_preserving=True),
    "orthogonal": FieldStep(dt=-0.4, divergence=False),
    "own mesh": FieldStep(dt=0.7, shares_mesh=False),
    "input": InputFieldStep(dt=0.7, substeps=60),
    "input, volume": InputFieldStep(dt=0.7, substeps=60, volume_preserving=True),
}
EVERY = pytest.mark.parametrize("name", RULES)


def make_layer(rule, *, nonlinearity="tanh", bias=True, dtype=F64, device=None):
    """A layer of a bare module, with values in all parameters."""
    module = nn.Module()
    if getattr(rule, "shares_mesh", False):
        module.mesh = LatentMesh(*random_mesh(N, 4, 2, F64)).to(device, dtype)
    layer = Layer(module, "_l0", N, bias, nonlinearity, None)
    names = rule.add_layer(layer, I, device, dtype)
    assert names == [name for name, _ in module.named_parameters(recurse=False)]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, dtype=F64))
    return layer


def case(dtype=F64):
    return torch.randn(T, B, I, dtype=F64).to(dtype), torch.randn(B, N, dtype=F64).to(dtype)


def move(rule, layer, h, x, dt):
    """M h, or the flow of h along the field, one step of the time dt, in dense matrices."""
    if isinstance(rule, PlainStep):
        return h @ layer.read("weight_hh").mT
    field, scale = layer.read("field"), layer.find("divergence_scale")
    if isinstance(rule, InputFieldStep):
        field = field + torch.einsum("cdi,ki->kcd", layer.read("field_input_weight"), x)
    mesh = rule.mesh(layer).dense_tensors()
    options = {"volume_preserving": rule.volume_preserving, "substeps": rule.substeps}
    return dense_flow(h, field, *mesh, dt, 0.0 if scale is None else scale, **options)


def loop(rule, layer, x, h, dt):
    states, biases = [], [layer.find(name) for name in ("bias", "bias_ih", "bias_hh")]
    for x_t in x:
        z = move(rule, layer, h, x_t, dt) + x_t @ layer.read("weight_ih").mT
        h = torch.tanh(z + sum(bias for bias in biases if bias is not None))
        states.append(h)
    return torch.stack(states)


@EVERY
@pytest.mark.parametrize("bias", [True, False])
def test_states_follow_their_equation(name, bias):
    rule = RULES[name]
    layer, (x, h0) = make_layer(rule, bias=bias), case()
    expected = loop(rule, layer, x, h0, getattr(rule, "dt", None))
    torch.testing.assert_close(rule.states(layer, x, h0), expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(rule.states(layer, x, h0, sequence=False), expected[-1], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(rule.stream(layer, x[:1], h0, None), expected[:1], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in RULES if name != "plain"])
@pytest.mark.parametrize("dt", [0.3, torch.tensor(-0.5, dtype=F64)], ids=["number", "tensor"])
def test_a_time_that_is_given_replaces_that_of_the_rule(name, dt):
    rule = RULES[name]
    layer, (x, h0) = make_layer(rule), case()
    expected = loop(rule, layer, x, h0, float(dt))
    torch.testing.assert_close(rule.states(layer, x, h0, dt), expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(rule.stream(layer, x[:1], h0, dt), expected[:1], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["field", "volume", "orthogonal", "own mesh"])
def test_the_matrix_and_times_of_every_step(name):
    rule = RULES[name]
    layer, (x, h0) = make_layer(rule), case()
    M = move(rule, layer, torch.eye(N, dtype=F64), None, rule.dt).mT
    torch.testing.assert_close(rule.matrix(layer), M, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(rule.with_matrix(layer, M)(x, h0), rule.states(layer, x, h0), rtol=1e-11, atol=1e-12)
    times = torch.randn(T, B, dtype=F64)
    samples = []
    for b in range(B):
        h, states = h0[b : b + 1], []
        for t in range(T):
            h = rule.with_matrix(layer, rule.matrix(layer, times[t, b]))(x[t : t + 1, b : b + 1], h)[0]
            states.append(h)
        samples.append(torch.cat(states))
    torch.testing.assert_close(rule.states(layer, x, h0, times), torch.stack(samples, 1), rtol=1e-10, atol=1e-12)


def test_without_divergence_the_matrix_is_the_exponential():
    rule = RULES["orthogonal"]
    layer = make_layer(rule)
    S = generator(*rule.mesh(layer).tensors(), layer.read("field")[None])[0][0]
    assert relative_error(rule.matrix(layer, 1.5), exact_exponential(1.5 * S)) < 1e-12


@pytest.mark.parametrize("exp_dtype", [None, torch.float64])
def test_the_dtype_of_the_exponential(exp_dtype):
    """The matrix of float32 parameters, one rounding away from that of float64, and closer in length than that."""
    layer = make_layer(FieldStep(divergence=False), dtype=torch.float32)
    M = FieldStep(divergence=False, exp_dtype=exp_dtype).matrix(layer)
    assert M.dtype == torch.float32
    lengths = M.double().square().sum(0)
    assert (lengths - 1).abs().max() < (2e-7 if exp_dtype else 2e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@EVERY
def test_parameters_have_their_shapes(name, activation):
    rule = RULES[name]
    layer = make_layer(rule, nonlinearity=activation, bias=False)
    shapes = {key.removesuffix("_l0"): tuple(p.shape) for key, p in layer.module.named_parameters()}
    m, d = (10, 1) if name == "own mesh" else (4, 2)
    expected = {"weight_ih": (N, I)}
    if name == "plain":
        expected["weight_hh"] = (N, N)
    else:
        expected["field"] = (m, d)
    if name.startswith("input"):
        expected["field_input_weight"] = (m, d, I)
    if name not in ("plain", "orthogonal"):
        expected["divergence_scale"] = (1,)
    if has_beta(activation):
        expected["beta"] = (N,)
    assert shapes == expected
    for absent in ("bias_ih", "bias_hh") if name == "plain" else ("bias",):
        assert layer.find(absent) is None
        assert dict(layer.module._parameters)[absent + "_l0"] is None


@EVERY
def test_initial_values(name):
    rule = RULES[name]
    layer = make_layer(rule, nonlinearity="modrelu")
    rule.reset_parameters(layer)
    bound, zero = 1 / math.sqrt(N), ("bias", "field_input_weight", "divergence_scale", "beta")
    for key, parameter in layer.module.named_parameters(recurse=False):
        kind = key.removesuffix("_l0")
        if kind in zero:
            assert not parameter.any()
        else:
            assert parameter.unique().numel() > 1
            assert kind == "field" or parameter.abs().max() <= bound
    if name == "own mesh":
        rule.mesh(layer).b.fill_(7.0)
        rule.reset_parameters(layer)
        assert (rule.mesh(layer).b == 1).all()


def test_a_parametrized_weight_is_not_drawn():
    for rule in (PlainStep(), FieldStep(shares_mesh=False)):
        layer = make_layer(rule)
        nn.utils.parametrize.register_parametrization(layer.module, "weight_ih_l0", nn.Identity())
        before = layer.read("weight_ih").clone()
        rule.reset_parameters(layer)
        assert torch.equal(layer.read("weight_ih"), before)


@EVERY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bits_are_computed_in_float32_and_rounded_once(name, dtype):
    rule = RULES[name]
    layer, (x, h0) = make_layer(rule, dtype=dtype), case(dtype)
    hs = rule.states(layer, x, h0)
    layer.module.float()
    assert torch.equal(hs, rule.states(layer, x.float(), h0.float()).to(dtype))


@EVERY
def test_a_rule_is_a_value(name):
    rule = RULES[name]
    for same in (copy.deepcopy(rule), pickle.loads(pickle.dumps(rule)), dataclasses.replace(rule)):
        assert same == rule
        assert hash(same) == hash(rule)
    assert not any(isinstance(value, (torch.Tensor, nn.Module)) for value in vars(rule).values())
    if name != "plain":
        assert dataclasses.replace(rule, dt=3) != rule
        with pytest.raises(dataclasses.FrozenInstanceError):
            rule.dt = 3.0


def test_a_rule_names_its_arguments():
    assert PlainStep().words("relu") == ["nonlinearity='relu'"]
    assert PlainStep().words("tanh") == []
    assert FieldStep().words("modrelu") == InputFieldStep().words("modrelu") == []
    assert FieldStep(divergence=False, shares_mesh=False).words("tanh") == ["nonlinearity='tanh'"]
    rule = FieldStep(dt=2, substeps=3, init="zero", volume_preserving=True, exp_dtype=torch.float64)
    words = ["dt=2.0", "substeps=3", "init='zero'", "volume_preserving=True", "exp_dtype=torch.float64"]
    assert rule.words("modrelu") == words
    assert InputFieldStep(substeps=1).words("modrelu") == ["substeps=1"]


@pytest.mark.parametrize("kind", [FieldStep, InputFieldStep])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dt": math.inf}, ValueError, "dt must be finite, got inf"),
        ({"dt": True}, TypeError, "dt must be a number, got bool"),
        ({"dt": torch.ones(())}, TypeError, "dt must be a number, got Tensor"),
        ({"substeps": 0}, ValueError, "substeps must be at least 1, got 0"),
        ({"substeps": 1.5}, TypeError, "substeps must be an int, got float"),
        ({"init": "haar"}, ValueError, f"init must be one of {', '.join(map(repr, INITS))}, got 'haar'"),
        ({"volume_preserving": 1}, TypeError, "volume_preserving must be a bool, got int"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(kind, options, error, message):
    with pytest.raises(error, match=message):
        kind(**options)


def test_arguments_of_one_rule():
    with pytest.raises(TypeError, match="substeps must be an int, got NoneType"):
        FieldStep(substeps=None)
    with pytest.raises(ValueError, match=r"exp_dtype must be torch.float32, torch.float64 or None, got torch.float16"):
        FieldStep(exp_dtype=torch.float16)
    with pytest.raises(ValueError, match=r"mesh must have its N and G .* got a complete mesh: pass its dense\(\)"):
        InputFieldStep().shapes(Layer(nn.ModuleDict({"mesh": LatentMesh.complete(N)}), "", N, True, "tanh", None), I)


def test_times_of_every_step_are_told_apart():
    assert is_per_step(torch.ones(3))
    assert not any(is_per_step(dt) for dt in (None, 1.0, torch.ones(())))
    for dt in (None, 1.0, torch.ones(())):
        check_one_time(dt)
    with pytest.raises(ValueError, match=r"dt must be a number or have shape \(\) where .* got \(3,\)"):
        check_one_time(torch.ones(3))
    rule = RULES["field"]
    with pytest.raises(ValueError, match=r"dt must have shape \(\), got \(4,\)"):
        rule.matrix(make_layer(rule), torch.ones(4, dtype=F64))
    with pytest.raises(TypeError, match=r"dt must have the dtype of the parameters, torch.float64, got torch.float32"):
        rule.matrix(make_layer(rule), torch.ones(()))
