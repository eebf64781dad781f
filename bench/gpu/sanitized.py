"""`python -m vfrnn_bench.gpu.sanitized`: small cases of every CUDA kernel, both passes, for compute-sanitizer."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import torch

from vfrnn_kernels.activations import ACTIVATIONS
from vfrnn_kernels.declaration import OPS
from vfrnn_kernels.dispatch import get_backend, refusal
from vfrnn_kernels.loader import CUDA_SIMULATED

DEVICE, BACKEND = torch.device("cpu" if CUDA_SIMULATED else "cuda"), "cuda"
#: The recurrence takes the route that the environment names, at these sizes and in these types.
ROUTES = {"cta": (33, 190), "cluster": (300,), "steps": (33,)}
DTYPES = (torch.float32, torch.bfloat16)


def run(op: str, n: int, **variation: Any) -> None:
    """Forward and backward, finished."""
    sample = OPS[op].sample(n, **variation)
    arguments = {k: t.to(DEVICE) if isinstance(t, torch.Tensor) else t for k, t in sample.arguments.items()}
    leaves = [arguments[name].requires_grad_() for name in sample.leaves]
    outputs = OPS[op].function(**arguments, backend=BACKEND)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    found = torch.autograd.grad(outputs, leaves, [torch.ones_like(output) for output in outputs])
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    words = ", ".join(f"{name} {value}" for name, value in variation.items())
    finite = all(bool(t.isfinite().all()) for t in found)
    print(f"{op} n {n} {words}: {'finite' if finite else 'NOT FINITE'}", flush=True)


def variations(op: str, n: int) -> Iterator[dict[str, Any]]:
    """What differs in its kernels; meshes and their fields of a size that the simulator finishes."""
    yield {}
    for variation in OPS[op].variations(n, [torch.float32]):
        if variation.get("m", 0) <= 64 and variation.get("activation", ACTIVATIONS[0]) == ACTIVATIONS[0]:
            yield variation


def main() -> None:
    """Every op by every route, and the recurrence in every type."""
    torch.manual_seed(0)
    for op, declared in OPS.items():
        if op == "recurrence" or refusal(get_backend(BACKEND), op, DEVICE, torch.float32) is not None:
            continue
        for n in declared.route_sizes:
            for variation in variations(op, n) if n < 64 else ({},):
                run(op, n, **variation)
    for route, sizes in ROUTES.items():
        os.environ["VFRNN_RECURRENCE_ROUTE"] = route
        for n, dtype in itertools.product(sizes, DTYPES):
            run("recurrence", n, dtype=dtype, T=4, B=10)


if __name__ == "__main__":
    main()
