"""Cost of a step of the recurrence by count, from the SASS of sm_90a: `python -m tests.gpu_simulator.cost`.

Prints a table; `step_costs(...)` returns the same numbers. Needs `make simulator` with the SASS; runs two launches per
row in a process of its own.

A thread's path through the machine code is followed by the simulator. Each instruction's control word says after how
many cycles the warp may issue the next one, and whether it waits for a scoreboard. A step's numbers are those of T = 16
less those of T = 8, divided by 8, so that what is done once per launch falls out; they are of the busiest thread, the
opcodes of the first thread of the first block. Stall cycles are a lower bound of a step on one warp: what a wait waits
for (memory, barriers, tensor cores) comes on top, and so do other warps of the same scheduler. Compare versions of a
kernel with them; they are no times.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.gpu_simulator.run import BUILD, ROOT, environment

T = (8, 16)


@dataclass(frozen=True)
class StepCost:
    """Of one step: issued instructions, stall cycles, waits for a scoreboard; opcodes of the first thread."""

    kernel: str
    instructions: float
    stalls: float
    waits: float
    opcodes: dict[str, float]


def launches(n: int, dtype: str, steps: int, *, batch: int, route: str, activation: str, build: Path) -> list[dict]:
    """What the simulator logged of a recurrence and its backward."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "launches"
        arguments = [str(value) for value in (n, dtype, steps, batch, activation)]
        subprocess.run(
            [sys.executable, "-m", "tests.gpu_simulator.cost", "--one", *arguments],
            env={**environment(build, sass=1, sms=1, log=log), "VFRNN_RECURRENCE_ROUTE": route},
            cwd=ROOT,
            check=True,
        )
        return [json.loads(line) for line in log.read_text().splitlines()]


def run_one(n: str, dtype: str, steps: str, batch: str, activation: str) -> None:
    """In a process that simulates: one recurrence, forward and backward."""
    import torch

    from tests.cases import beta_for
    from vfrnn_kernels import recurrence

    torch.manual_seed(1)
    size, samples = int(n), int(batch)
    x, U, M = torch.randn(int(steps), samples, 3), torch.randn(size, 3), torch.randn(size, size) * 0.4 / size**0.5
    tensors = [x, U, torch.zeros(size), M, torch.zeros(samples, size), beta_for(activation, size)]
    *leaves, beta = [t if t is None else t.to(getattr(torch, dtype)).requires_grad_() for t in tensors]
    recurrence(*leaves, activation, beta, backend="cuda").sum().backward()


def step_costs(
    n: int, dtype: str, *, batch: int = 16, route: str = "cta", activation: str = "tanh", build: Path = BUILD
) -> dict[str, StepCost]:
    """By "forward" and "backward"."""
    few, many = (launches(n, dtype, steps, batch=batch, route=route, activation=activation, build=build) for steps in T)
    found = {}
    for a, b in zip(few, many, strict=True):
        match = re.search(r"persistent_kernel\w*?Lb([01])E", a["kernel"])
        if match is None:
            continue
        assert a["kernel"] == b["kernel"]
        per_step = {key: (b[key] - a[key]) / (T[1] - T[0]) for key in ("instructions", "stalls", "waits")}
        opcodes = {
            opcode: (count - a["opcodes"].get(opcode, 0)) / (T[1] - T[0]) for opcode, count in b["opcodes"].items()
        }
        way = "backward" if match[1] == "1" else "forward"
        found[way] = StepCost(a["kernel"], **per_step, opcodes={k: v for k, v in opcodes.items() if v != 0})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=BUILD, help="folder of CMake's build (default %(default)s)")
    parser.add_argument("--route", default="cta", choices=["cta", "cluster"])
    parser.add_argument("--n", type=int, nargs="+", default=[64, 128, 192, 256])
    parser.add_argument("--dtype", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--opcodes", action="store_true", help="and how often each opcode is issued")
    options = parser.parse_args()
    print("| n | type | | instructions | stall cycles | waits |\n|--:|---|---|--:|--:|--:|")
    for n, dtype in itertools.product(options.n, options.dtype):
        if (options.route, n, dtype) == ("cta", 256, "float32"):
            continue  # M does not fit in one block
        for way, cost in step_costs(n, dtype, route=options.route, build=options.build.resolve()).items():
            numbers = f"{cost.instructions:.0f} | {cost.stalls:.0f} | {cost.waits:.0f}"
            print(f"| {n} | {dtype} | {way} | {numbers} |", flush=True)
            if options.opcodes:
                ordered = sorted(cost.opcodes.items(), key=lambda item: -item[1])
                print("  ", ", ".join(f"{opcode} {count:.3g}" for opcode, count in ordered), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        run_one(*sys.argv[2:])
    else:
        main()
