r"""The activations: their names, whether they have a parameter, their formulas, and their derivatives.

An activation is h = act(z, beta). The kernels keep h and not z, so a derivative is a function of the output: where h
does not tell on which side of a kink z was, the derivative is the one that the table below chooses.

| activation | act(z) | grad_z, from h and grad_h | at the kink |
|---|---|---|---|
| modrelu | sign(z) relu(\|z\| + beta) | grad_h where h is not 0 | 0 where h is 0; beta's gradient is sign(h) grad_z |
| tanh | tanh(z) | (1 - h^2) grad_h | |
| relu | max(z, 0) | grad_h where h > 0 | 0 where h is 0 |
| identity | z | grad_h | |
| leaky_relu | max(z, 0) + min(z, 0) / 100 | grad_h where h > 0, else grad_h / 100 | 1 / 100 where h is 0 |

Their order is that of the enumeration in csrc/common/activations.h and of the numbers that the Triton kernels take. The
formulas here serve what is put together from PyTorch's operations; the reference and the tests have their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Activation = Literal["modrelu", "tanh", "relu", "identity", "leaky_relu"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)


@dataclass(frozen=True)
class Formula:
    """`value` (z, beta) -> h, and `grad_z` (grad_h, h) -> the gradient of z."""

    value: Callable[..., Tensor]
    grad_z: Callable[[Tensor, Tensor], Tensor]
    has_beta: bool = False


FORMULAS = {
    "modrelu": Formula(
        lambda z, beta: z.sign() * (z.abs() + beta).relu(),
        lambda grad_h, h: torch.where(h != 0, grad_h, torch.zeros_like(grad_h)),
        has_beta=True,
    ),
    "tanh": Formula(lambda z, _: z.tanh(), lambda grad_h, h: grad_h * (1 - h * h)),
    "relu": Formula(lambda z, _: z.relu(), lambda grad_h, h: torch.where(h > 0, grad_h, torch.zeros_like(grad_h))),
    "identity": Formula(lambda z, _: z, lambda grad_h, h: grad_h),
    "leaky_relu": Formula(
        lambda z, _: torch.nn.functional.leaky_relu(z), lambda grad_h, h: torch.where(h > 0, grad_h, 0.01 * grad_h)
    ),
}
if tuple(FORMULAS) != ACTIVATIONS:
    raise NotImplementedError(f"activations {ACTIVATIONS} have formulas for {tuple(FORMULAS)}")


def number(activation: str) -> int:
    """Its place in ACTIVATIONS: what a kernel is given."""
    return ACTIVATIONS.index(activation)


def has_beta(activation: str) -> bool:
    """Whether the activation has a parameter beta (n,)."""
    return FORMULAS[activation].has_beta


def activate(z: Tensor, beta: Tensor | None, activation: str) -> Tensor:
    """h = act(z) for z (..., n), beta (n,) where the activation has one."""
    return FORMULAS[activation].value(z, beta)


def grad_z_of(grad_h: Tensor, h: Tensor, activation: str) -> Tensor:
    """The gradient of z from that of h = act(z), and from h alone."""
    return FORMULAS[activation].grad_z(grad_h, h)


def check_activation(activation: object, beta: object) -> None:
    """`activation` is one of ACTIVATIONS, and `beta` is given exactly where it has one.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        known = ", ".join(map(repr, ACTIVATIONS))
        raise ValueError(f"activation must be one of {known}, got {activation!r}")
    if beta is None and has_beta(activation):
        raise ValueError(f"beta must be given when activation is {activation!r}, got None")
    if beta is not None and not has_beta(activation):
        owners = " or ".join(repr(name) for name in ACTIVATIONS if has_beta(name))
        raise ValueError(f"beta must be None unless activation is {owners}, got it with activation {activation!r}")
