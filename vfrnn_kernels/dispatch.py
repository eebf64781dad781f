"""The one table of backends: who serves a call, and why the others do not.

A backend is chosen by the `backend=` argument, else by the environment variable VFRNN_BACKEND, else it is the first of
the table that supports the call; the reference on a GPU, and Triton's interpreter, serve only who names them. A choice
that cannot serve the call is an error, never replaced silently.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vfrnn_kernels.loader import (
    CPU_LIBRARY_MISSING,
    CUDA_EMULATED,
    CUDA_LIBRARY_MISSING,
    TRITON_INTERPRETED,
    TRITON_MISSING,
)


@dataclass(frozen=True)
class Backend:
    """A way to run an op. `missing` says why it did not load, `refuses(op, device, dtype, n)` why it cannot serve."""

    name: str
    missing: str | None
    refuses: Callable[[str, torch.device, torch.dtype, int | None], str | None]


#: Largest n of the GPU kernels that keep all nodes on the chip.
GPU_LARGEST_N = {"field_flow": 1024, "flow_recurrence": 1024}


def _cpu_refuses(op: str, device: torch.device, dtype: torch.dtype, n: int | None) -> str | None:
    if device.type not in ("cpu", "meta"):
        return f"it serves CPU tensors, got {device}"
    if dtype not in (torch.float32, torch.float64):
        return f"it computes in float32 and float64, got {dtype}"
    return None


def _too_many_nodes(op: str, n: int | None) -> str | None:
    largest = GPU_LARGEST_N.get(op)
    if n is not None and largest is not None and n > largest:
        return f"it computes {op} up to n = {largest}, got n = {n}"
    return None


#: What the CUDA kernels of an op compute in, beside float32.
CUDA_DTYPES = {
    "recurrence": (torch.float16, torch.bfloat16, torch.float64),
    "spectral_recurrence": (torch.float64,),
}


def _cuda_refuses(op: str, device: torch.device, dtype: torch.dtype, n: int | None) -> str | None:
    if device.type != "cuda" and not (device.type == "cpu" and CUDA_EMULATED is not None):
        return f"it serves CUDA tensors, got {device}"
    computed = (torch.float32, *CUDA_DTYPES.get(op, ()))
    if dtype not in computed:
        names = ", ".join(str(served).removeprefix("torch.") for served in computed)
        return f"it computes {op} in {names}, got {dtype}"
    return _too_many_nodes(op, n)


def _triton_refuses(op: str, device: torch.device, dtype: torch.dtype, n: int | None) -> str | None:
    if device.type != "cuda" and not (device.type == "cpu" and TRITON_INTERPRETED):
        return f"it serves CUDA tensors (on the CPU only in Triton's interpreter, TRITON_INTERPRET=1), got {device}"
    if dtype != torch.float32 and not (op == "recurrence" and dtype in (torch.float16, torch.bfloat16)):
        computed = "float32, float16 and bfloat16" if op == "recurrence" else "float32"
        return f"it computes {op} in {computed}, got {dtype}"
    return _too_many_nodes(op, n)


BACKENDS: tuple[Backend, ...] = (
    Backend("cpu", CPU_LIBRARY_MISSING, _cpu_refuses),
    Backend("cuda", CUDA_LIBRARY_MISSING, _cuda_refuses),
    Backend("triton", TRITON_MISSING, _triton_refuses),
    Backend("reference", None, lambda op, device, dtype, n: None),
)


def get_backend(name: str, *, argument: str = "backend") -> Backend:
    """The backend of that name.

    Raises:
        ValueError: the name is unknown.
    """
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    known = ", ".join(repr(backend.name) for backend in BACKENDS)
    raise ValueError(f"{argument} must be one of {known}, got {name!r}")


def refusal(backend: Backend, op: str, device: torch.device, dtype: torch.dtype, n: int | None = None) -> str | None:
    """Why `backend` cannot serve this op on tensors of this device and dtype, for n nodes if given, or None."""
    return backend.missing or backend.refuses(op, device, dtype, n)


def select_backend(
    op: str,
    requested: str | None,
    tensors: Sequence[Tensor | None],
    dtype: torch.dtype | None = None,
    n: int | None = None,
) -> str:
    """Name of the backend that serves this call (of the device and, if none is given, the dtype of the first tensor).

    `n` is the number of nodes, where a backend's kernels of the op are limited in it.

    Raises:
        ValueError: an unknown backend was named.
        RuntimeError: the named backend cannot serve the call, or no compiled backend serves the device.
    """
    first = next(tensor for tensor in tensors if tensor is not None)
    device, dtype = first.device, dtype or first.dtype
    source = "backend"
    if requested is None:
        requested, source = os.environ.get("VFRNN_BACKEND") or None, "VFRNN_BACKEND"
    if requested is not None:
        backend = get_backend(requested, argument=source)
        reason = refusal(backend, op, device, dtype, n)
        if reason is not None:
            raise RuntimeError(f"{op}: backend {requested!r} (from {source}) cannot serve this call: {reason}")
        return backend.name
    # The interpreter, and the reference on a GPU, serve who names them.
    left_out = "triton" if device.type in ("cpu", "meta") else "reference"
    reasons = []
    for backend in BACKENDS:
        if backend.name == left_out:
            continue
        reason = refusal(backend, op, device, dtype, n)
        if reason is None:
            if backend.name == "reference" and CPU_LIBRARY_MISSING is not None:
                _warn_uncompiled(CPU_LIBRARY_MISSING)
            return backend.name
        reasons.append(f"{backend.name}: {reason}")
    raise RuntimeError(
        f"{op}: no compiled backend serves {dtype} on {device} ({'; '.join(reasons)}); "
        "ask for backend='reference' (plain PyTorch, slow)"
    )


def _warn_uncompiled(reason: str) -> None:
    # `warnings` shows it once per process by default.
    warnings.warn(
        f"vfrnn_kernels runs on plain PyTorch (slow): the CPU kernels are {reason}", RuntimeWarning, stacklevel=4
    )
