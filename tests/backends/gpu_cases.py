"""Cases of every op for the backends of a GPU, and what is right about them.

Without a GPU they run on small sizes: Triton in its interpreter (TRITON_INTERPRET=1), CUDA in the emulator
(VFRNN_CUDA_EMULATED, `make test-cuda-emulated`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.cases import beta_for, random_mesh, relative_error, skew_matrix
from vfrnn_kernels import (
    field_flow,
    field_generator,
    flow_recurrence,
    recurrence,
    skew_expm,
    spectral_recurrence,
    strang_step,
)
from vfrnn_kernels.dispatch import get_backend, refusal
from vfrnn_kernels.loader import CUDA_EMULATED, TRITON_INTERPRETED

GPU = torch.cuda.is_available() and not TRITON_INTERPRETED and CUDA_EMULATED is None
DEVICE = torch.device("cuda" if GPU else "cpu")
#: The backends to test: those that serve the device.
BACKENDS = [
    name for name in ("cuda", "triton") if refusal(get_backend(name), "recurrence", DEVICE, torch.float32) is None
]
SIZES = (1, 2, 17, 64, 128, 190, 257) if GPU else (1, 2, 17, 37)
#: The interpreter is wrong about bfloat16.
LOW = (torch.float16, torch.bfloat16) if GPU or CUDA_EMULATED else (torch.float16,)
#: An n for which the Triton kernels do not keep M on the chip, so that the recurrence goes step by step (in the
#: interpreter made so).
STEP_N = 257 if GPU else 37


class Case:
    """Tensors and a call of one op; the tolerance is in units of eps, relative, for values and for gradients."""

    def __init__(self, tensors, call, values=30.0, gradients=60.0):
        self.tensors, self.call, self.values, self.gradients = tensors, call, values, gradients

    def leaves(self, layout=lambda t: t) -> list[Tensor | None]:
        moved = (None if t is None else layout(t.to(DEVICE)) for t in self.tensors)
        return [None if t is None else t.detach().requires_grad_() for t in moved]

    def run(self, tensors, backend) -> tuple[Tensor, ...]:
        return self.call(*tensors, backend=backend)


def recurrence_case(n, dtype=torch.float32, activation="tanh", T=4, B=3, i=3, state=None, bias=True) -> Case:
    state = state or dtype
    tensors = [
        torch.randn(T, B, i).to(dtype),
        (torch.randn(n, i) / math.sqrt(i or 1)).to(dtype),
        torch.randn(n).to(state) if bias else None,
        (torch.randn(n, n) * (0.4 / math.sqrt(n))).to(dtype),  # |M| is about 0.8: rounding does not grow with t
        torch.randn(B, n).to(state),
        beta_for(activation, n, dtype=state),
    ]

    def call(x, U, c, M, h0, beta, backend):
        return (recurrence(x, U, c, M, h0, activation, beta, backend=backend),)

    # A sum of n + i products rounds by its root in eps.
    return Case(tensors, call, 30 * math.sqrt(n + i), 30 * math.sqrt(n + i))


def skew_expm_case(n, norm=1.0, K=2) -> Case:
    S = torch.stack([skew_matrix(n, norm, dtype=torch.float32) for _ in range(K)]) if K else torch.zeros(0, n, n)
    # Values 1e-6 max(1, norm), gradients 2e-6 up to norm pi and 1e-5 up to 10 (targets of the design) in eps = 1.2e-7.
    scale = max(1.0, norm)
    return Case(
        [S, torch.linspace(0.5, 1, K)],
        lambda S, dt, backend: (skew_expm(S, dt, backend=backend),),
        10 * scale,
        20 * scale,
    )


def strang_step_case(n, norm=1.0, K=2, substeps=2) -> Case:
    tensors = [*skew_expm_case(n, norm, K).tensors, 0.3 * torch.randn(K, n)]

    def call(S, dt, delta, backend):
        return (strang_step(S, delta, dt, substeps, backend=backend),)

    return Case(tensors, call, 20 * max(1.0, norm), 60 * max(1.0, norm))


def field_generator_case(n, K=2, complete=False, m=9, d=2) -> Case:
    b, w, N, G = random_mesh(n, m, d, torch.float32)
    if complete:
        m, d = n * (n - 1) // 2, 1
        w, N, G = torch.rand(m) + 0.5, None, None
    return Case([b, w, N, G, torch.randn(K, m, d)], lambda *t, backend: field_generator(*t, backend=backend))


def field_flow_case(n, B=3 if GPU else 2, per_sample=False, substeps=2, volume_preserving=False) -> Case:
    b, w, N, G = random_mesh(n, 9, 2, torch.float32)
    v = torch.randn(*([B] if per_sample else []), 9, 2)
    tensors = [torch.randn(B, n), v, b, w, N, G, torch.tensor(0.2 / n), torch.tensor(0.7)]

    def call(*tensors, backend):
        return (field_flow(*tensors, volume_preserving=volume_preserving, substeps=substeps, backend=backend),)

    return Case(tensors, call, 60, 200)


def spectral_recurrence_case(n, T=3, B=3, i=2, activation="tanh", divergence=True, substeps=1) -> Case:
    tensors = [
        torch.randn(T, B, i),
        torch.randn(n, i) / math.sqrt(i),
        torch.randn(n),
        skew_matrix(n, 2.0, dtype=torch.float32),
        0.3 * torch.randn(n) if divergence else None,
        torch.linspace(-1, 2, T * B).reshape(T, B),
        torch.randn(B, n),
        beta_for(activation, n, dtype=torch.float32),
    ]

    def call(x, U, c, S, delta, dt, h0, beta, backend):
        options = {"substeps": substeps, "backend": backend}
        S = (S - S.mT) / 2
        return (spectral_recurrence(x, U, c, S, delta, dt, h0, activation, beta, **options),)

    return Case(tensors, call, 30 * math.sqrt(n + i), 100 * math.sqrt(n + i))


def flow_recurrence_case(n, T=2, B=2, i=2, activation="tanh", m=3, d=2, substeps=1, volume_preserving=False) -> Case:
    b, w, N, G = random_mesh(n, m, d, torch.float32)
    tensors = [
        torch.randn(T, B, i),
        torch.randn(n, i) / math.sqrt(i),
        torch.randn(n),
        torch.randn(m, d),
        torch.randn(m, d, i),
        b,
        w,
        N,
        G,
        torch.randn(B, n),
        beta_for(activation, n, dtype=torch.float32),
        torch.tensor(0.03 / n),
        torch.tensor(0.7),
    ]

    def call(*tensors, backend):
        *layer, beta, dt, scale = tensors
        options = {"volume_preserving": volume_preserving, "substeps": substeps, "backend": backend}
        return (flow_recurrence(*layer, activation, beta, dt, scale, **options),)

    return Case(tensors, call, 100, 300)


CASES = {
    "recurrence": recurrence_case,
    "skew_expm": skew_expm_case,
    "strang_step": strang_step_case,
    "field_generator": field_generator_case,
    "field_generator complete": lambda n, **options: field_generator_case(n, complete=True, **options),
    "spectral_recurrence": spectral_recurrence_case,
    "flow_recurrence": flow_recurrence_case,
    "field_flow": field_flow_case,
    "field_flow per sample": lambda n, **options: field_flow_case(n, per_sample=True, **options),
}


#: What cannot be recorded in a CUDA graph: the planes of a generator are found with the host's help.
NOT_RECORDED = ("spectral_recurrence",)


def small_case(name: str, n: int) -> Case:
    """One matrix, one substep instead of two: without a GPU the time is one program's after the other."""
    few = {"field_flow": {"substeps": 1}, "flow_recurrence": {"T": 1}, "skew_expm": {"K": 1}, "strang_step": {"K": 1}}
    return CASES[name](n, **few.get(name.split()[0], {}))


def gradients(outputs, tensors, weights) -> list[Tensor | None]:
    present = [t for t in tensors if t is not None and t.requires_grad]
    return list(torch.autograd.grad(outputs, present, weights, allow_unused=True, materialize_grads=True))


def assert_right(case: Case, backend: str, layout=lambda t: t) -> None:
    """Values and gradients of every tensor against the reference in float64."""
    leaves = case.leaves(layout)
    exact_leaves = [None if t is None else t.detach().double().requires_grad_() for t in leaves]
    outputs, exact = case.run(leaves, backend), case.run(exact_leaves, "reference")
    eps = max(torch.finfo(t.dtype).eps for t in leaves if t is not None)
    for found, right in zip(outputs, exact, strict=True):
        assert found.shape == right.shape
        assert relative_error(found, right) <= case.values * eps
    weights = [torch.randn_like(right) for right in exact]
    low = [weight.to(found.dtype) for weight, found in zip(weights, outputs, strict=True)]
    expected = gradients(exact, exact_leaves, [weight.double() for weight in low])
    for k, (found, right) in enumerate(zip(gradients(outputs, leaves, low), expected, strict=True)):
        # Sums of terms of size 1 that may cancel: the error is relative to the terms, so to 1 at least.
        assert (found.double() - right).norm() <= case.gradients * eps * max(float(right.norm()), 1.0), k
    for leaf, gradient in zip(
        [t for t in leaves if t is not None], gradients(case.run(leaves, backend), leaves, low), strict=True
    ):
        assert (gradient.shape, gradient.dtype) == (leaf.shape, leaf.dtype)
