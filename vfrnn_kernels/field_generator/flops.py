"""Products of a generator on a dense mesh, N^T W [v] G and G^T W v; the complete mesh has none."""

from collections.abc import Mapping
from typing import Any

from vfrnn_kernels.declaration import Flops, Sizes


def _forward(sizes: Sizes, named: Mapping[str, Any]) -> int:
    if named["N"] is None:
        return 0
    K, n, m, d = (sizes[letter] for letter in "Knmd")
    return 2 * K * m * n * (n + 2 * d)


def _backward(sizes: Sizes, named: Mapping[str, Any], wanted: frozenset[str]) -> int:
    if named["N"] is None:
        return 0
    K, n, m, d = (sizes[letter] for letter in "Knmd")
    wide = bool(wanted & {"w", "v", "G"}) + ("N" in wanted)  # products with the gradient of S
    narrow = bool(wanted & {"w", "N"}) + ("v" in wanted) + ("G" in wanted)  # with G, v and w
    return 2 * K * m * n * (n * wide + d * narrow)


FLOPS = Flops(_forward, _backward)
