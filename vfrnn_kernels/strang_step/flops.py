"""Products of a Strang step: those of the exponential, and of its power by the binary digits of the substeps."""

from collections.abc import Mapping
from typing import Any

from vfrnn_kernels.declaration import Flops, Sizes
from vfrnn_kernels.skew_expm.flops import backward_products, forward_products


def _powers(substeps: int) -> int:
    return substeps.bit_length() - 1 + substeps.bit_count() - 1


def _forward(sizes: Sizes, named: Mapping[str, Any]) -> int:
    products = forward_products(named["S"].dtype) + _powers(named["substeps"])
    return 2 * sizes["K"] * sizes["n"] ** 3 * products


def _backward(sizes: Sizes, named: Mapping[str, Any], wanted: frozenset[str]) -> int:
    # A power is made again, and its gradient goes to both factors.
    products = backward_products(named["S"].dtype) * ("S" in wanted or "dt" in wanted) + 3 * _powers(named["substeps"])
    return 2 * sizes["K"] * sizes["n"] ** 3 * products


FLOPS = Flops(_forward, _backward)
