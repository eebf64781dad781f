"""Runs every op once on the GPU, so that its kernels are compiled and cached before the first training step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch

from vfrnn_kernels.declaration import OPS, Sample
from vfrnn_kernels.dispatch import get_backend, refusal
from vfrnn_kernels.loader import TRITON_MISSING

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def warm_up(hidden_size: int, dtypes: Sequence[str], ops: Sequence[str]) -> Iterator[tuple[str, float | str]]:
    """Runs forward and backward of the ops; yields each with the seconds it took, or why it does not serve this n.

    Args:
        hidden_size: n.
        dtypes: of the recurrence, of DTYPES; the other ops compute in float32.
        ops: of `vfrnn_kernels.declaration.OPS`.

    Raises:
        RuntimeError: there is no GPU or no Triton.
    """
    if TRITON_MISSING is not None:
        raise RuntimeError(f"nothing to warm up: Triton is {TRITON_MISSING}")
    if not torch.cuda.is_available():
        raise RuntimeError("nothing to warm up: torch sees no GPU on this machine")
    for name in ops:
        refused = refusal(get_backend("triton"), name, torch.device("cuda"), torch.float32, hidden_size)
        if refused is not None:
            yield name, refused
            continue
        started = time.perf_counter()
        for sample in samples(name, hidden_size, [DTYPES[dtype] for dtype in dtypes]):
            run(name, sample, "cuda", "triton")
        torch.cuda.synchronize()
        yield name, time.perf_counter() - started


def samples(op: str, n: int, dtypes: Sequence[torch.dtype]) -> Iterator[Sample]:
    """One call for every kernel that the op needs at this n."""
    for variation in OPS[op].variations(n, dtypes):
        yield OPS[op].sample(n, **variation)


def run(op: str, sample: Sample, device: str, backend: str) -> None:
    """Forward and backward of one call."""
    arguments = {k: t.to(device) if isinstance(t, torch.Tensor) else t for k, t in sample.arguments.items()}
    leaves = [arguments[name].requires_grad_() for name in sample.leaves]
    outputs = OPS[op].function(**arguments, backend=backend)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    torch.autograd.grad(outputs, leaves, [torch.ones_like(output) for output in outputs])
