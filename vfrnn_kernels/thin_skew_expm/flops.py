"""Products of a thin exponential: README.md. A QR factorization counts as two products, of the Gram matrix and of B
with the inverse factor."""

from collections.abc import Mapping
from typing import Any

from vfrnn_kernels.declaration import Flops, Sizes
from vfrnn_kernels.skew_expm.flops import backward_products, forward_products
from vfrnn_kernels.thin_skew_expm.composed import is_compressed


def _forward(sizes: Sizes, named: Mapping[str, Any]) -> int:
    K, n, k = (sizes[letter] for letter in "Knk")
    products = forward_products(named["S"].dtype)
    if not is_compressed(n, k):
        return 2 * K * n**3 * products
    return 2 * K * (products * (2 * k) ** 3 + 3 * (n - k) * k**2)


def _backward(sizes: Sizes, named: Mapping[str, Any], wanted: frozenset[str]) -> int:
    K, n, k = (sizes[letter] for letter in "Knk")
    products = backward_products(named["S"].dtype)
    if not is_compressed(n, k):
        return 2 * K * n**3 * products
    small = (products + forward_products(named["S"].dtype)) * (3 * k) ** 3
    tall = (n - k) * k**2
    return 2 * K * (small + tall + (2 * tall + k**3) * ("S" in wanted))


FLOPS = Flops(_forward, _backward)
