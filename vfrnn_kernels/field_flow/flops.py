"""Products of a flow: in each term of the series of each substep the generator applied to the states, (N, G) y and
(N, G)^T q, and once the divergence of the fields. README.md."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch._subclasses import FakeTensor

from vfrnn_kernels.declaration import Flops, Sizes

_LETTERS = ("B", "fields", "n", "m", "d")


def planned(taken: Tensor | None, place: int, given: int, otherwise: int) -> int:
    """What was given, or what the op planned: 0 was given and `taken` has it, unless its values cannot be read."""
    if given:
        return given
    if taken is None or taken.is_meta or isinstance(taken, FakeTensor):
        return otherwise
    return int(taken.flatten()[place])


def forward_of(B: int, fields: int, n: int, m: int, d: int, terms: int) -> int:
    """Of B states along so many fields."""
    return terms * _generator(B, n, m, d) + 2 * fields * n * m * d


def backward_of(B: int, fields: int, n: int, m: int, d: int, terms: int, wanted: frozenset[str]) -> int:
    """The series is made again, its transpose takes the gradients back, and what is learned has products of its own."""
    products = 2 * terms * _generator(B, n, m, d) + 2 * fields * n * m * d
    if wanted & {"v", "w", "b", "N", "G"}:
        products += terms * _generator(B, n, m, d)
    mesh = ("N" in wanted or "b" in wanted) + d * ("G" in wanted or "b" in wanted)
    products += 4 * terms * B * m * n * mesh
    of_the_divergence = fields * ("b" in wanted) + B * (bool(wanted & {"v", "w"}) + ("G" in wanted or "b" in wanted))
    return products + 2 * n * m * d * of_the_divergence


def _generator(B: int, n: int, m: int, d: int) -> int:
    return 4 * B * m * n * (1 + d)


def _terms(named: Mapping[str, Any]) -> int:
    return named["order"] * planned(named.get("taken"), 0, named["substeps"], 1)


def _forward(sizes: Sizes, named: Mapping[str, Any]) -> int:
    return forward_of(**{name: sizes[name] for name in _LETTERS}, terms=_terms(named))


def _backward(sizes: Sizes, named: Mapping[str, Any], wanted: frozenset[str]) -> int:
    return backward_of(**{name: sizes[name] for name in _LETTERS}, terms=_terms(named), wanted=wanted)


FLOPS = Flops(_forward, _backward)
