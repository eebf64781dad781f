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

from vfrnn_kernels.loader import CPU_LIBRARY_MISSING, TRITON_INTERPRETED, TRITON_MISSING


@dataclass(frozen=True)
class Backend:
    """A way to run an op. `missing` says why it did not load, `refuses(op, device, dtype)` why it cannot serve."""

    name: str
    missing: str | None
    refuses: Callable[[str, torch.device, torch.dtype], str | None]


def _cpu_refuses(op: str, device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type not in ("cpu", "meta"):
        return f"it serves CPU tensors, got {device}"
    if dtype not in (torch.float32, torch.float64):
        return f"it computes in float32 and float64, got {dtype}"
    return None


def _triton_refuses(op: str, device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cuda" and not (device.type == "cpu" and TRITON_INTERPRETED):
        return f"it serves CUDA tensors (on the CPU only in Triton's interpreter, TRITON_INTERPRET=1), got {device}"
    if op == "recurrence" and dtype in (torch.float32, torch.float16, torch.bfloat16):
        return None
    if dtype != torch.float32:
        computed = "float32, float16 and bfloat16" if op == "recurrence" else "float32"
        return f"it computes {op} in {computed}, got {dtype}"
    return None


BACKENDS: tuple[Backend, ...] = (
    Backend("cpu", CPU_LIBRARY_MISSING, _cpu_refuses),
    Backend("triton", TRITON_MISSING, _triton_refuses),
    Backend("reference", None, lambda op, device, dtype: None),
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


def refusal(backend: Backend, op: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why `backend` cannot serve this op on tensors of this device and dtype, or None."""
    return backend.missing or backend.refuses(op, device, dtype)


def select_backend(
    op: str, requested: str | None, tensors: Sequence[Tensor | None], dtype: torch.dtype | None = None
) -> str:
    """Name of the backend that serves this call (of the device and, if none is given, the dtype of the first tensor).

    Raises:
        ValueError: an unknown backend was named.
        RuntimeError: the named backend cannot serve the call, or no compiled backend serves the device.
    """
    first = next(tensor for tensor in tensors if tensor is not None)
    device, dtype = first.device, dtype or first.dtype
    source = "backend"
    if requested is None and os.environ.get("VFRNN_BACKEND"):
        requested, source = os.environ["VFRNN_BACKEND"], "VFRNN_BACKEND"
    if requested is not None:
        backend = get_backend(requested, argument=source)
        reason = refusal(backend, op, device, dtype)
        if reason is not None:
            raise RuntimeError(f"{op}: backend {requested!r} (from {source}) cannot serve this call: {reason}")
        return backend.name
    if device.type in ("cpu", "meta"):
        # The interpreter serves who names it.
        candidates = [backend for backend in BACKENDS if backend.name != "triton"]
    else:
        candidates = [backend for backend in BACKENDS if backend.name != "reference"]
    reasons = {backend.name: refusal(backend, op, device, dtype) for backend in candidates}
    for name, reason in reasons.items():
        if reason is None:
            if name == "reference" and CPU_LIBRARY_MISSING is not None:
                _warn_uncompiled(CPU_LIBRARY_MISSING)
            return name
    raise RuntimeError(
        f"{op}: no compiled backend serves {dtype} on {device} "
        f"({'; '.join(f'{name}: {reason}' for name, reason in reasons.items())}); "
        "ask for backend='reference' (plain PyTorch, slow)"
    )


def _warn_uncompiled(reason: str) -> None:
    # `warnings` shows it once per process by default.
    warnings.warn(
        f"vfrnn_kernels runs on plain PyTorch (slow): the CPU kernels are {reason}", RuntimeWarning, stacklevel=4
    )
