"""recurrence in plain PyTorch: the definition of right. Equations: README.md beside this file."""

from __future__ import annotations

import torch
from torch import Tensor


def recurrence_reference(
    x: Tensor, U: Tensor, c: Tensor | None, M: Tensor, h0: Tensor, beta: Tensor | None, activation: str
) -> tuple[Tensor]:
    """The states hs (T, B, n) of the inputs x (T, B, i), as a tuple of one."""
    x, U, M = (t.to(h0.dtype) for t in (x, U, M))  # the state's dtype, which may be wider than that of the products
    h, hs = h0, []
    for x_t in x.unbind(0):
        z = h @ M.mT + x_t @ U.mT
        h = activate(z if c is None else z + c, beta, activation)
        hs.append(h)
    return (stack(hs, h0),)


def activate(z: Tensor, beta: Tensor | None, activation: str) -> Tensor:
    return {
        "modrelu": lambda z: z.sign() * (z.abs() + beta).relu(),
        "tanh": torch.tanh,
        "relu": torch.relu,
        "identity": lambda z: z,
        "leaky_relu": lambda z: torch.where(z > 0, z, 0.01 * z),
    }[activation](z)


def stack(steps: list[Tensor], h0: Tensor) -> Tensor:
    return torch.stack(steps) if steps else h0.new_empty(0, *h0.shape)


def recurrence_backward_reference(
    grad_hs: Tensor,
    x: Tensor,
    U: Tensor,
    c: Tensor | None,
    M: Tensor,
    h0: Tensor,
    beta: Tensor | None,
    hs: Tensor,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor, Tensor | None]:
    """Gradients of x, U, c, M, h0, beta by the hand-written rules of README.md."""
    dtype = x.dtype
    x, U, M = (t.to(h0.dtype) for t in (x, U, M))
    carried, grads_z = torch.zeros_like(h0), []  # carried_t = M^T grad_z_{t+1}
    for grad_h, h in zip(reversed(grad_hs.unbind(0)), reversed(hs.unbind(0)), strict=True):
        grads_z.append(multiply_by_derivative(grad_h + carried, h, activation))
        carried = grads_z[-1] @ M
    grad_z = stack(grads_z[::-1], h0)  # (T, B, n)
    rows = grad_z.flatten(0, 1)
    previous = torch.cat([h0.unsqueeze(0), hs])[:-1]
    grad_M = rows.mT @ previous.flatten(0, 1)
    grad_U = rows.mT @ x.flatten(0, 1)
    grad_c = None if c is None else rows.sum(0)
    grad_beta = None if beta is None else (hs.sign() * grad_z).sum((0, 1))
    return (grad_z @ U).to(dtype), grad_U.to(dtype), grad_c, grad_M.to(dtype), carried, grad_beta


def multiply_by_derivative(grad_h: Tensor, h: Tensor, activation: str) -> Tensor:
    """act'(z) grad_h from h = act(z) alone."""
    zero = torch.zeros_like(grad_h)
    return {
        "modrelu": lambda: torch.where(h != 0, grad_h, zero),
        "tanh": lambda: grad_h * (1 - h * h),
        "relu": lambda: torch.where(h > 0, grad_h, zero),
        "identity": lambda: grad_h,
        "leaky_relu": lambda: torch.where(h > 0, grad_h, 0.01 * grad_h),
    }[activation]()
