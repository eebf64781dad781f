"""`python -m tests.gpu_simulator.devices [--every]`: every op on a simulated device, all its launches planned for it.

In a process that simulates (run.environment) the device that VFRNN_SIMULATOR_DEVICE and its like describe. Launches are
checked and not executed: shared memory, clusters, cooperative grids that must fit. n goes from 1 to 2048, with --every
by ones, else by steps above 320; batches and meshes of several sizes go along.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vfrnn_kernels.declaration import OPS, Op
from vfrnn_kernels.dispatch import get_backend, refusal

LARGEST_N = 2048
#: What an op has beside its sample: kernels of their own.
VARIATIONS: dict[str, dict[str, Any]] = {"field_generator": {"complete": True}, "field_flow": {"per_sample": True}}
#: What letters stand for goes through these as n grows; 600 samples fill several waves.
BATCHES, CELLS = (1, 3, 17, 600), (1, 12, 300)


def arguments(op: Op, n: int, dtype: torch.dtype, variation: dict[str, Any]) -> dict[str, Any]:
    """Those of the op's sample, with its tensors replaced by zeros of other sizes."""
    letters = {
        "n": n,
        "B": BATCHES[n % len(BATCHES)],
        "m": CELLS[n % len(CELLS)],
        "k": min(n, 3),
        "T": 2,
        "K": 2,
        "i": 2,
    }
    found = op.sample(5, **variation).arguments
    letters["d"] = found["G"].shape[1] if isinstance(found.get("G"), Tensor) else 1
    if variation.get("complete"):
        letters["m"] = n * (n - 1) // 2
    for declared in op.inputs:
        if isinstance(found.get(declared.name), Tensor) and declared.shape:
            shape = (*(["K"] if declared.batched else []), *declared.shapes[-1 if variation.get("per_sample") else 0])
            found[declared.name] = torch.zeros([letters[letter] for letter in shape], dtype=dtype, requires_grad=True)
    return found


def sizes(every: bool) -> Iterator[int]:
    yield from range(1, 321)
    yield from range(321, LARGEST_N + 1, 1 if every else 61)
    if not every:
        yield LARGEST_N


def call(op: Op, n: int, dtype: torch.dtype, variation: dict[str, Any]) -> None:
    """Forward and backward."""
    if op.name == "spectral_recurrence":
        call_chains(n, dtype)
        return
    outputs = op.function(**arguments(op, n, dtype, variation), backend="cuda")
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    torch.autograd.backward(outputs, [torch.zeros_like(output) for output in outputs])


def call_chains(n: int, dtype: torch.dtype) -> None:
    """The kernels of spectral_recurrence, without the decomposition of S before them."""
    T, B = 2, BATCHES[n % len(BATCHES)]
    basis, omega = torch.zeros(2, (n + 1) // 2, n, dtype=dtype), torch.zeros((n + 1) // 2, dtype=dtype)
    flow = (torch.zeros(n, dtype=dtype), torch.zeros(T, B, dtype=dtype))
    hs, h0 = torch.zeros(T, B, n, dtype=dtype), torch.zeros(B, n, dtype=dtype)
    torch.ops.vfrnn_kernels.spectral_recurrence_states(hs, *flow, h0, None, basis, omega, "tanh", 1)
    torch.ops.vfrnn_kernels.spectral_recurrence_grad_z(hs.clone(), *flow, basis, omega, hs, "tanh", 1)


def launches_that_fail(op: Op, every: bool) -> Iterator[str]:
    """Calls the op and its backward in all sizes, types and variations."""
    variations = [{}, *([VARIATIONS[op.name]] if op.name in VARIATIONS else [])]
    for n, dtype, variation in itertools.product(sizes(every), op.serves["cuda"], variations):
        if refusal(get_backend("cuda"), op.name, torch.device("cpu"), dtype, n) is not None:
            continue
        try:
            call(op, n, dtype, variation)
        except RuntimeError as error:
            yield f"{op.name}, n {n}, {dtype} {variation}: {error}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", action="store_true", help="every n up to 2048")
    options = parser.parse_args()
    os.environ["VFRNN_SIMULATOR_PLAN"] = "1"
    failed = 0
    for name, op in OPS.items():
        start = time.monotonic()
        for message in launches_that_fail(op, options.every):
            print(message)
            failed += 1
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(min(main(), 99))
