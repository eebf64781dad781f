"""Initial rotation angles, their generator, and the field that has it on a mesh."""

import math

import pytest
import torch

import vfrnn
from tests.cases import exact_exponential, generator, skew_matrix
from vfrnn import LatentMesh
from vfrnn.init import block_diagonal_generator, init_field_, least_squares_field, rotation_angles_

F64 = torch.float64


@pytest.mark.parametrize(("init", "low", "high"), [("henaff", -math.pi, math.pi), ("cayley", -math.pi / 2, 0)])
def test_angles_are_uniform(init, low, high):
    count = 20_000
    angles = torch.full((count,), math.nan, dtype=F64)
    assert rotation_angles_(angles, init) is angles
    # The distance of the sorted numbers to the law's quantiles exceeds 1.95 / sqrt(count) once in a thousand seeds.
    quantiles = low + (high - low) * (torch.arange(count, dtype=F64) + 0.5) / count
    assert (angles.sort().values - quantiles).abs().max() < (high - low) * 1.95 / count**0.5


def test_zero_angles():
    assert rotation_angles_(torch.full((3,), math.nan), "zero").tolist() == [0, 0, 0]


@pytest.mark.parametrize("n", [1, 2, 3, 6, 7])
def test_the_generator_turns_neighbouring_planes(n):
    angles = torch.randn(n // 2, dtype=F64)
    S = block_diagonal_generator(angles, n)
    R = torch.eye(n, dtype=F64)
    for k, angle in enumerate(angles.tolist()):
        cos, sin = math.cos(angle), math.sin(angle)
        R[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = torch.tensor([[cos, sin], [-sin, cos]], dtype=F64)
    torch.testing.assert_close(exact_exponential(S), R)


def test_the_cayley_transform_of_scornns_blocks_turns_by_the_angles():
    """s = sqrt((1 - cos u) / (1 + cos u)) in a block [[0, -s], [s, 0]] gives a turn by u: the law of "cayley"."""
    u = torch.linspace(0.01, math.pi / 2, 7, dtype=F64)
    for angle, s in zip(u, ((1 - u.cos()) / (1 + u.cos())).sqrt(), strict=True):
        A = block_diagonal_generator(-s[None], 2)  # expRNN's sign: -s above the diagonal
        eye = torch.eye(2, dtype=F64)
        Q = torch.linalg.solve(eye + A, eye - A)
        torch.testing.assert_close(Q, exact_exponential(block_diagonal_generator(angle[None], 2)))


@pytest.mark.parametrize("general", [False, True])
def test_a_step_starts_with_the_angles_of_its_init(general):
    mesh = LatentMesh.random(6, 21, dtype=F64) if general else LatentMesh.complete(6, dtype=F64)
    v = torch.empty(mesh.m, mesh.d, dtype=F64)
    torch.manual_seed(2)
    assert init_field_(v, mesh, "henaff") is v
    torch.manual_seed(2)
    angles = torch.empty(3, dtype=F64).uniform_(-math.pi, math.pi).abs().sort().values
    b, w, N, G = mesh.dense_tensors()
    M = exact_exponential(generator(b, w, N, G, v[None])[0][0])
    found = torch.linalg.eigvals(M).angle().abs().sort().values[::2]
    torch.testing.assert_close(found, angles, rtol=0, atol=1e-6 if general else 1e-12)


def test_on_meta_nothing_is_computed():
    mesh = LatentMesh.random(6, 5, 3, device="meta")
    v = torch.empty(5, 3, device="meta")
    assert init_field_(v, mesh, "henaff") is v


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


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rotation_angles_(1.0, "zero"), TypeError, "angles must be a tensor, got float"),
        (lambda: block_diagonal_generator(None, 2), TypeError, "angles must be a tensor, got NoneType"),
        (
            lambda: block_diagonal_generator(torch.ones(2), 2),
            ValueError,
            r"angles must have shape \(n // 2,\) with n = 2",
        ),
        (lambda: init_field_(torch.ones(3, 1), 3, "zero"), TypeError, "mesh must be a LatentMesh, got int"),
        (lambda: init_field_(torch.ones(3), LatentMesh.complete(3), "zero"), ValueError, r"v must have shape \(m, d\)"),
        (
            lambda: least_squares_field(LatentMesh.complete(3), torch.ones(3, 3, device="meta")),
            ValueError,
            "S must be on the device of the mesh, cpu, got meta",
        ),
        (lambda: least_squares_field(LatentMesh.complete(3), None), TypeError, "S must be a tensor, got NoneType"),
    ],
)
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_unknown_initialisation_is_named():
    with pytest.raises(ValueError, match="init must be one of 'henaff', 'cayley', 'zero', got 'haar'"):
        init_field_(torch.zeros(3, 1), LatentMesh.complete(3), "haar")
