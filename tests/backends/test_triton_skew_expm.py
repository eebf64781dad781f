"""Triton's exponential by its own functions: the route of tiles at sizes the interpreter can do, and refused values."""

import math

import pytest
import torch

from tests.cases import (
    exact_exponential,
    exact_exponential_gradient,
    orthogonality_error,
    quick,
    relative_error,
    skew_matrix,
)
from vfrnn_kernels.library import triton_kernels
from vfrnn_kernels.loader import TRITON_INTERPRETED, TRITON_MISSING
from vfrnn_kernels.strang_step import strang_step_reference

GPU = torch.cuda.is_available() and not TRITON_INTERPRETED
pytestmark = pytest.mark.skipif(
    TRITON_MISSING is not None or not (GPU or TRITON_INTERPRETED),
    reason="needs Triton and a GPU, or TRITON_INTERPRET=1",
)
DEVICE = "cuda" if GPU else "cpu"


def small_tiles():
    return triton_kernels("skew_expm").Plan(whole=False, block=16, depth=16, num_warps=4, num_stages=2)


def exponential(S, G, plan):
    """Q, grad_S and grad_dt at dt = 1, on the CPU."""
    kernels = triton_kernels("skew_expm")
    S, G, dt = S.to(DEVICE), G.to(DEVICE), torch.ones(len(S), device=DEVICE)
    Q, _, matrices, squarings = kernels.forward(S, None, dt, plan)
    grads = kernels.backward(G, S, None, dt, Q, matrices, squarings, {"S", "dt"}, plan)
    return Q.cpu(), grads["S"].cpu(), grads["dt"].cpu()


@pytest.mark.parametrize(
    ("norm", "bound", "spectrum"),
    quick(
        [(0.05, 2e-6, "gaussian"), (3, 2e-6, "flat"), (9, 1e-5, "gaussian"), (9, 1e-5, "flat"), (100, 1e-4, "flat")],
        (3, 2e-6, "flat"),
    ),
)
def test_tiles_against_the_eigendecomposition(norm, bound, spectrum):
    # the project's bounds of float32; norm 100 needs more squarings than have a launch
    S, G = skew_matrix(33, norm, spectrum, torch.float32)[None], torch.randn(1, 33, 33)
    Q, grad_S, grad_dt = exponential(S, G, small_tiles())
    assert float((Q[0] - exact_exponential(S[0])).abs().max()) <= 1e-6 * max(1, norm)
    assert orthogonality_error(Q[0]) <= 3e-6
    exact = exact_exponential_gradient(S[0], G[0])
    assert relative_error(grad_S[0], exact) <= bound
    assert abs(float(grad_dt) - float((exact * S[0]).sum())) <= bound * float(exact.norm() * S.norm())
    assert torch.equal(grad_S, -grad_S.mT)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the interpreter's numpy, about NaN
@pytest.mark.parametrize("tiled", quick([False, True], False))
def test_refused_values_are_nan_and_leave_the_others_alone(tiled):
    n = 18 if tiled else 5
    S = torch.stack([skew_matrix(n, norm, "flat", torch.float32) for norm in (1, 1, 0, 1e6, 3e6, 1e30)])
    S[0, 0, 1], S[1, 0, 1] = math.nan, math.inf
    refused = torch.tensor([True, True, False, False, True, True])
    plan = small_tiles() if tiled else triton_kernels("skew_expm").plan(n)
    Q, grad_S, grad_dt = exponential(S, torch.randn_like(S), plan)
    for result in (Q, grad_S, grad_dt):
        assert result[refused].isnan().all()
        assert result[~refused].isfinite().all()
    assert torch.equal(Q[2], torch.eye(n))
    # 20 squarings double the rounding to 0.06 a few times over; the Newton-Schulz step squares it
    assert orthogonality_error(Q[3]) <= 0.1


@pytest.mark.parametrize("k", quick([1, 6], 6))
def test_steps_by_tiles(k):
    kernels, n = triton_kernels("strang_step"), 19
    S = torch.stack([skew_matrix(n, norm, dtype=torch.float32) for norm in (0.5, 8.0)])
    delta, dt, G = 0.3 * torch.randn(2, n), torch.tensor([0.8, -1.1]), torch.randn(2, n, n)
    arguments = [t.to(DEVICE) for t in (S, delta, dt)]
    M, *kept = kernels._forward(*arguments, k, small_tiles())
    wanted = frozenset({"S", "delta", "dt"})
    grads = kernels._backward(G.to(DEVICE), *arguments, *kept, k, wanted, small_tiles())
    exact = [t.double().requires_grad_() for t in (S, delta, dt)]
    (right,) = strang_step_reference(*exact, k)
    assert relative_error(M.cpu(), right) <= 3e-6
    # sums of n^2 terms that may cancel
    expected_gradients = torch.autograd.grad(right, exact, G.double())
    for name, expected in zip(("S", "delta", "dt"), expected_gradients, strict=True):
        scale = max(float(expected.norm()), float(G.norm()))
        assert float((grads[name].cpu().double() - expected).norm()) <= 1e-5 * scale
