"""What this installation can do: versions, backends and why some are missing, every op against float64."""

from __future__ import annotations

import importlib
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import vfrnn
from vfrnn_kernels import cuda_device
from vfrnn_kernels.declaration import OPS, Op, Sample
from vfrnn_kernels.dispatch import BACKENDS, Backend, get_backend, refusal
from vfrnn_kernels.loader import (
    CPU_LIBRARY,
    CPU_LIBRARY_MISSING,
    CUDA_LIBRARY,
    CUDA_SIMULATED,
    TRITON_INTERPRETED,
    build_info,
)

#: Where Linux shows the driver of NVIDIA's GPUs.
DRIVER = Path("/proc/driver/nvidia/version")
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
        "CUDA toolkit": _toolkit(build.get("cuda_toolkit")),
    }


def _toolkit(version: str | None) -> str:
    """Of which libvfrnn_cuda.so was made, and the drivers that run it."""
    if version is None:
        return "unknown (vfrnn_kernels._host does not load)"
    if not version:
        return "none: built without CUDA kernels"
    return f"{version}, for {cuda_device.least_driver(int(version.split('.')[0]))} or newer"


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
        refused = None if idle else _refused(backend.name)
        lines[backend.name] = f"loaded{_origin(backend.name)}{idle}{f'; not used: {refused}' if refused else ''}"
    return lines


def _refused(backend: str) -> str | None:
    """Why the kernels do not run on the device that is there, None if they do."""
    return cuda_device.refusal(torch.device("cuda")) if backend == "cuda" and CUDA_SIMULATED is None else None


def _origin(backend: str) -> str:
    if backend == "cpu":
        return f" from {CPU_LIBRARY}, for {platform.machine()}"
    if backend == "cuda":
        return (
            f" from {CUDA_SIMULATED}, simulated"
            if CUDA_SIMULATED
            else f" from {CUDA_LIBRARY}, for {cuda_device.architectures()}"
        )
    if backend == "triton":
        where = "in the interpreter, on CPU tensors" if TRITON_INTERPRETED else "on CUDA tensors"
        return f" with Triton {_triton_version()}, {where}"
    return " (plain PyTorch, any device)"


def _triton_version() -> str:
    # asked of the module: its package has other names in some builds of torch
    return str(importlib.import_module("triton").__version__)


def _device(backend: str) -> torch.device | None:
    """Where the backend is checked, None if there is no such device."""
    emulated = {"triton": TRITON_INTERPRETED, "cuda": CUDA_SIMULATED is not None}
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
    if _device(name) is None:
        return f"backend {name!r} has nothing to run on: torch sees no GPU"
    refused = _refused(name)
    return f"backend {name!r} does not run here: {refused}" if refused else None


def processor() -> dict[str, str]:
    """Instruction set of the CPU kernels, threads, the driver of the GPUs, and the GPUs."""
    isa = "none: the CPU kernels are not loaded"
    if CPU_LIBRARY_MISSING is None:
        isa = f"{torch.ops.vfrnn_kernels.cpu_isa()} (built for {', '.join(torch.ops.vfrnn_kernels.cpu_isas())})"
    found = {"instruction set": isa, "threads": str(torch.get_num_threads()), "driver": _driver()}
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return found | ({f"gpu {k}": _gpu(k) for k in range(count)} or {"gpu": "none that torch sees"})


def _driver() -> str:
    """The version that the kernel module says it has, and the CUDA that it serves where our library can ask."""
    try:
        module = re.search(r"\s(\d+\.[\d.]+)\s", DRIVER.read_text())
    except OSError:
        return "none (a GPU of NVIDIA would need one)"
    name = module[1] if module else "of unknown version"
    if get_backend("cuda").missing is not None or CUDA_SIMULATED is not None:
        return name
    try:
        served, _ = torch.ops.vfrnn_kernels.cuda_versions()
    except RuntimeError as error:
        return f"{name}; {error}"
    return f"{name}, serves CUDA up to {cuda_device.version(served)}"


def _gpu(index: int) -> str:
    """A device as torch sees it, and, where our library is loaded, what its kernels find there."""
    major, minor = torch.cuda.get_device_capability(index)
    seen = f"{torch.cuda.get_device_name(index)}, sm_{major}{minor}"
    if get_backend("cuda").missing is not None or CUDA_SIMULATED is not None:
        return seen
    if reason := cuda_device.refusal(torch.device("cuda", index)):
        return f"{seen}; the CUDA kernels do not run: {reason}"
    device = cuda_device.cuda_device(index)
    return (
        f"{seen}, {device.multiprocessors} multiprocessors, {device.shared_limit // 1024} KB for a block, "
        f"clusters of {device.largest_cluster}; runs the code for sm_{device.code}"
    )


def self_checks() -> list[Check]:
    """Every op on every backend that serves it in float32 on a device of this machine."""
    return [_check(op, backend.name) for op in OPS.values() for backend in BACKENDS if _serves(backend, op)]


def _serves(backend: Backend, op: Op) -> bool:
    device = _device(backend.name)
    return device is not None and refusal(backend, op.name, device, torch.float32) is None


def _check(op: Op, backend: str) -> Check:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        sample = op.sample(17)
    exact_values, exact_gradients = _run(op, sample, "reference", torch.device("cpu"), torch.float64)
    values, gradients = _run(op, sample, backend, _device(backend), torch.float32)
    return Check(op.name, backend, _largest_error(values, exact_values), _largest_error(gradients, exact_gradients))


def _run(
    op: Op, sample: Sample, backend: str, device: torch.device | None, dtype: torch.dtype
) -> tuple[list[Tensor], list[Tensor]]:
    """The values and the gradients of every tensor, from the same incoming gradients."""
    leaves = {name: tensor.to(device, dtype).requires_grad_() for name, tensor in sample.leaves.items()}
    outputs = op.function(**{**sample.arguments, **leaves}, backend=backend)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    weights = [torch.linspace(-1, 1, t.numel(), dtype=t.dtype).view_as(t).to(t.device) for t in outputs]
    return [output.detach() for output in outputs], list(torch.autograd.grad(outputs, [*leaves.values()], weights))


def _largest_error(found: list[Tensor], exact: list[Tensor]) -> float:
    """Relative, in the Frobenius norm."""
    pairs = zip(found, exact, strict=True)
    return max(float((a.cpu().double() - b).norm() / (b.norm() or 1)) for a, b in pairs)
