"""The activations of the recurrent ops: what they are called, and which have a parameter."""

from __future__ import annotations

from typing import Literal, get_args

Activation = Literal["modrelu", "tanh", "relu", "identity"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)


def has_beta(activation: str) -> bool:
    """Whether the activation has a parameter beta (n,)."""
    return activation == "modrelu"
