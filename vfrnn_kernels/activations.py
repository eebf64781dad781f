"""The activations of the recurrent ops."""

from __future__ import annotations

from typing import Literal, get_args

Activation = Literal["modrelu", "tanh", "relu", "identity"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)


def has_beta(activation: str) -> bool:
    """Whether it has a learned parameter."""
    return activation == "modrelu"
