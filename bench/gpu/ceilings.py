"""What a GPU reaches: products, a copy, launches."""

from __future__ import annotations

import torch
from torch import Tensor
from vfrnn_bench.gpu.timing import graphed
from vfrnn_bench.machine import best, copy_ceiling, gemm_ceiling
from vfrnn_bench.timing import Budget

BUDGET = Budget(0.5, most=60, sample=1e-3)


def ceilings(device: torch.device, quick: bool) -> dict[str, float]:
    """On random data: products in TFLOP/s, a copy in TB/s (read and written), launches in microseconds."""
    found = {}
    before = torch.backends.cuda.matmul.allow_tf32
    for name, dtype in {"bf16": torch.bfloat16, "fp32": torch.float32, "tf32": torch.float32}.items():
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        found[f"gemm_{name}_tflops"] = gemm_ceiling(device, 512 if quick else 8192, dtype, BUDGET) / 1e12
    torch.backends.cuda.matmul.allow_tf32 = before
    # 4 GB: far beyond the L2 cache
    found["copy_tb_s"] = copy_ceiling(device, 4 if quick else 4096, BUDGET) / 1e12
    return found | launches(device)


def launches(device: torch.device, count: int = 1000) -> dict[str, float]:
    """Microseconds of a kernel that does next to nothing: launched by PyTorch, and as a node of a CUDA graph."""
    one = torch.zeros(1, device=device)

    def run() -> Tensor:
        for _ in range(count):
            one.add_(1)
        return one

    found = {"launch_us": 1e6 * best(device, run, BUDGET) / count}
    if device.type == "cuda":
        found["graph_node_us"] = 1e6 * best(device, graphed(run), BUDGET) / count
    return found
