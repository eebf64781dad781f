"""Peak memory and time of training steps on very long sequences, of which only the last state is wanted.

`python -m vfrnn_bench.long_memory JSON` measures one of them, in a fresh process. CPU and Linux only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from vfrnn_bench.growth import peak

import vfrnn

HIDDEN, INPUT = 64, 4
STEPS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
QUICK_STEPS = (10_000, 100_000)
#: What is measured: the layer, and whether it returns the sequence.
KINDS = {
    "vfrnn.VFRNN, all states": (lambda: vfrnn.VFRNN(INPUT, HIDDEN), True),
    "vfrnn.VFRNN, return_sequence=False": (lambda: vfrnn.VFRNN(INPUT, HIDDEN), False),
    "vfrnn.OrthogonalRNN, identity, return_sequence=False": (
        lambda: vfrnn.OrthogonalRNN(INPUT, HIDDEN, nonlinearity="identity"),
        False,
    ),
}


def long_memory(steps: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Bytes at the peak beyond the inputs, and seconds, of a training step of one sequence, over T."""
    for kind in KINDS:
        found = [in_fresh_process(kind, T) for T in steps]
        yield {
            "provider": kind,
            "steps": steps,
            "bytes": [row["bytes"] for row in found],
            "seconds": [row["seconds"] for row in found],
        }


def in_fresh_process(kind: str, T: int) -> dict[str, float]:
    """What `measure` finds in a process of its own."""
    command = [sys.executable, "-m", "vfrnn_bench.long_memory", json.dumps({"kind": kind, "T": T})]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(kind: str, T: int) -> dict[str, float]:
    """One layer on one length, in this process."""
    torch.manual_seed(0)
    make, sequence = KINDS[kind]
    layer, x = make(), torch.randn(T, 1, INPUT)

    def step(x: torch.Tensor) -> None:
        output = layer(x, return_sequence=sequence)[0]
        (output[-1] if sequence else output).sum().backward()

    step(x[:10])  # what a first call loads is not what a sequence costs
    peak_bytes = peak(lambda: step(x))
    start = time.perf_counter()
    step(x)
    return {"bytes": peak_bytes, "seconds": time.perf_counter() - start}


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
