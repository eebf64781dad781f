"""What was measured, and on what machine; and what that machine reaches."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from vfrnn_bench.gpu.timing import clock_of
from vfrnn_bench.timing import Budget, Run, within

from vfrnn_kernels.loader import CPU_LIBRARY_MISSING, build_info

#: What holds this package, PyTorch and its libraries of products to an older instruction set than the CPU has.
ISA_LIMITS = ("VFRNN_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")

#: As few rounds as there are: the best of them counts.
FEW = Budget(0.0)


def machine(device: torch.device) -> dict[str, Any]:
    """The device, the versions and the build, as JSON."""
    found: dict[str, Any] = {
        "device": cpu_name(),
        "type": device.type,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "isa": torch.ops.vfrnn_kernels.cpu_isa() if CPU_LIBRARY_MISSING is None else None,
        "limits": {name: os.environ[name] for name in ISA_LIMITS if os.environ.get(name)},
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "build": build_info(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def cpu_name() -> str:
    """As the kernel tells it; the machine type where it does not."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str:
    """VFRNN_COMMIT where it is set, else as git names the working tree; empty outside a checkout."""
    folder = str(Path(__file__).parent)
    return os.environ.get("VFRNN_COMMIT") or _output("git", "-C", folder, "describe", "--always", "--dirty")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


# ---- ceilings --------------------------------------------------------------------------------------------------------


def large_product(device: torch.device, n: int = 1536, dtype: torch.dtype = torch.float32) -> tuple[Run, float]:
    """A product through PyTorch that is as fast as products are there, and its flops."""
    A, B = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(A)
    return lambda: torch.mm(A, B, out=out), 2.0 * n**3


def gemm_ceiling(
    device: torch.device, n: int = 1536, dtype: torch.dtype = torch.float32, budget: Budget = FEW
) -> float:
    """Flops per second of a large product, the best of the rounds."""
    product, flops = large_product(device, n, dtype)
    return flops / best(device, product, budget)


def copy_ceiling(device: torch.device, megabytes: int = 256, budget: Budget = FEW) -> float:
    """Bytes per second, read and written, of a large copy, the best of the rounds."""
    source = torch.randn(megabytes * 2**20 // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best(device, lambda: target.copy_(source), budget)


def best(device: torch.device, run: Run, budget: Budget) -> float:
    """The least of the seconds of `run`."""
    return min(within(budget, {"": run}, clock_of(device))[""])
