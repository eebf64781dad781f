"""`python -m vfrnn_bench.gpu.sanitized`: one small case of every CUDA kernel, both passes, for compute-sanitizer."""

from __future__ import annotations

import os

import torch

from tests.backends.gpu_cases import CASES, DEVICE, Case, gradients, recurrence_case
from vfrnn_kernels.dispatch import get_backend, refusal

#: Sizes at which the ops take their routes: on the chip, in a cluster, step by step; one block per matrix, tiles; the
#: basis on the chip, or not.
ROUTES = {"cta": (33, 190), "cluster": (300,), "steps": (33,)}
LARGE = {"skew_expm": 150, "strang_step": 150, "spectral_recurrence": 250}


def run(name: str, case: Case) -> None:
    """Forward and backward, finished."""
    leaves = case.leaves()
    outputs = case.run(leaves, "cuda")
    found = gradients(outputs, leaves, [torch.ones_like(output) for output in outputs])
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    print(name, all(bool(t.isfinite().all()) for t in found), flush=True)


def main() -> None:
    """Every op, and the recurrence by every route and in every type."""
    torch.manual_seed(0)
    for name, make in CASES.items():
        served = refusal(get_backend("cuda"), name.split()[0], DEVICE, torch.float32) is None
        if name != "recurrence" and served:
            run(name, make(17))
    for name, n in LARGE.items():
        run(f"{name} n {n}", CASES[name](n))
    for route, sizes in ROUTES.items():
        os.environ["VFRNN_RECURRENCE_ROUTE"] = route
        for n in sizes:
            for dtype in (torch.float32, torch.bfloat16):
                run(f"recurrence {route} n {n} {dtype}", recurrence_case(n, dtype, T=4, B=10))


if __name__ == "__main__":
    main()
