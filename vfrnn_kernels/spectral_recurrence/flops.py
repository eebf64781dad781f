"""Products of a recurrence in the planes of a generator: into them and out of them in every substep, and the sums over
all steps of gradients.py. Finding the planes counts as nothing, like every decomposition in PyTorch."""

from collections.abc import Mapping
from typing import Any

from vfrnn_kernels.declaration import Flops, Sizes
from vfrnn_kernels.spectral_recurrence.gradients import TERMS


def _planes(sizes: Sizes) -> int:
    """Rows of the basis."""
    return 2 * ((sizes["n"] + 1) // 2)


def _forward(sizes: Sizes, named: Mapping[str, Any]) -> int:
    T, B, n, i = (sizes[letter] for letter in "TBni")
    return 2 * T * B * n * (i + 2 * _planes(sizes) * named["substeps"])


def _backward(sizes: Sizes, named: Mapping[str, Any], wanted: frozenset[str]) -> int:
    T, B, n, i = (sizes[letter] for letter in "TBni")
    planes, steps = _planes(sizes), T * B * named["substeps"]
    found = 4 * steps * planes * n + 2 * T * B * n * i * (("x" in wanted) + ("U" in wanted))
    if wanted & {"S", "delta", "dt"}:
        narrow = 2 if named["delta"] is None else 5
        found += 2 * steps * planes * (n * narrow + planes * (2 + TERMS[named["x"].dtype]))
        found += 2 * planes * n * (planes + n)
    return found


FLOPS = Flops(_forward, _backward)
