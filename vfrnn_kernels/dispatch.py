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

from vfrnn_kernels import cuda_device
from vfrnn_kernels.declaration import OPS
from vfrnn_kernels.loader import (
    CPU_LIBRARY_MISSING,
    CUDA_LIBRARY_MISSING,
    CUDA_SIMULATED,
    TRITON_INTERPRETED,
    TRITON_MISSING,
)


@dataclass(frozen=True)
class Backend:
    """A way to run an op. `missing` says why it did not load, `refuses(op, device, dtype, n)` why it cannot serve."""

    name: str
    missing: str | None
    refuses: Callable[[str, torch.device, torch.dtype, int | None], str | None]


def _cpu_refuses(op: str, device: torch.device, dtype: torch.dtype, n: int | None) -> str | None:
    if device.type not in ("cpu", "meta"):
        return f"it serves CPU tensors, got {device}"
    return OPS[op].refuses("cpu", dtype, n)


def _cuda_refuses(op: str, device: torch.device, dtype: torch.dtype, n: int | None) -> str | None:
    if device.type != "cuda" and not (device.type == "cpu" and CUDA_SIMULATED is not None):
        return f"it serves CUDA tensors, got {device}"
    return OPS[op].refuses("cuda", dtype, n) or (None if CUDA_SIMULATED is not None else cuda_device.refusal(device))


def _triton_refuses(op: str, device: torch.device, dtype: torch.dtype, n: int | None) -> str | None:
    if device.type != "cuda" and not (device.type == "cpu" and TRITON_INTERPRETED):
        return f"it serves CUDA tensors (on the CPU only in Triton's interpreter, TRITON_INTERPRET=1), got {device}"
    return OPS[op].refuses("triton", dtype, n)


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
    if isinstance(name, str):
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
    reasons: list[str] = []
    for backend in BACKENDS:
        if backend.name == left_out:
            continue
        reason = refusal(backend, op, device, dtype, n)
        if reason is None:
            if backend.name == "reference" and device.type == "cpu" and not torch.compiler.is_compiling():
                _warn_of_the_reference(op, reasons[0])
            return backend.name
        reasons.append(f"{backend.name}: {reason}")
    raise RuntimeError(
        f"{op}: no compiled backend serves {dtype} on {device} ({'; '.join(reasons)}); "
        "ask for backend='reference' (plain PyTorch, slow)"
    )


#: The ops and reasons that were told: once in a process.
_warned: set[tuple[str, str]] = set()


def _warn_of_the_reference(op: str, reason: str) -> None:
    if (op, reason) not in _warned:
        _warned.add((op, reason))
        warnings.warn(f"{op} runs on plain PyTorch (slow); {reason}", RuntimeWarning, stacklevel=4)
