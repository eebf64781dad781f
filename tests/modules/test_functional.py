"""The calculus and the ops on a `LatentMesh`, by its identities and against dense formulas."""

import inspect

import pytest
import torch

import vfrnn
import vfrnn_kernels
from tests.cases import dense_flow, generator
from vfrnn import LatentMesh

F64 = torch.float64


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
    moved = vfrnn.field_flow(h, v, mesh, 0.1, substeps=8)
    torch.testing.assert_close(moved, h @ vfrnn.strang_step(S, delta, 0.1, 8).mT, rtol=1e-12, atol=1e-12)


def test_the_calculus_is_that_of_the_dense_mesh(mesh):
    b, w, N, G = mesh.dense_tensors()
    f, g, v = torch.randn(4, 6, dtype=F64), torch.randn(4, 6, dtype=F64), torch.randn(4, mesh.m, mesh.d, dtype=F64)
    torch.testing.assert_close(vfrnn.gradient(mesh, f), torch.einsum("cdn,kn->kcd", G, f))
    expected = -torch.einsum("cdn,c,kcd->kn", G, w, v) / b
    torch.testing.assert_close(vfrnn.divergence(mesh, v), expected)
    torch.testing.assert_close(vfrnn.inner_product(mesh, f, g), (b * f * g).sum(-1))
    u = torch.randn_like(v)
    torch.testing.assert_close(vfrnn.inner_product(mesh, u, v, of="fields"), torch.einsum("c,kcd,kcd->k", w, u, v))
    S, delta = vfrnn.field_generator(mesh, v)
    torch.testing.assert_close((S, delta), generator(b, w, N, G, v))


def test_the_flow_recurrence_is_a_loop_over_its_flows(mesh):
    torch.manual_seed(3)
    x, U, c = torch.randn(4, 2, 3, dtype=F64), torch.randn(6, 3, dtype=F64), torch.randn(6, dtype=F64)
    v, V = (0.1 * torch.randn(mesh.m, mesh.d, *size, dtype=F64) for size in ((), (3,)))
    h = torch.randn(2, 6, dtype=F64)
    hs = vfrnn.flow_recurrence(x, U, c, v, V, mesh, h, "tanh", dt=0.5, divergence_scale=0.7, substeps=30)
    for x_t, found in zip(x, hs, strict=True):
        moved = dense_flow(h, v + torch.einsum("cdi,ki->kcd", V, x_t), *mesh.dense_tensors(), 0.5, 0.7, substeps=30)
        h = torch.tanh(moved + x_t @ U.mT + c)
        torch.testing.assert_close(found, h)


def test_arguments_have_one_order_in_both_packages():
    for name in set(vfrnn_kernels.__all__) - {"__version__"}:
        ours, theirs = (inspect.signature(getattr(package, name)) for package in (vfrnn, vfrnn_kernels))
        tensors = {"gradient": "G", "divergence": "bwG", "inner_product": ("weights",)}.get(name, "bwNG")
        names = [parameter for parameter in theirs.parameters if parameter not in tensors]
        if "mesh" in ours.parameters:
            names.insert(next(k for k, parameter in enumerate(theirs.parameters) if parameter in tensors), "mesh")
        assert list(ours.parameters) == names, name
        for parameter in names:
            if parameter != "mesh":
                assert ours.parameters[parameter] == theirs.parameters[parameter], (name, parameter)


def test_what_is_no_mesh_is_refused():
    h, v, x = torch.zeros(1, 2), torch.zeros(1, 1), torch.zeros(3, 1, 2)
    calls = (
        lambda: vfrnn.gradient(h, h),
        lambda: vfrnn.divergence(h, v),
        lambda: vfrnn.directional_derivative(h, v, h),
        lambda: vfrnn.inner_product(h, h, h),
        lambda: vfrnn.field_generator(h, v),
        lambda: vfrnn.field_flow(h, v, h),
        lambda: vfrnn.flow_recurrence(x, h.mT @ h, None, v, torch.zeros(1, 1, 2), h),
    )
    for call in calls:
        with pytest.raises(TypeError, match="mesh must be a LatentMesh, got Tensor"):
            call()


def test_every_op_can_be_called_from_the_package():
    for name in vfrnn_kernels.__all__:
        assert name in vfrnn.__all__
        assert hasattr(vfrnn, name)
    for name in vfrnn.functional.__all__:
        assert getattr(vfrnn, name) is getattr(vfrnn.functional, name)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda mesh: vfrnn.gradient(mesh, torch.ones(4)), "n = 3, got"),
        (lambda mesh: vfrnn.divergence(mesh, torch.ones(4, 1)), "v must have shape"),
        (lambda mesh: vfrnn.directional_derivative(mesh, torch.ones(3, 1), torch.ones(4)), "f must have shape"),
        (lambda mesh: vfrnn.inner_product(mesh, torch.ones(3), torch.ones(3), of="forms"), "of must be one of"),
    ],
    ids=["gradient", "divergence", "directional_derivative", "inner_product"],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(LatentMesh.complete(3))
