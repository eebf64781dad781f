"""How much a long training run of changing lengths and batches, with evaluation in between, grows.

`python -m vfrnn_bench.soak JSON` runs one layer, in a fresh process. CPU and Linux only.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from vfrnn_bench.levels import resident

import vfrnn

HIDDEN, INPUT, MOST_STEPS, MOST_SAMPLES = 32, 4, 60, 16
STEPS, QUICK_STEPS = 20_000, 500
#: Megabytes after the first tenth of the steps.
TARGET = 50.0


def _times(x: Tensor) -> Tensor:
    return torch.rand(x.shape[:2]) + 0.5


def _field_at_rest() -> nn.Module:
    return vfrnn.InputFieldRNN(INPUT, HIDDEN, mesh=vfrnn.LatentMesh.random(HIDDEN, 16, 2))


#: Of every recurrent op: how a layer is made, and the times of its steps where it is called with them.
LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor] | None]] = {
    "recurrence": (lambda: vfrnn.RNN(INPUT, HIDDEN), None),
    "recurrence of a field": (lambda: vfrnn.VFRNN(INPUT, HIDDEN), None),
    "spectral_recurrence": (lambda: vfrnn.VFRNN(INPUT, HIDDEN), _times),
    "flow_recurrence": (_field_at_rest, None),
}


def soak(steps: int) -> Iterator[dict[str, Any]]:
    """Of every layer, with its sequence and its last state alone: the growth in megabytes."""
    for layer in LAYERS:
        for sequence in (True, False):
            yield in_a_process(layer, sequence, steps)


def in_a_process(layer: str, sequence: bool, steps: int) -> dict[str, Any]:
    """One layer, in a fresh process."""
    command = json.dumps({"layer": layer, "sequence": sequence, "steps": steps})
    process = [sys.executable, "-m", "vfrnn_bench.soak", command]
    return json.loads(subprocess.run(process, capture_output=True, text=True, check=True).stdout)


def measure(layer: str, sequence: bool, steps: int) -> dict[str, Any]:
    """One layer, in this process: every fifth step evaluates."""
    torch.manual_seed(0)
    draw = random.Random(0)
    make, times = LAYERS[layer]
    module = make()
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    start = 0.0
    for step in range(steps):
        x = torch.randn(draw.randint(1, MOST_STEPS), draw.randint(1, MOST_SAMPLES), INPUT)
        more = {} if times is None else {"dt": times(x)}
        if step % 5 == 4:
            with torch.no_grad():
                module(x, return_sequence=sequence, **more)
        else:
            output, h_n = module(x, return_sequence=sequence, **more)
            (output.square().mean() + h_n.square().mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
        if step == steps // 10:
            start = resident()
    return {
        "layer": layer, "sequence": sequence, "steps": steps, "grown_mib": resident() - start, "target": TARGET,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
