"""`vfrnn warmup`: compiles and caches the GPU kernels, so that the first training step does not wait for them."""

from __future__ import annotations

import argparse
from typing import Any

from vfrnn.warmup import DTYPES, warm_up
from vfrnn_kernels.declaration import OPS


def add_parser(commands: Any) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "warmup",
        help="compile and cache the GPU kernels",
        description="Compiles and caches the Triton kernels for a hidden size, on the machine's GPU.",
    )
    parser.add_argument("--hidden-size", type=int, nargs="+", default=[128], metavar="N", help="default: 128")
    parser.add_argument(
        "--dtype", nargs="+", choices=tuple(DTYPES), default=["float32"], help="of the recurrence; default: float32"
    )
    parser.add_argument("--ops", nargs="+", choices=OPS, default=list(OPS), help="default: all")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Warm up and print the seconds of each op, or why it does not serve this size."""
    for n in arguments.hidden_size:
        if n < 1:
            raise RuntimeError(f"--hidden-size must be at least 1, got {n}")
        for op, result in warm_up(n, arguments.dtype, arguments.ops):
            print(f"{op:<16} n = {n:<6} {f'left out: {result}' if isinstance(result, str) else f'{result:6.1f} s'}")
    return 0
