"""What networks and cells share: sizes, names of parameters, arguments of the rule, and the checks of both."""

import copy

import numpy as np
import pytest
import torch

import vfrnn
from tests.cases import DTYPES
from vfrnn import LatentMesh
from vfrnn.layers import Recurrent
from vfrnn.steps import FieldStep, InputFieldStep, PlainStep
from vfrnn_kernels.activations import ACTIVATIONS, has_beta

NETWORKS = {
    "RNN": PlainStep(),
    "VFRNN": FieldStep(shares_mesh=False),
    "OrthogonalRNN": FieldStep(shares_mesh=False, divergence=False),
    "InputFieldRNN": InputFieldStep(),
}
RULES = {f"{name}{kind}": rule for name, rule in NETWORKS.items() for kind in ("", "Cell")}
EVERY = pytest.mark.parametrize("name", RULES)


def module(name, hidden_size=5, **options):
    if "InputField" in name:
        options = {"mesh": LatentMesh.random(5, 4, dtype=options.get("dtype")), **options}
    return getattr(vfrnn, name)(3, hidden_size, **options)


@EVERY
def test_a_module_has_its_rule(name):
    one = module(name)
    assert isinstance(one, Recurrent)
    assert one.rule == RULES[name]
    assert "rule" not in dict(one.named_modules())
    assert one.suffixes == ([""] if "Cell" in name else ["_l0"])
    assert one.weight_names == [[key for key, _ in one.named_parameters(recurse=False)]]


@EVERY
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(name, activation):
    one = module(name, nonlinearity=activation)
    assert ("beta" + one.suffixes[0] in one.state_dict()) == has_beta(activation)
    result = one(torch.randn(2, 3))
    assert all(value.isfinite().all() for value in (result if isinstance(result, tuple) else [result]))
    default = "tanh" if isinstance(one.rule, PlainStep) else "modrelu"
    assert module(name).nonlinearity == one.rule.default_nonlinearity == default
    assert (f"nonlinearity={activation!r}" in repr(one)) == (activation != default)


OPTIONS = {
    "RNN": {"num_layers": 2, "nonlinearity": "relu", "batch_first": True, "dropout": 0.5, "learn_h0": True},
    "VFRNN": {"substeps": 2, "volume_preserving": True, "bidirectional": True, "mesh": LatentMesh.grid(5)},
    "OrthogonalRNN": {"init": "zero", "exp_dtype": torch.float64, "mesh": LatentMesh.random(5, 7, 2, learn=("w",))},
    "InputFieldRNN": {"dt": -0.5, "recurrent_dropout": 0.25, "zoneout": 0.5},
    "RNNCell": {"nonlinearity": "leaky_relu", "bias": False, "backend": "reference"},
    "VFRNNCell": {"mesh": LatentMesh.complete(5, learn=("b",))},
    "OrthogonalRNNCell": {"dt": 1e-30},
    "InputFieldRNNCell": {"substeps": 4},
}


@EVERY
def test_a_repr_can_be_pasted(name):
    for options in ({}, OPTIONS[name]):
        one = module(name, **options)
        for shown in (one, copy.deepcopy(one)):
            again = eval(repr(shown), {**vars(vfrnn), "torch": torch})
            assert repr(again) == repr(one)
            assert again.rule == one.rule
            assert {n: p.shape for n, p in again.state_dict().items()} == {
                n: p.shape for n, p in one.state_dict().items()
            }
    assert repr(torch.nn.Sequential(one)) == f"Sequential(\n  (0): {one!r}\n)"


@EVERY
def test_bad_arguments_are_named(name):
    names = [repr(activation) for activation in ACTIVATIONS]
    with pytest.raises(ValueError, match="Unknown nonlinearity 'gelu'") as caught:
        module(name, nonlinearity="gelu")
    assert str(caught.value).endswith(f"Select from {', '.join(names[:-1])} or {names[-1]}.")
    with pytest.raises(ValueError, match="hidden_size must be greater than zero"):
        module(name, 0)
    for size in (2.0, True):
        with pytest.raises(TypeError, match=f"hidden_size should be of type int, got: {type(size).__name__}"):
            module(name, size)
    with pytest.raises(ValueError, match=r"backend must be one of .* got 'fast'"):
        module(name, backend="fast")
    if not isinstance(RULES[name], PlainStep):
        with pytest.raises(ValueError, match="mesh must have n = hidden_size = 5 nodes, got 4"):
            module(name, mesh=LatentMesh.random(4, 3))
        with pytest.raises(TypeError, match="mesh must be a LatentMesh, got str"):
            module(name, mesh="complete")


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    ("argument", "value", "error", "message"),
    [
        ("dtype", torch.complex64, TypeError, "dtype must be None, torch.float32, .* got torch.complex64"),
        ("dtype", torch.int64, TypeError, "dtype must be None, torch.float32, .* got torch.int64"),
        ("hidden_size", 2**64, ValueError, "hidden_size must be at most 2147483647, got 18446744073709551616"),
        ("nonlinearity", np.ones(2), ValueError, "Unknown nonlinearity"),
        (
            "num_layers",
            2**32,
            (TypeError, ValueError),
            "num_layers must be at most 10000, got 4294967296|unexpected keyword argument 'num_layers'",
        ),
        ("zoneout", 10**400, ValueError, "zoneout must be a probability"),
    ],
)
def test_what_no_parameter_can_have_is_named(name, argument, value, error, message):
    with pytest.raises(error, match=message):
        module(name, **{argument: value})


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if not isinstance(rule, PlainStep)])
def test_arguments_of_the_rule_can_be_set(name):
    one = module(name)
    other, shallow = copy.deepcopy(one), copy.copy(one)
    values = [("dt", 0.5), ("init", "zero")]
    values += [] if "Orthogonal" in name else [("substeps", 3), ("volume_preserving", True)]
    for argument, value in values:
        setattr(one, argument, value)
        assert getattr(one, argument) == getattr(one.rule, argument) == value
    assert other.dt == shallow.dt == 1.0
    with pytest.raises(ValueError, match="dt must be finite, got nan"):
        one.dt = float("nan")
    if "Orthogonal" not in name:
        with pytest.raises(TypeError, match="substeps must be an int, got str"):
            one.substeps = "many"
    assert dict(values).items() <= {argument: getattr(one, argument) for argument, _ in values}.items()
    x = torch.randn(2, 3)
    fresh = module(name, dt=0.5, mesh=copy.deepcopy(one.mesh)) if "InputField" in name else module(name, dt=0.5)
    fresh.load_state_dict(other.state_dict())
    other.dt = 0.5
    first, second = (m(x) for m in (fresh, other))
    assert all(map(torch.equal, first, second))


@EVERY
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_dtype_is_that_of_the_parameters(name, dtype):
    one = module(name, dtype=dtype)
    wrong = torch.float64 if dtype == torch.float32 else torch.float32
    with pytest.raises(ValueError, match=rf"{name} input dtype \({wrong}\) does not match weight dtype \({dtype}\)"):
        one(torch.zeros(2, 3, dtype=wrong))
    for key in one.weight_names[0]:
        torch.nn.utils.parametrize.register_parametrization(one, key, torch.nn.Identity())
    assert one._dtype() == dtype  # also where no parameter is the module's own


@EVERY
def test_replicas_for_data_parallel_compute_the_same(name):
    """torch.nn.DataParallel copies a module's attributes and gives the copy tensors in place of parameters."""
    mesh = LatentMesh.random(5, 4, learn=("b", "G"))
    one, x = module(name, **({} if RULES[name] == PlainStep() else {"mesh": mesh})), torch.randn(2, 3)
    replica = one._replicate_for_data_parallel()
    for key, child in one.named_children():
        replica._modules[key] = child._replicate_for_data_parallel()
    for copied, original in zip(replica.modules(), one.modules(), strict=True):
        for key, parameter in original.named_parameters(recurse=False):
            setattr(copied, key, parameter.detach().clone())
    assert not list(replica.parameters())
    assert all(map(torch.equal, one(x), replica(x)))
    if name in ("VFRNN", "OrthogonalRNN"):
        assert all(map(torch.equal, one(x, dt=torch.ones(2)), replica(x, dt=torch.ones(2))))


def test_a_wrong_number_of_layers_or_bias_is_named():
    for wrong in ("2", 1.5, True, None):
        with pytest.raises(TypeError, match=r"^num_layers should be of type int, got: "):
            vfrnn.RNN(3, 6, num_layers=wrong)
    with pytest.raises(TypeError, match=r"^bias should be of type bool, got: str"):
        vfrnn.RNN(3, 6, bias="False")
    with pytest.raises(TypeError, match=r"^return_sequence must be a bool, got str"):
        vfrnn.VFRNN(3, 6)(torch.zeros(2, 1, 3), return_sequence="no")


@pytest.mark.parametrize("make", [vfrnn.OrthogonalRNN, vfrnn.OrthogonalRNNCell])
def test_an_orthogonal_step_has_no_arguments_of_a_divergence(make):
    model = make(3, 6)
    assert not hasattr(model, "substeps")
    assert not hasattr(model, "volume_preserving")
    assert (model.dt, model.init) == (1.0, "henaff")
