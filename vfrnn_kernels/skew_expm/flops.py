"""Products of the exponential: README.md, "Forward" and "Backward".

How often a generator is squared depends on its norm, which a count by shapes does not know: once here, for rotation
angles up to pi, where every initialisation has them. Each doubling of the angles costs one product more, and two in
the backward.
"""

from collections.abc import Mapping
from typing import Any

import torch

from vfrnn_kernels.declaration import Flops, Sizes

SQUARINGS = 1


def forward_products(dtype: torch.dtype) -> int:
    """Of n x n matrices."""
    return (5 if dtype == torch.float64 else 4) + SQUARINGS


def backward_products(dtype: torch.dtype) -> int:
    """Of n x n matrices."""
    return (8 if dtype == torch.float64 else 7) + 2 * SQUARINGS


def _forward(sizes: Sizes, named: Mapping[str, Any]) -> int:
    return 2 * sizes["K"] * sizes["n"] ** 3 * forward_products(named["S"].dtype)


def _backward(sizes: Sizes, named: Mapping[str, Any], wanted: frozenset[str]) -> int:
    return 2 * sizes["K"] * sizes["n"] ** 3 * backward_products(named["S"].dtype)


FLOPS = Flops(_forward, _backward)
