"""Loads the compiled libraries of this package, once, and says why one did not load."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path

import torch

PACKAGE = Path(__file__).parent
CPU_LIBRARY, CUDA_LIBRARY = PACKAGE / "libvfrnn_cpu.so", PACKAGE / "libvfrnn_cuda.so"
OLDEST_TORCH = (2, 10)


#: Path of libvfrnn_cuda_simulated.so, which then is loaded in the place of the CPU kernels: the CUDA kernels, executed
#: on CPU tensors (tests/gpu_simulator). For tests, on a machine without a GPU.
CUDA_SIMULATED: str | None = os.environ.get("VFRNN_CUDA_SIMULATED") or None


def _load_cpu_library() -> str | None:
    if CUDA_SIMULATED is not None:
        return "left out: the simulated CUDA kernels take CPU tensors (VFRNN_CUDA_SIMULATED)"
    found = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if found < OLDEST_TORCH:
        return f"wrong torch: the compiled kernels need torch >= 2.10, this is {torch.__version__}"
    if not torch.backends.openmp.is_available():
        # csrc/common/barrier.h: threads that wait for each other must run at the same time
        return "made for a torch with OpenMP, which this one was built without"
    if not CPU_LIBRARY.exists():
        return f"not built: {CPU_LIBRARY} does not exist (reinstall vfrnn-kernels, or build it with `make build`)"
    return _load(CPU_LIBRARY) or _watch_signals()


def _watch_signals() -> str | None:
    # Ctrl-C ends an op before its end (csrc/common/interruption.h).
    try:
        host = importlib.import_module("vfrnn_kernels._host")
    except ImportError:  # made for another Python: the kernels serve without it, and `vfrnn doctor` says so
        return None
    try:
        host.watch_signals(str(CPU_LIBRARY))
    except (AttributeError, ValueError) as error:  # of another build
        return f"incomplete: {error} (reinstall vfrnn-kernels)"
    return None


def _load(library: Path) -> str | None:
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        return f"built, but {library} does not load: {error} (reinstall vfrnn-kernels, or build it from source here)"
    return None


def _load_cuda_library() -> str | None:
    if CUDA_SIMULATED is not None:
        torch.ops.load_library(CUDA_SIMULATED)
        return None
    if CPU_LIBRARY_MISSING is not None:
        return f"left out: the schemas of the ops come with the CPU kernels, which are {CPU_LIBRARY_MISSING}"
    if torch.version.cuda is None:
        return f"not for this torch: {torch.__version__} is not a CUDA build (install one to use a GPU)"
    if not CUDA_LIBRARY.exists():
        return (
            "not built: this installation has no libvfrnn_cuda.so "
            "(install the wheel without +cpu, or build with VFRNN_CUDA=ON, which needs nvcc)"
        )
    return _load(CUDA_LIBRARY)


def _find_triton() -> str | None:
    # Found, not imported: that takes a while, and only who uses it should wait.
    if importlib.util.find_spec("triton") is None:
        return "not installed: no package triton (`pip install triton`; a CUDA build of torch brings it)"
    return None


#: None when Triton is installed, else the reason why its kernels are not there.
TRITON_MISSING: str | None = _find_triton()

#: Whether Triton kernels run in Triton's interpreter, on CPU tensors: for tests, on a machine without a GPU.
TRITON_INTERPRETED: bool = os.environ.get("TRITON_INTERPRET") == "1"

#: None when the schemas and the CPU kernels are loaded, else the reason why they are not.
CPU_LIBRARY_MISSING: str | None = _load_cpu_library()

#: None when the CUDA kernels are loaded, else the reason why they are not.
CUDA_LIBRARY_MISSING: str | None = _load_cuda_library()

#: Whether the library ops have schemas: their fakes and autograd need one of the two.
HAS_SCHEMAS: bool = CPU_LIBRARY_MISSING is None or CUDA_SIMULATED is not None


def build_info() -> dict[str, str]:
    """Version, compiler and build options of the compiled part; empty when it was not built."""
    try:
        return dict(importlib.import_module("vfrnn_kernels._host").build_info())
    except ImportError:
        return {}
