"""LatentMesh: its identities, its constructors, what is learned, the calculus on it, and initialisations of fields."""

import itertools
import math
import pickle

import pytest
import torch

import vfrnn
from tests.cases import skew_matrix
from vfrnn import LatentMesh
from vfrnn.init import block_diagonal_generator, init_field_, least_squares_field, rotation_angles_

MESHES = {
    "complete": lambda **kw: LatentMesh.complete(6, **kw),
    "random": lambda **kw: LatentMesh.random(6, 5, 3, **kw),
    "edges": lambda **kw: LatentMesh.from_edges(6, [(0, 1), (3, 1), (5, 2)], **kw),
    "grid": lambda **kw: LatentMesh.grid(2, 3, **kw),
}


@pytest.fixture(params=MESHES)
def mesh(request):
    return MESHES[request.param](dtype=torch.float64)


def assert_identities(mesh, tolerance=1e-12):  # sums of a few numbers of order 1 to 10 in float64
    b, w, N, G = mesh.dense_tensors()
    assert (b > 0).all()
    assert (w > 0).all()
    assert (N.sum(-1) - 1).abs().max() < tolerance
    assert G.sum(-1).abs().max() < tolerance


def test_rows_sum_to_one_and_constants_have_no_gradient(mesh):
    assert_identities(mesh)


def test_divergence_is_the_negative_adjoint_of_the_gradient(mesh):
    f, v = torch.randn(6, dtype=torch.float64), torch.randn(mesh.m, mesh.d, dtype=torch.float64)
    left = vfrnn.inner_product(mesh, vfrnn.gradient(mesh, f), v, of="fields")
    right = -vfrnn.inner_product(mesh, f, vfrnn.divergence(mesh, v))
    torch.testing.assert_close(left, right)


def test_generator_is_the_skew_part_of_the_directional_derivative(mesh):
    v, f = torch.randn(mesh.m, mesh.d, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    S, delta = vfrnn.field_generator(mesh, v)
    D = vfrnn.directional_derivative(mesh, v, torch.eye(6, dtype=torch.float64)).mT
    r = mesh.b.sqrt()
    symmetric = r[:, None] * D / r
    torch.testing.assert_close(S, (symmetric - symmetric.mT) / 2)
    torch.testing.assert_close(S @ r, r * delta / 2)  # T_v 1 = 0
    torch.testing.assert_close(vfrnn.directional_derivative(mesh, v, f), D @ f)


def test_field_flow_is_the_step(mesh):
    v, h = 0.1 * torch.randn(mesh.m, mesh.d, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    S, delta = vfrnn.field_generator(mesh, v)
    moved = vfrnn.field_flow(mesh, h, v, 0.1, substeps=8)
    torch.testing.assert_close(moved, h @ vfrnn.strang_step(S, delta, 0.1, 8).mT, rtol=1e-12, atol=1e-12)


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
    assert repr(LatentMesh.complete(190)) == "LatentMesh(n=190, m=17955, d=1, complete)"
    assert repr(LatentMesh.random(4, 5, 2, learn=("w",))) == "LatentMesh(n=4, m=5, d=2, learn=('w',))"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LatentMesh.complete(0), ValueError, "n must be at least 1, got 0"),
        (lambda: LatentMesh.complete(2.5), TypeError, "n must be an int, got float"),
        (lambda: LatentMesh.complete(3, learn=("N",)), ValueError, "learn must not name 'N' on the complete mesh"),
        (lambda: LatentMesh.complete(3, learn=("q",)), ValueError, "learn must name some of .* got 'q'"),
        (lambda: LatentMesh.complete(3, learn="bw"), TypeError, "learn must be a sequence of names"),
        (lambda: LatentMesh.random(3, -1), ValueError, "cells must be at least 1, got -1"),
        (lambda: LatentMesh.random(3, 1, 0), ValueError, "dim must be at least 1, got 0"),
        (lambda: LatentMesh.from_edges(3, [(0, 3)]), ValueError, r"nodes from 0 to n - 1 = 2, got 3"),
        (lambda: LatentMesh.from_edges(3, [(1, 1)]), ValueError, r"two different nodes, got \(1, 1\)"),
        (lambda: LatentMesh.from_edges(3, [(0, 1, 2)]), ValueError, r"shape \(m, 2\), got \(1, 3\)"),
        (lambda: LatentMesh.from_edges(3, [(0.0, 1.0)]), TypeError, "pairs of ints, got torch.float32"),
        (
            lambda: LatentMesh.from_edges(3, [(0, 1)], torch.ones(2)),
            ValueError,
            r"w must have shape \(m,\) with m = 1, got \(2,\)",
        ),
        (lambda: LatentMesh.grid(), ValueError, "at least one axis"),
        (lambda: LatentMesh.grid(3, 1), ValueError, r"shape\[1\] must be at least 2, got 1"),
        (lambda: LatentMesh(torch.tensor([1.0, -1.0]), torch.ones(1)), ValueError, "b must be positive .* got -1"),
        (lambda: LatentMesh(torch.ones(2), torch.tensor([math.nan])), ValueError, "w must be positive .* got nan"),
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
        (lambda: vfrnn.gradient(LatentMesh.complete(3), torch.ones(4)), ValueError, "n = 3, got"),
        (lambda: vfrnn.divergence(LatentMesh.complete(3), torch.ones(4, 1)), ValueError, "v must have shape"),
    ],
)
def test_bad_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("n", [1, 2, 3, 17])
@pytest.mark.parametrize(
    ("init", "low", "high"), [("henaff", -math.pi, math.pi), ("cayley", -math.pi / 2, 0), ("zero", 0, 0)]
)
def test_initial_field_on_the_complete_mesh_is_exact(n, init, low, high):
    mesh = LatentMesh(torch.rand(n).double() + 0.5, torch.rand(n * (n - 1) // 2).double() + 0.5)
    v = torch.full((mesh.m, 1), math.nan, dtype=torch.float64)
    torch.manual_seed(5)
    init_field_(v, mesh, init)
    torch.manual_seed(5)
    angles = rotation_angles_(torch.empty(n // 2, dtype=torch.float64), init)
    assert ((low <= angles) & (angles <= high)).all()
    torch.testing.assert_close(vfrnn.field_generator(mesh, v)[0], block_diagonal_generator(angles, n))


@pytest.mark.parametrize(("cells", "dim"), [(21, 1), (6, 2), (12, 4)])
def test_initial_field_on_a_general_mesh_is_the_least_squares_solution(cells, dim):
    mesh = LatentMesh.random(7, cells, dim, dtype=torch.float64)
    S = skew_matrix(7, 2.0)
    basis = torch.eye(cells * dim, dtype=torch.float64).reshape(-1, cells, dim)
    A = vfrnn.field_generator(mesh, basis)[0].flatten(1).mT
    exact = torch.linalg.pinv(A) @ S.flatten()
    # Conjugate gradients stop at a normal residual of 2e-15; the solution loses at most the condition squared, 1e8.
    torch.testing.assert_close(least_squares_field(mesh, S).flatten(), exact, rtol=1e-6, atol=1e-6)


def test_unknown_initialisation_is_named():
    with pytest.raises(ValueError, match="init must be one of 'henaff', 'cayley', 'zero', got 'haar'"):
        init_field_(torch.zeros(3, 1), LatentMesh.complete(3), "haar")
