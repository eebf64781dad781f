"""Products of a recurrence along fields that read the input: those of `field_flow` in every step, U x and V x."""

from collections.abc import Mapping
from typing import Any

from vfrnn_kernels.declaration import Flops, Sizes
from vfrnn_kernels.field_flow.flops import backward_of, forward_of, planned

_ORDER = 8  # what a field_flow has unless it is planned


def _terms(named: Mapping[str, Any]) -> int:
    taken = named.get("taken")
    return planned(taken, 0, named["substeps"], 1) * planned(taken, 1, named["order"], _ORDER)


def _forward(sizes: Sizes, named: Mapping[str, Any]) -> int:
    T, B, n, m, d, i = (sizes[letter] for letter in "TBnmdi")
    return T * (forward_of(B, B, n, m, d, _terms(named)) + 2 * B * i * (n + m * d))


def _backward(sizes: Sizes, named: Mapping[str, Any], wanted: frozenset[str]) -> int:
    T, B, n, m, d, i = (sizes[letter] for letter in "TBnmdi")
    inputs = n * (("x" in wanted) + ("U" in wanted)) + m * d * (1 + ("x" in wanted) + ("V" in wanted))
    of_the_flow = wanted | ({"v"} if wanted & {"x", "V"} else set())
    return T * (backward_of(B, B, n, m, d, _terms(named), of_the_flow) + 2 * B * i * inputs)


FLOPS = Flops(_forward, _backward)
