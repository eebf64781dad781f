"""field_flow on a GPU beyond the matrix of test_gpu_ops.py: planned substeps, edge cases, what is out of range."""

import math

import pytest
import torch

from tests.backends.gpu_cases import BACKENDS, DEVICE, GPU, assert_near, assert_right, field_flow_case
from tests.cases import random_mesh, relative_error
from vfrnn_kernels import field_flow
from vfrnn_kernels.field_flow.reference_plan import MOST_SUBSTEPS, planned_substeps
from vfrnn_kernels.library import triton_kernels

pytestmark = pytest.mark.skipif(
    not BACKENDS, reason="needs a GPU, TRITON_INTERPRET=1 with Triton, or VFRNN_CUDA_SIMULATED"
)


@pytest.fixture(params=BACKENDS or ["none"])
def backend(request):
    return request.param


def test_without_samples_and_without_divergence(backend):
    assert_right(field_flow_case(5, B=0), backend)
    assert_right(field_flow_case(7, volume_preserving=True), backend)


def mesh_and_field(n, m, d, fields=1):
    return torch.randn(fields, m, d), *random_mesh(n, m, d, torch.float32)


@pytest.mark.skipif("triton" not in BACKENDS, reason="of the Triton kernels")
@pytest.mark.parametrize(("n", "m", "d", "fields"), [(5, 9, 2, 1), (70, 20, 1, 2), (3, 33, 1, 9)])
def test_the_plan_of_the_device_is_that_of_the_host(n, m, d, fields):
    mesh = mesh_and_field(n, m, d, fields)
    unit = 1 / planned_substeps(*mesh, torch.tensor(1.0), 8)
    on_device = [t.to(DEVICE) for t in mesh]
    for dt in (0.0, 0.5 * unit, -3.4 * unit, 40.5 * unit):
        found = triton_kernels("field_flow").planned_count(*on_device, torch.tensor(dt, device=DEVICE), 8)
        # the same bound, rounded in another order, then rounded up
        assert abs(int(found) - planned_substeps(*mesh, torch.tensor(dt), 8)) <= 1


def test_planned_substeps_and_their_gradients(backend):
    v, b, w, N, G = mesh_and_field(5, 9, 2)
    h, dt = torch.randn(2, 5), torch.tensor(0.3)
    dt = 2.5 / planned_substeps(v, b, w, N, G, torch.tensor(1.0), 3) if not GPU else dt
    tensors = [t.to(DEVICE).requires_grad_() for t in (h, v[0], b, w, N, G)]
    found = field_flow(*tensors, dt, order=3, backend=backend)
    exact = [t.detach().cpu().double().requires_grad_() for t in tensors]
    # the limit of order 3 in float64 makes the series of the reference exact to 1e-15
    right = field_flow(*exact, dt, order=3, backend="reference")
    assert relative_error(found.cpu(), right) <= 1e-5
    weight = torch.randn_like(right)
    gradients = torch.autograd.grad(found, tensors, weight.float().to(DEVICE))
    for gradient, expected in zip(gradients, torch.autograd.grad(right, exact, weight), strict=True):
        assert relative_error(gradient.cpu(), expected) <= 1e-4


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("dt", [1e-4, 1e-7])
def test_the_gradient_of_b_of_a_weak_field(backend, dt, per_sample):
    """A field that hardly moves the state has a small gradient of b, of which no digit may be lost beside the state."""
    case = field_flow_case(17, per_sample=per_sample)
    case.tensors[case.op.input_names.index("dt")] = torch.tensor(dt)
    leaves = case.leaves()
    exact = [t.detach().double().requires_grad_() for t in leaves]
    (found,), (right,) = case.run(leaves, backend), case.run(exact, "reference")
    weight = torch.randn_like(right)
    b = case.op.input_names.index("b")
    (gradient,) = torch.autograd.grad(found, leaves[b], weight.to(found.dtype))
    (expected,) = torch.autograd.grad(right, exact[b], weight.to(found.dtype).double())
    eps = torch.finfo(torch.float32).eps
    assert_near(gradient, expected, 20 * eps, float(expected.norm()), f"grad_b of dt {dt:g}")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the interpreter's numpy, about NaN
@pytest.mark.parametrize("name", ["dt", "v", "b", "w"])
def test_out_of_range_is_nan(backend, name):
    v, b, w, N, G = mesh_and_field(3, 4, 1)
    tensors = {"h": torch.randn(2, 3), "v": v[0], "b": b, "w": w, "N": N, "G": G, "dt": torch.tensor(0.1)}
    if name == "dt":
        tensors["dt"] = 2 * MOST_SUBSTEPS / torch.tensor(planned_substeps(v, b, w, N, G, torch.tensor(1.0), 8))
    else:
        tensors[name][0] = math.nan if name == "v" else -1.0
    found = field_flow(**{key: t.to(DEVICE) for key, t in tensors.items()}, backend=backend)
    assert found.isnan().all()
