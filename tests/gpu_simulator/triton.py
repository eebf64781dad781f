"""The Triton kernels on the simulator: what Triton compiled ahead of time, launched in the place of Triton's own.

The PTX is that of sm_80: mma.sync, ldmatrix and cp.async, which the simulator executes; for sm_90 Triton may use wgmma,
which it does not.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vfrnn_kernels import dispatch
from vfrnn_kernels.loader import CUDA_SIMULATED
from vfrnn_kernels.triton_runtime import KernelSpec, compile_spec

ARCH = 80


@functools.cache
def simulator() -> ctypes.CDLL:
    library = ctypes.CDLL(CUDA_SIMULATED)
    library.simulate_ptx.restype = ctypes.c_char_p
    return library


@functools.cache
def folder() -> tempfile.TemporaryDirectory:
    """Of the PTX files, for as long as the process lives."""
    return tempfile.TemporaryDirectory()


#: By configuration: file of the PTX, bytes of shared memory, parameters that Triton adds behind those of the kernel.
_compiled: dict[Any, tuple[Path, int, int]] = {}


def compiled(spec: KernelSpec) -> tuple[Path, int, int]:
    key = spec.name, tuple(spec.signature.items())
    if key not in _compiled:
        kernel = compile_spec(spec, ARCH)
        path = Path(folder().name) / f"{len(_compiled)}.ptx"
        path.write_text(kernel.asm["ptx"])
        head = kernel.asm["ptx"].split(".entry", 1)[1].split("{", 1)[0]
        _compiled[key] = path, kernel.metadata.shared, head.count(".param")
    return _compiled[key]


def bits(kind: str, value: Any) -> int:
    """Of an argument, in the low bytes."""
    if kind.startswith("*"):
        return 0 if value is None else value.data_ptr()
    if kind == "fp32":
        return struct.unpack("<I", struct.pack("<f", float(value)))[0]
    return int(value) % 2**64


def simulated_launch(spec: KernelSpec, grid: Sequence[int], *arguments: Any) -> None:
    """In the place of KernelSpec.launch."""
    path, shared, count = compiled(spec)
    given = [bits(kind, value) for kind, value in zip(spec.signature.values(), arguments, strict=True)]
    given += [0] * (count - len(given))  # scratch memory of Triton, which these kernels do not use
    blocks = [*grid, 1, 1][:3]
    if 0 in blocks:
        return
    wrong = simulator().simulate_ptx(
        str(path).encode(),
        spec.kernel.__name__.encode(),
        (ctypes.c_uint32 * 3)(*blocks),
        32 * spec.num_warps,
        ctypes.c_int64(shared),
        (ctypes.c_uint64 * len(given))(*given),
        len(given),
    )
    if wrong:
        raise RuntimeError(f"{spec.name}: {wrong.decode()}")


def simulate(monkeypatch: Any) -> None:
    """The backend triton serves CPU tensors, by its compiled code."""
    monkeypatch.setenv("VFRNN_SIMULATOR_DEVICE", "8.0")
    monkeypatch.setattr(dispatch, "TRITON_INTERPRETED", True)
    monkeypatch.setattr(KernelSpec, "launch", simulated_launch)
