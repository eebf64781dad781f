"""What this installation can do: versions, backends and why some are missing, every op against float64."""

from __future__ import annotations

import functools
import importlib
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import vfrnn
import vfrnn_kernels as kernels
from vfrnn_kernels.dispatch import BACKENDS, Backend, get_backend, refusal
from vfrnn_kernels.loader import (
    CPU_LIBRARY,
    CPU_LIBRARY_MISSING,
    CUDA_EMULATED,
    CUDA_LIBRARY,
    TRITON_INTERPRETED,
    build_info,
)

#: Largest relative error of a float32 result and of its gradients: 100 roundings of 2^-24, at the sizes used here.
TOLERANCE = 100 * 2.0**-24


@dataclass(frozen=True)
class Check:
    """One op on one backend: relative errors (Frobenius) of float32 values and gradients against float64."""

    op: str
    backend: str
    value_error: float
    gradient_error: float

    @property
    def passed(self) -> bool:
        """Both errors are finite and within the tolerance."""
        return self.value_error <= TOLERANCE and self.gradient_error <= TOLERANCE


def versions() -> dict[str, str]:
    """Of the package, torch, Python and the compiler, as they were found."""
    build = build_info()
    return {
        "vfrnn": vfrnn.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "compiled with": build.get("compiler", "not built"),
    }


def backends() -> dict[str, str]:
    """Each backend of the table: "loaded", from where and for what; or why not, and what to do."""
    lines = {}
    for backend in BACKENDS:
        if backend.missing is not None:
            lines[backend.name] = f"not loaded: {backend.missing}"
            continue
        idle = (
            "" if _device(backend.name) else "; not used: torch sees no GPU (is one there, with a driver? nvidia-smi)"
        )
        lines[backend.name] = f"loaded{_origin(backend.name)}{idle}"
    return lines


def _origin(backend: str) -> str:
    if backend == "cpu":
        return f" from {CPU_LIBRARY}, for {platform.machine()}"
    if backend == "cuda":
        return (
            f" from {CUDA_EMULATED}, emulated" if CUDA_EMULATED else f" from {CUDA_LIBRARY}, for {cuda_architectures()}"
        )
    if backend == "triton":
        where = "in the interpreter, on CPU tensors" if TRITON_INTERPRETED else "on CUDA tensors"
        return f" with Triton {_triton_version()}, {where}"
    return " (plain PyTorch, any device)"


def cuda_architectures() -> str:
    """What libvfrnn_cuda.so was built for, as "sm_80, sm_90a, sm_100+PTX"."""
    built = build_info().get("cuda")
    return (
        f"sm_{built.replace(', ', ', sm_')}" if built else "unknown architectures (vfrnn_kernels._host does not load)"
    )


def _triton_version() -> str:
    # asked of the module: its package has other names in some builds of torch
    return str(importlib.import_module("triton").__version__)


def _device(backend: str) -> torch.device | None:
    """Where the backend is checked, None if there is no such device."""
    emulated = {"triton": TRITON_INTERPRETED, "cuda": CUDA_EMULATED is not None}
    if not emulated.get(backend, True):
        return torch.device("cuda") if torch.cuda.is_available() else None
    return torch.device("cpu")


def chosen_backend() -> str | None:
    """Why the backend that VFRNN_BACKEND names, if it names one, cannot run here; None if it can."""
    name = os.environ.get("VFRNN_BACKEND")
    if not name:
        return None
    try:
        backend = get_backend(name, argument="VFRNN_BACKEND")
    except ValueError as error:
        return str(error)
    if backend.missing is not None:
        return f"backend {name!r} is not loaded: {backend.missing}"
    return None if _device(name) else f"backend {name!r} has nothing to run on: torch sees no GPU"


def processor() -> dict[str, str]:
    """Instruction set of the CPU kernels, threads, and the GPU."""
    gpu = "none that torch sees"
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        gpu = f"{torch.cuda.get_device_name()}, sm_{major}{minor}"
    isa = torch.ops.vfrnn_kernels.cpu_isa() if CPU_LIBRARY_MISSING is None else "none: the CPU kernels are not loaded"
    return {"instruction set": isa, "threads": str(torch.get_num_threads()), "gpu": gpu}


def self_checks() -> list[Check]:
    """Every op on every backend that serves it in float32 on a device of this machine."""
    return [_check(op, backend.name) for op in _CASES for backend in BACKENDS if _serves(backend, op)]


def _serves(backend: Backend, op: str) -> bool:
    device = _device(backend.name)
    return device is not None and refusal(backend, op, device, torch.float32) is None


def _check(op: str, backend: str) -> Check:
    tensors, call = _CASES[op]()
    exact = _run(call, [t.double() for t in tensors], "reference")
    found = _run(call, [t.to(_device(backend)) for t in tensors], backend)
    errors = [_relative_error(a.cpu(), b) for a, b in zip(found, exact, strict=True)]
    gradients = errors[-len(tensors) :]
    return Check(op, backend, max(errors[: -len(tensors)]), max(gradients))


def _run(call: Callable[..., tuple[Tensor, ...]], tensors: list[Tensor], backend: str) -> list[Tensor]:
    leaves = [t.clone().requires_grad_() for t in tensors]
    outputs = call(*leaves, backend=backend)
    weights = [torch.linspace(-1, 1, t.numel(), dtype=t.dtype).view_as(t).to(t.device) for t in outputs]
    return [*(output.detach() for output in outputs), *torch.autograd.grad(outputs, leaves, weights)]


def _relative_error(actual: Tensor, exact: Tensor) -> float:
    return float((actual.double() - exact).norm() / (exact.norm() or 1))


Case = tuple[list[Tensor], Callable[..., tuple[Tensor, ...]]]


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _mesh(n: int = 17, m: int = 9, d: int = 2) -> list[Tensor]:
    b, w, N, G = (_random(*shape, seed=k) for k, shape in enumerate([(n,), (m,), (m, n), (m, d, n)]))
    N = N.abs() + 0.1
    return [b.abs() + 0.5, w.abs() + 0.5, N / N.sum(-1, keepdim=True), G - G.mean(-1, keepdim=True)]


def _skew_expm() -> Case:
    return [_random(17, 17)], lambda A, backend: (kernels.skew_expm((A - A.mT) / 4, backend=backend),)


def _strang_step() -> Case:
    def call(A: Tensor, delta: Tensor, backend: str) -> tuple[Tensor, ...]:
        return (kernels.strang_step((A - A.mT) / 4, delta, 1.0, 2, backend=backend),)

    return [_random(17, 17), _random(17)], call


def _field_generator() -> Case:
    return [*_mesh(), _random(9, 2)], lambda *tensors, backend: kernels.field_generator(*tensors, backend=backend)


def _field_flow() -> Case:
    def call(h: Tensor, v: Tensor, b: Tensor, w: Tensor, N: Tensor, G: Tensor, backend: str) -> tuple[Tensor, ...]:
        return (kernels.field_flow(h, v, b, w, N, G, 0.02, substeps=1, backend=backend),)

    return [_random(3, 17), _random(9, 2), *_mesh()], call


def _recurrence() -> Case:
    def call(x: Tensor, U: Tensor, c: Tensor, M: Tensor, h0: Tensor, backend: str) -> tuple[Tensor, ...]:
        return (kernels.recurrence(x, U, c, M / 8, h0, "tanh", backend=backend),)

    return [_random(5, 3, 2), _random(17, 2), _random(17), _random(17, 17), _random(3, 17)], call


def _spectral_recurrence() -> Case:
    def call(
        x: Tensor, U: Tensor, c: Tensor, A: Tensor, delta: Tensor, dt: Tensor, h0: Tensor, backend: str
    ) -> tuple[Tensor, ...]:
        return (kernels.spectral_recurrence(x, U, c, (A - A.mT) / 8, delta / 4, dt, h0, "tanh", backend=backend),)

    shapes = ((5, 3, 2), (17, 2), (17,), (17, 17), (17,), (5, 3), (3, 17))
    return [_random(*shape) for shape in shapes], call


def _flow_recurrence() -> Case:
    def call(*tensors: Tensor, backend: str) -> tuple[Tensor, ...]:
        op = functools.partial(kernels.flow_recurrence, activation="tanh", dt=0.02, substeps=1, backend=backend)
        return (op(*tensors),)

    layer = [_random(*shape) for shape in ((5, 3, 2), (17, 2), (17,), (9, 2), (9, 2, 2))]
    return [*layer, *_mesh(), _random(3, 17)], call


_CASES: dict[str, Callable[[], Case]] = {
    "skew_expm": _skew_expm,
    "field_generator": _field_generator,
    "strang_step": _strang_step,
    "field_flow": _field_flow,
    "recurrence": _recurrence,
    "spectral_recurrence": _spectral_recurrence,
    "flow_recurrence": _flow_recurrence,
}
