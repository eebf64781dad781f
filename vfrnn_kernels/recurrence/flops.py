"""Products of the recurrence: equations (1) to (3) of README.md."""

from collections.abc import Mapping
from typing import Any

from vfrnn_kernels.declaration import Flops, Sizes


def _forward(sizes: Sizes, named: Mapping[str, Any]) -> int:
    T, B, n, i = (sizes[letter] for letter in "TBni")
    return 2 * T * B * n * (n + i)


def _backward(sizes: Sizes, named: Mapping[str, Any], wanted: frozenset[str]) -> int:
    T, B, n, i = (sizes[letter] for letter in "TBni")
    # grad_z of a step from that of the next one; that of h0 from the first step's
    steps = max(T - 1, 0) + (T > 0 and "h0" in wanted)
    return 2 * B * n * (n * (steps + T * ("M" in wanted)) + T * i * (("U" in wanted) + ("x" in wanted)))


FLOPS = Flops(_forward, _backward)
