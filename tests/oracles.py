"""The activations as formulas in float64, which share no code with the package: the one oracle that all tests ask.

Derivatives come from autograd. A new activation is a line of FORMULAS: what it takes beside z, where it bends and what
inputs the tests give it follows from the formula; and one of SLOPES.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor

FORMULAS: dict[str, Callable[..., Tensor]] = {
    "modrelu": lambda z, beta: torch.where(z.abs() + beta > 0, z.sgn() * (z.abs() + beta), 0 * z),
    "tanh": lambda z: torch.tanh(z),
    "relu": lambda z: torch.where(z > 0, z, 0 * z),
    "identity": lambda z: 1 * z,
    "leaky_relu": lambda z: torch.where(z > 0, z, 0.01 * z),
}


def takes_beta(activation: str) -> bool:
    """Whether the activation has the parameter beta."""
    return "beta" in inspect.signature(FORMULAS[activation]).parameters


def activate(activation: str, z: Tensor, beta: Tensor | None = None) -> Tensor:
    """act(z), differentiable; beta (n,) is given exactly where the activation takes it."""
    return FORMULAS[activation](z) if beta is None else FORMULAS[activation](z, beta)


def derivative(activation: str, z: Tensor, beta: Tensor | None = None) -> Tensor:
    """act'(z)."""
    z = z.detach().requires_grad_()
    return torch.autograd.grad(activate(activation, z, beta).sum(), z)[0]


#: act'(z) from h = act(z) alone, 0 where it has none: what a backward that has only the states can know.
SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "modrelu": lambda h: (h != 0).to(h),
    "tanh": lambda h: 1 - h * h,
    "relu": lambda h: (h > 0).to(h),
    "identity": lambda h: torch.ones_like(h),
    "leaky_relu": lambda h: torch.where(h > 0, 1 + 0 * h, 0.01 + 0 * h),
}


def smooth_at(activation: str, z: Tensor, beta: Tensor | None = None, radius: float = 1e-3) -> bool:
    """Whether no entry of z is within `radius` of a bend or a jump, which finite differences do not cross."""
    below, here, above = (activate(activation, z + step, beta) for step in (-radius, 0.0, radius))
    # second differences: below radius^2 where it is smooth (all have |act''| < 1), radius times the bend at one
    return bool(((above - 2 * here + below).abs() < 1e-2 * radius).all())
