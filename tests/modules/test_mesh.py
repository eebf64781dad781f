"""LatentMesh: its conditions, its constructors, what is learned, and its state."""

import copy
import itertools
import math
import pickle

import pytest
import torch

import vfrnn
from tests.modules.meshes import MESHES
from vfrnn import LatentMesh


def assert_identities(mesh, tolerance=1e-12):  # sums of a few numbers of order 1 to 10 in float64
    b, w, N, G = mesh.dense_tensors()
    assert (b > 0).all()
    assert (w > 0).all()
    assert (N.sum(-1) - 1).abs().max() < tolerance
    assert G.sum(-1).abs().max() < tolerance


def test_rows_sum_to_one_and_constants_have_no_gradient(mesh):
    assert_identities(mesh)


@pytest.mark.parametrize("name", MESHES)
def test_dense_is_the_same_mesh(name):
    mesh = MESHES[name](dtype=torch.float64)
    v = torch.randn(mesh.m, mesh.d, dtype=torch.float64)
    for one, other in zip(vfrnn.field_generator(mesh, v), vfrnn.field_generator(mesh.dense(), v), strict=True):
        torch.testing.assert_close(one, other)


def test_from_all_edges_is_the_complete_mesh():
    edges = LatentMesh.from_edges(5, list(itertools.combinations(range(5), 2)))
    for one, other in zip(edges.tensors(), LatentMesh.complete(5).dense_tensors(), strict=True):
        assert torch.equal(one, other)


def test_grid_differentiates_linear_functions_exactly():
    mesh = LatentMesh.grid(3, 4, 2, dtype=torch.float64)
    points = torch.cartesian_prod(*(torch.arange(k, dtype=torch.float64) for k in (3, 4, 2)))
    slope = torch.tensor([2.0, -3.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(vfrnn.gradient(mesh, points @ slope), slope.expand(mesh.m, 3))
    assert (mesh.n, mesh.m, mesh.d) == (24, 6, 3)
    torch.testing.assert_close(mesh.b.sum(), mesh.w.sum())


def test_random_follows_its_generator():
    one, other = (LatentMesh.random(4, 5, 2, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.G, other.G)
    assert torch.equal(one.N, other.N)


@pytest.mark.parametrize(("name", "learn"), [("complete", ("b", "w")), ("random", ("b", "w", "N", "G"))])
def test_learned_tensors_keep_their_conditions(name, learn):
    mesh, fixed = (MESHES[name](dtype=torch.float64, **kw) for kw in ({"learn": learn}, {}))
    assert {parameter for parameter, _ in mesh.named_parameters()} == {
        f"log_{k}" if k in "bw" else f"free_{k}" for k in learn
    }
    assert not list(fixed.parameters())
    start = [tensor.detach().clone() for tensor in mesh.dense_tensors()]
    v = torch.randn(mesh.m, mesh.d, dtype=torch.float64)
    optimizer = torch.optim.Adam(mesh.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        S, delta = vfrnn.field_generator(mesh, v)
        (S[0].sum() + delta.square().sum()).backward()
        optimizer.step()
    assert_identities(mesh)
    for tensor, before, letter in zip(mesh.dense_tensors(), start, "bwNG", strict=True):
        assert torch.equal(tensor, before) == (letter not in learn)


def test_learning_starts_from_the_given_values():
    torch.manual_seed(1)
    fixed = LatentMesh.random(6, 5, 3, dtype=torch.float64)
    learned = LatentMesh(*fixed.tensors(), learn=("b", "w", "N", "G"))
    for one, other in zip(fixed.tensors(), learned.tensors(), strict=True):
        torch.testing.assert_close(one, other.detach())


def test_state_carries_a_version_and_round_trips():
    mesh = LatentMesh.random(6, 5, 3, learn=("N",))
    state = mesh.state_dict()
    assert set(state) == {"b", "w", "free_N", "G"}
    assert state._metadata[""]["version"] == 1
    other = LatentMesh.random(6, 5, 3, learn=("N",))
    other.load_state_dict(state)
    copy = pickle.loads(pickle.dumps(mesh))
    for one, two, three in zip(mesh.tensors(), other.tensors(), copy.tensors(), strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
    state._metadata[""]["version"] = 2
    with pytest.raises(RuntimeError, match="version 1 or older, got 2"):
        other.load_state_dict(state)


def test_repr():
    assert repr(LatentMesh.complete(190)) == "LatentMesh.complete(190)"
    random = LatentMesh.random(4, 5, 2, learn=("w",))
    assert repr(random) == "LatentMesh.random(4, cells=5, dim=2, learn=('w',))"
    assert repr(copy.deepcopy(random)) == repr(random)
    assert repr(random.dense(learn=("G",))) == "LatentMesh(n=4, m=5, d=2, learn=('G',))"


@pytest.mark.parametrize("kind", MESHES)
def test_a_mesh_in_another_dtype_is_made_dense(kind):
    mesh = MESHES[kind]().double()
    for made, own in zip(mesh.dense().tensors(), mesh.dense_tensors(), strict=True):
        assert made.dtype == torch.float64
        assert torch.equal(made, own)


def test_random_gradients_of_few_nodes_sum_to_zero():
    for seed in range(300):  # among them rows of almost equal entries, whose mean is rounded
        torch.manual_seed(seed)
        G = LatentMesh.random(2, 5, 17).G.double()
        assert (G.sum(-1).abs() <= 2 * torch.finfo(torch.float32).eps * G.abs().sum(-1)).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LatentMesh.complete(0), ValueError, "n must be at least 1, got 0"),
        (lambda: LatentMesh.complete(2.5), TypeError, "n must be an int, got float"),
        (lambda: LatentMesh.complete(3, learn=("N",)), ValueError, "learn must not name 'N' on the complete mesh"),
        (lambda: LatentMesh.complete(3, learn=("q",)), ValueError, "learn must name some of .* got 'q'"),
        (lambda: LatentMesh.complete(3, learn="bw"), TypeError, "learn must be a sequence of names"),
        (lambda: LatentMesh.complete(3, learn=1), TypeError, "learn must be a sequence of names, .* got 1"),
        (lambda: LatentMesh.complete(2**33), ValueError, "n must be at most 4294967296, got 8589934592"),
        (lambda: LatentMesh.complete(3, dtype=torch.int32), TypeError, "dtype must be None, .* got torch.int32"),
        (lambda: LatentMesh.random(3, 2, dtype=torch.cfloat), TypeError, "dtype must be None, .* got torch.complex64"),
        (lambda: LatentMesh.from_edges(3, [], dtype=float), TypeError, "dtype must be None, .* got <class 'float'>"),
        (lambda: LatentMesh.grid(2, dtype=torch.bool), TypeError, "dtype must be None, .* got torch.bool"),
        (lambda: LatentMesh.grid(2).tensors("float64"), TypeError, "dtype must be None, .* got 'float64'"),
        (lambda: LatentMesh.grid(2**40, 2**40), ValueError, r"shape must give tensors of fewer than 2\*\*63 entries"),
        (lambda: LatentMesh.random(3, -1), ValueError, "cells must be at least 1, got -1"),
        (lambda: LatentMesh.random(3, 1, 0), ValueError, "dim must be at least 1, got 0"),
        (lambda: LatentMesh.from_edges(3, [(0, 3)]), ValueError, r"nodes from 0 to n - 1 = 2, got 3"),
        (lambda: LatentMesh.from_edges(3, [(1, 1)]), ValueError, r"two different nodes, got \(1, 1\)"),
        (lambda: LatentMesh.from_edges(3, [(0, 1, 2)]), ValueError, r"shape \(m, 2\), got \(1, 3\)"),
        (lambda: LatentMesh.from_edges(3, [(0.0, 1.0)]), TypeError, "pairs of ints, got torch.float32"),
        (lambda: LatentMesh.from_edges(3, torch.ones(1, 2).to_sparse()), TypeError, "edges must be a dense tensor"),
        (lambda: LatentMesh.from_edges(3, torch.float32), TypeError, "edges must be pairs of ints, got dtype"),
        (lambda: LatentMesh.from_edges(3, [(0, 2**63)]), TypeError, "edges must be pairs of ints, got list: Overflow"),
        (
            lambda: LatentMesh.from_edges(3, [(0, 1)], torch.ones(2)),
            ValueError,
            r"w must have shape \(m,\) with m = 1, got \(2,\)",
        ),
        (lambda: LatentMesh.grid(), ValueError, "at least one axis"),
        (lambda: LatentMesh.grid(3, 1), ValueError, r"shape\[1\] must be at least 2, got 1"),
        (lambda: LatentMesh(torch.tensor([1.0, -1.0]), torch.ones(1)), ValueError, "b must be positive .* got -1"),
        (lambda: LatentMesh(torch.ones(2), torch.tensor([math.nan])), ValueError, "w must be positive .* got nan"),
        (lambda: LatentMesh(torch.tensor([1.0, 1e-45]), torch.ones(1)), ValueError, "b must be .* no subnormal number"),
        (
            lambda: LatentMesh.from_edges(3, torch.ones(1, 2) + 0j),
            TypeError,
            "pairs of ints, got torch.complex64",
        ),
        (lambda: LatentMesh(torch.ones(2), torch.ones(2)), ValueError, r"w must have shape \(n \(n - 1\) / 2,\)"),
        (
            lambda: LatentMesh(torch.ones(2), torch.ones(1), torch.ones(1, 2), torch.zeros(1, 1, 2)),
            ValueError,
            "rows of N must sum to 1, got a sum of 2",
        ),
        (
            lambda: LatentMesh(torch.ones(2), torch.ones(1), torch.ones(1, 2) / 2, torch.ones(1, 1, 2)),
            ValueError,
            "rows of G must sum to 0, got a sum of 2",
        ),
    ],
)
def test_bad_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_on_a_device_without_values_no_generator_draws():
    mesh = LatentMesh.random(3, cells=2, dim=1, generator=torch.Generator(), device="meta")
    assert all(tensor.is_meta for tensor in mesh.tensors())
