"""Checkpoints of orthogonal weights that others wrote compute what they did there, or are refused with a sentence."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal as torch_orthogonal

import vfrnn
from vfrnn.parametrizations import orthogonal


def trained(layer):
    """The layer after a step that moves everything that has a gradient."""
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.3, weight_decay=0)
    (layer.weight * torch.randn_like(layer.weight)).sum().backward()
    optimizer.step()
    return layer


def linear(shape):
    return nn.Linear(shape[1], shape[0], bias=False, dtype=torch.float64)


@pytest.mark.parametrize("use_trivialization", [True, False])
@pytest.mark.parametrize("shape", [(9, 4), (2, 5), (3, 1)], ids=str)
def test_torchs_default_for_a_frame_is_refused_until_it_is_named(shape, use_trivialization):
    state = trained(torch_orthogonal(linear(shape), use_trivialization=use_trivialization)).state_dict()
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=r'does not say by which map: .* orthogonal_map="householder"'):
            orthogonal(linear(shape), use_trivialization=use_trivialization).load_state_dict(state, strict=strict)
    theirs = torch_orthogonal(linear(shape), use_trivialization=use_trivialization)
    theirs.load_state_dict(state)
    ours = orthogonal(linear(shape), orthogonal_map="householder", use_trivialization=use_trivialization)
    ours.load_state_dict(state)
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 2), (2, 6), (3, 3)], ids=str)
@pytest.mark.parametrize("orthogonal_map", ["matrix_exp", "cayley", "householder"])
def test_a_map_that_is_named_is_read(shape, orthogonal_map):
    theirs = trained(torch_orthogonal(linear(shape), orthogonal_map=orthogonal_map))
    ours = orthogonal(linear(shape), orthogonal_map=orthogonal_map)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 2), (2, 6), (4, 4)], ids=str)
@pytest.mark.parametrize("use_trivialization", [True, False])
def test_our_own_are_read(shape, use_trivialization):
    layer = trained(orthogonal(linear(shape), use_trivialization=use_trivialization))
    other = orthogonal(linear(shape), use_trivialization=use_trivialization)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.weight, layer.weight)


def test_our_own_are_known_by_their_version():
    def identity():
        layer = linear((5, 3))
        nn.init.eye_(layer.weight)
        return orthogonal(layer, use_trivialization=False)

    state = trained(identity()).state_dict()
    layer = identity()
    layer.load_state_dict(state)
    with pytest.raises(RuntimeError, match="does not say by which map"):  # without metadata it could be torch's
        layer.load_state_dict(dict(state))
    named = orthogonal(linear((5, 3)), orthogonal_map="matrix_exp", use_trivialization=False)
    named.load_state_dict(dict(state))
    assert torch.equal(named.weight, layer.weight)


@pytest.mark.parametrize(
    ("shape", "theirs"), [((5, 3), "cayley"), ((3, 5), "matrix_exp"), ((4, 4), "householder")], ids=str
)
def test_torchs_without_a_base_are_refused_until_they_are_named(shape, theirs):
    state = trained(torch_orthogonal(linear(shape), orthogonal_map=theirs, use_trivialization=False)).state_dict()
    with pytest.raises(RuntimeError, match="does not say by which map"):
        orthogonal(linear(shape), use_trivialization=False).load_state_dict(state)
    orthogonal(linear(shape), orthogonal_map=theirs, use_trivialization=False).load_state_dict(state)


@pytest.mark.parametrize("use_trivialization", [True, False])
def test_our_own_of_another_map_are_refused(use_trivialization):
    maps = ("matrix_exp", "cayley", "householder")
    for written, read in ((one, other) for one in maps for other in maps if one != other):
        state = orthogonal(linear((4, 4)), "weight", written, use_trivialization=use_trivialization).state_dict()
        with pytest.raises(RuntimeError, match=f'was made by orthogonal_map="{written}": name it'):
            orthogonal(linear((4, 4)), "weight", read, use_trivialization=use_trivialization).load_state_dict(state)


def test_our_exponential_is_no_product_of_reflections():
    state = trained(orthogonal(linear((4, 4)))).state_dict()
    with pytest.raises(RuntimeError, match=r"must have signs on its diagonal .* got 0"):  # without metadata
        orthogonal(linear((4, 4)), orthogonal_map="householder").load_state_dict(dict(state))


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7)], ids=str)
@pytest.mark.parametrize("triv", ["expm", "cayley"])
def test_geotorchs_are_read(shape, triv):
    geotorch = pytest.importorskip("geotorch", reason="geotorch is not installed")
    theirs = linear(shape)
    nn.init.orthogonal_(theirs.weight)
    if shape[0] == shape[1] and torch.linalg.det(theirs.weight) < 0:
        theirs.weight.data[0] *= -1
    kind = geotorch.SO if shape[0] == shape[1] else geotorch.Stiefel
    parametrize.register_parametrization(theirs, "weight", kind(theirs.weight.shape, triv=triv).double())
    theirs.weight = theirs.weight  # the base in float64
    state = trained(theirs).state_dict()
    ours = orthogonal(linear(shape), orthogonal_map={"expm": None, "cayley": "cayley"}[triv])
    ours.load_state_dict(state)
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=0, atol=1e-6)


def test_what_geotorch_keeps_elsewhere_is_refused():
    geotorch = pytest.importorskip("geotorch", reason="geotorch is not installed")
    theirs = nn.Linear(3, 8)
    parametrize.register_parametrization(theirs, "weight", geotorch.AlmostOrthogonal(theirs.weight.shape, lam=0.5))
    with pytest.raises(RuntimeError, match="belongs to a product of several matrices, as geotorch keeps"):
        orthogonal(nn.Linear(3, 8)).load_state_dict(theirs.state_dict())
    theirs = nn.Linear(6, 6)
    nn.init.eye_(theirs.weight)
    parametrize.register_parametrization(theirs, "weight", geotorch.SO(theirs.weight.shape, lower=False))
    state, ours = trained(theirs).state_dict(), orthogonal(nn.Linear(6, 6))
    with pytest.raises(RuntimeError, match=r"numbers above the diagonal, .* load -original.mT in its place"):
        ours.load_state_dict(state)
    state["parametrizations.weight.original"] = -state["parametrizations.weight.original"].mT
    ours.load_state_dict(state)
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=0, atol=2e-6)


@pytest.mark.parametrize("names", [("log_recurrent_kernel", "recurrent_kernel"), ("recurrent_kernel.A",)])
def test_exprnns_are_refused_by_the_networks(names):
    model = nn.Sequential(vfrnn.OrthogonalRNN(4, 5))
    with pytest.raises(
        RuntimeError, match=r'parameters of expRNN\'s code, .* "From expRNN" in docs/how-to/migration.md'
    ):
        model.load_state_dict({f"0.{name}": torch.zeros(5, 5) for name in names}, strict=False)
