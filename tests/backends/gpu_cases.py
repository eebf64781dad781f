"""Cases of every op for the backends of a GPU, and what is right about them.

Without a GPU they run on small sizes: Triton in its interpreter (TRITON_INTERPRET=1), CUDA in the simulator
(VFRNN_CUDA_SIMULATED, `make test-gpu-simulated`).
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from tests.backends.recurrence_rounding import assert_gradients, assert_states
from vfrnn_kernels.declaration import OPS
from vfrnn_kernels.dispatch import get_backend, refusal
from vfrnn_kernels.loader import CUDA_SIMULATED, TRITON_INTERPRETED
from vfrnn_kernels.recurrence.reference import recurrence_backward_reference

GPU = torch.cuda.is_available() and not TRITON_INTERPRETED and CUDA_SIMULATED is None
DEVICE = torch.device("cuda" if GPU else "cpu")
#: The backends to test: those that serve the device.
BACKENDS = [
    name for name in ("cuda", "triton") if refusal(get_backend(name), "recurrence", DEVICE, torch.float32) is None
]
SIZES = (1, 2, 17, 64, 128, 190, 257) if GPU else (1, 2, 17, 37)
#: The interpreter is wrong about bfloat16.
LOW = (torch.float16, torch.bfloat16) if GPU or CUDA_SIMULATED else (torch.float16,)
#: An n for which the Triton kernels do not keep M on the chip, so that the recurrence goes step by step (in the
#: interpreter made so).
STEP_N = 257 if GPU else 37


class Case:
    """A sample of an op's declaration; the tolerance is in units of eps, relative, for values and for gradients."""

    def __init__(self, op, values, gradients, n, **variation):
        self.op, self.function = OPS[op], OPS[op].function
        self.values, self.gradients = values, gradients
        arguments = self.op.sample(n, **variation).arguments
        self.tensors = [arguments.pop(name) for name in self.op.input_names]
        self.options = arguments

    def leaves(self, layout=lambda t: t) -> list[Tensor | None]:
        moved = (None if t is None else layout(t.to(DEVICE)) for t in self.tensors)
        return [None if t is None else t.detach().requires_grad_() for t in moved]

    def run(self, tensors, backend) -> tuple[Tensor, ...]:
        named = dict(zip(self.op.input_names, tensors, strict=True))
        outputs = self.function(**named, **self.options, backend=backend)
        return outputs if isinstance(outputs, tuple) else (outputs,)


def recurrence_case(n, dtype=torch.float32, activation="tanh", T=4, B=3, i=3, **options) -> Case:
    # A sum of n + i products rounds by its root in eps.
    tolerance = 30 * math.sqrt(n + i)
    return Case("recurrence", tolerance, tolerance, n, dtype=dtype, activation=activation, T=T, B=B, i=i, **options)


def skew_expm_case(n, norm=1.0, K=2) -> Case:
    # Values 1e-6 max(1, norm), gradients 2e-6 up to norm pi and 1e-5 up to 10 (targets of the design) in eps = 1.2e-7.
    scale = max(1.0, norm)
    return Case("skew_expm", 10 * scale, 20 * scale, n, norm=norm, K=K)


def strang_step_case(n, norm=1.0, **options) -> Case:
    return Case("strang_step", 20 * max(1.0, norm), 60 * max(1.0, norm), n, norm=norm, **options)


def thin_skew_expm_case(n, norm=1.0, **options) -> Case:
    scale = max(1.0, norm)
    return Case("thin_skew_expm", 10 * scale, 20 * scale, n, norm=norm, **options)


def field_generator_case(n, **options) -> Case:
    return Case("field_generator", 30, 60, n, **options)


def field_flow_case(n, B=3 if GPU else 2, **options) -> Case:
    return Case("field_flow", 60, 200, n, B=B, **options)


def spectral_recurrence_case(n, i=2, **options) -> Case:
    tolerance = math.sqrt(n + i)
    return Case("spectral_recurrence", 30 * tolerance, 100 * tolerance, n, i=i, **options)


def flow_recurrence_case(n, **options) -> Case:
    return Case("flow_recurrence", 100, 300, n, **options)


CASES = {
    "recurrence": recurrence_case,
    "skew_expm": skew_expm_case,
    "strang_step": strang_step_case,
    "thin_skew_expm": thin_skew_expm_case,
    "thin_skew_expm whole": lambda n, **options: thin_skew_expm_case(n, k=max(1, n // 2), **options),
    "field_generator": field_generator_case,
    "field_generator complete": lambda n, **options: field_generator_case(n, complete=True, **options),
    "spectral_recurrence": spectral_recurrence_case,
    "flow_recurrence": flow_recurrence_case,
    "field_flow": field_flow_case,
    "field_flow per sample": lambda n, **options: field_flow_case(n, per_sample=True, **options),
}
CASES |= {name: functools.partial(Case, name, 100, 300) for name in OPS if name not in CASES}
#: What cannot be recorded in a CUDA graph.
NOT_RECORDED = tuple(name for name, op in OPS.items() if not op.capturable)


def small_case(name: str, n: int) -> Case:
    """One matrix, one substep instead of two: without a GPU the time is one program's after the other."""
    few = {"field_flow": {"substeps": 1}, "flow_recurrence": {"T": 1}}
    few |= {key: {"K": 1} for key in ("skew_expm", "strang_step", "thin_skew_expm")}
    return CASES[name](n, **few.get(name.split()[0], {}))


def gradients(outputs, tensors, weights) -> list[Tensor | None]:
    present = [t for t in tensors if t is not None and t.requires_grad]
    return list(torch.autograd.grad(outputs, present, weights, allow_unused=True, materialize_grads=True))


def everything(case: Case, backend: str) -> list[Tensor | None]:
    """Outputs and gradients."""
    leaves = case.leaves()
    outputs = case.run(leaves, backend)
    weights = [torch.linspace(-1, 1, t.numel(), device=t.device).view_as(t).to(t) for t in outputs]
    return [*outputs, *gradients(outputs, leaves, weights)]


def assert_right(case: Case, backend: str, layout=lambda t: t, values_alone: bool = False) -> None:
    """Values and gradients of every tensor against the reference in float64."""
    if case.op.name == "recurrence" and case.options.get("return_sequence", True):
        assert_recurrence_right(case, backend, layout, values_alone)
        return
    leaves = case.leaves(layout)
    exact_leaves = [None if t is None else t.detach().double().requires_grad_() for t in leaves]
    outputs, exact = case.run(leaves, backend), case.run(exact_leaves, "reference")
    eps = max(torch.finfo(t.dtype).eps for t in leaves if t is not None)
    for k, (found, right) in enumerate(zip(outputs, exact, strict=True)):
        assert found.shape == right.shape
        assert_near(found, right, case.values * eps, float(right.detach().norm()), f"output {k}")
    if values_alone:
        return
    weights = [torch.randn_like(right) for right in exact]
    low = [weight.to(found.dtype) for weight, found in zip(weights, outputs, strict=True)]
    expected = gradients(exact, exact_leaves, [weight.double() for weight in low])
    present = [(name, t) for name, t in zip(case.op.input_names, leaves, strict=True) if t is not None]
    for (name, leaf), found, right in zip(present, gradients(outputs, leaves, low), expected, strict=True):
        assert (found.shape, found.dtype) == (leaf.shape, leaf.dtype), name
        # Sums of terms of size 1 that may cancel: the error is relative to the terms, so to 1 at least.
        assert_near(found, right, case.gradients * eps, max(float(right.norm()), 1.0), f"grad_{name}")


def assert_near(found: Tensor, right: Tensor, tolerance: float, size: float, what: str) -> None:
    """The norm of the error is within `tolerance * size`, else: which entry is wrong first."""
    found, right = found.detach().double(), right.detach()
    error = (found - right).abs()
    if float(error.norm()) <= tolerance * (size or 1.0):
        return
    wrong = ~(error <= tolerance * (size or 1.0) / math.sqrt(error.numel()))
    where = tuple(int(k) for k in wrong.nonzero()[0])
    raise AssertionError(
        f"{what}: relative error {float(error.norm()) / (size or 1.0):.3g}, allowed {tolerance:.3g}; "
        f"{what}{list(where)} must be {float(right[where]):.8g}, got {float(found[where]):.8g}; "
        f"{int(wrong.sum())} of {wrong.numel()} entries are beyond their share"
    )


def assert_recurrence_right(case: Case, backend: str, layout=lambda t: t, values_alone: bool = False) -> None:
    """Every step from the states as they were found, and the gradients of all tensors on them."""
    leaves = case.leaves(layout)
    if values_alone:
        with torch.no_grad():
            _states(case, leaves, backend)
        return
    hs, tensors, grad_hs, found = _recurrence_results(case, leaves, backend)
    M = tensors[3]
    exact = (None if t is None else t.double() for t in tensors)
    right = recurrence_backward_reference(grad_hs.double(), *exact, hs.double(), case.options["activation"])
    eps = torch.finfo(M.dtype).eps
    # M shortens to 0.8, 1 / (1 - 0.8) = 5: so many roundings of grad_z are left, those of u, of the ends and of the
    # result, and sums in float32
    tolerance = (min(len(hs), 5) + 3) * eps / 2 + case.gradients * min(eps, torch.finfo(torch.float32).eps)
    for name, leaf, gradient, expected in zip(case.op.input_names, leaves, found, right, strict=True):
        if leaf is not None:
            assert (gradient.shape, gradient.dtype) == (leaf.shape, leaf.dtype), name
            assert_near(gradient, expected, tolerance, max(float(expected.norm()), 1.0), f"grad_{name}")
    # with the identity as U, so that grad_x shows grad_z
    x, U = tensors[:2]
    one = torch.eye(len(M), dtype=U.dtype, device=U.device)
    seen = [(x.double() @ U.double().mT).to(x.dtype), one, *tensors[2:]]
    leaves = [None if t is None else layout(t).detach().requires_grad_() for t in seen]
    hs, tensors, grad_hs, found = _recurrence_results(case, leaves, backend)
    if hs.numel():
        assert_gradients(found, grad_hs, hs, tensors, case.options["activation"], backend == "triton")


def _recurrence_results(case: Case, leaves, backend):
    """hs, which is right, the inputs, a gradient of hs and the gradients of the inputs."""
    hs = _states(case, leaves, backend)
    grad_hs = torch.randn_like(hs)
    some = iter(gradients((hs,), leaves, [grad_hs]))
    found = [None if t is None else next(some) for t in leaves]
    return hs.detach(), [None if t is None else t.detach() for t in leaves], grad_hs, found


def _states(case: Case, leaves, backend) -> Tensor:
    """hs, which is right."""
    (hs,) = case.run(leaves, backend)
    tensors = [None if t is None else t.detach() for t in leaves]
    x, _, _, M, h0, _ = tensors
    assert (hs.shape, hs.dtype) == ((*x.shape[:2], len(M)), h0.dtype)
    assert_states(hs.detach(), tensors, case.options["activation"], backend == "triton")
    return hs
