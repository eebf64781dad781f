"""A field on a grid as velocities: recognised, constant where it is constant, carried the way the state moves."""

import pytest
import torch

import vfrnn
from vfrnn.inspection.grid import grid_field, grid_shape

F64 = torch.float64


@pytest.mark.parametrize("shape", [(2, 2), (3, 5), (5, 3), (4, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_grid_is_recognised_by_its_tensors(shape, dtype):
    mesh = vfrnn.LatentMesh.grid(*shape, dtype=dtype, learn=("b", "w"))
    assert grid_shape(mesh) == shape
    again = vfrnn.LatentMesh(*(tensor.detach() for tensor in mesh.tensors()))  # as from a state_dict: without a name
    assert grid_shape(again) == shape


def test_what_is_no_grid_of_two_axes_is_none():
    grid = vfrnn.LatentMesh.grid(3, 4)
    shuffled = vfrnn.LatentMesh(grid.b, grid.w, grid.N[:, torch.randperm(12)], grid.G)
    line, cube = vfrnn.LatentMesh.grid(5), vfrnn.LatentMesh.grid(3, 2, 2)
    others = vfrnn.LatentMesh.complete(6), vfrnn.LatentMesh.random(6, 2, 2), vfrnn.LatentMesh.random(6, 5, 2)
    for mesh in (shuffled, line, cube, *others):
        assert grid_shape(mesh) is None
        assert grid_field(mesh, torch.zeros(mesh.m, mesh.d), 1.0) is None


def test_a_constant_field_gives_equal_arrows_without_divergence_inside():
    rnn = vfrnn.VFRNN(1, 20, mesh=vfrnn.LatentMesh.grid(4, 5), dt=0.5)
    with torch.no_grad():
        rnn.field_l0.copy_(torch.tensor([0.75, -0.25]))
    grid = vfrnn.inspect(rnn).layers[0].grid
    assert grid.velocity.shape == (3, 4, 2)
    assert torch.equal(grid.velocity, torch.tensor([-0.375, 0.125], dtype=F64).expand(3, 4, 2))
    torch.testing.assert_close(grid.divergence[1:-1, 1:-1], torch.zeros(2, 3, dtype=F64), rtol=0, atol=1e-14)


def test_the_divergence_of_a_field_that_spreads():
    # u = (x - centre), tangential at no wall: its divergence is 2 inside
    centres = torch.cartesian_prod(torch.arange(4, dtype=F64) + 0.5, torch.arange(4, dtype=F64) + 0.5)
    mesh = vfrnn.LatentMesh.grid(5, 5, dtype=F64)
    grid = grid_field(mesh, -(centres - 2.0) / 0.25, 0.25)
    torch.testing.assert_close(grid.divergence[1:-1, 1:-1], torch.full((3, 3), 2.0, dtype=F64))


def test_the_state_moves_along_the_arrows():
    rnn = vfrnn.VFRNN(1, 144, mesh=vfrnn.LatentMesh.grid(12, 12), nonlinearity="identity", bias=False, substeps=4)
    with torch.no_grad():
        rnn.divergence_scale_l0.fill_(1.0)
        rnn.field_l0.copy_(torch.tensor([-0.5, 1.0]))
    points = torch.cartesian_prod(torch.arange(12.0), torch.arange(12.0))
    blob = torch.exp(-(points - torch.tensor([5.0, 6.0])).square().sum(-1) / 6)
    root = rnn.mesh.b.sqrt()
    with torch.no_grad():
        f = rnn(torch.zeros(2, 1, 1), (blob * root).view(1, 1, -1))[1].view(-1) / root
    centre = (points * f[:, None]).sum(0) / f.sum()
    before = (points * blob[:, None]).sum(0) / blob.sum()
    velocity = vfrnn.inspect(rnn).layers[0].grid.velocity[0, 0]
    torch.testing.assert_close(centre - before, 2 * velocity.float(), rtol=0.05, atol=0.05)


def test_an_orthogonal_layer_has_arrows_and_no_divergence_that_acts():
    rnn = vfrnn.OrthogonalRNN(1, 9, mesh=vfrnn.LatentMesh.grid(3, 3))
    (layer,) = vfrnn.inspect(rnn).layers
    assert layer.grid.divergence.abs().max() > 0.01
    assert not layer.divergence.any()
