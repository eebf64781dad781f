"""The op from a backend's two chains over time: what comes before them, and what follows from all steps together.

A backend brings
    states(hs, delta, dt, h0, beta, basis, omega, activation, substeps)   hs: U x_t + c, replaced by h_t
    deltas(grad_hs, delta, dt, basis, omega, hs, activation, substeps)    -> grad_z (T, B, n) and grad_h0
(csrc/ops.cpp). Here are those of the library, for the CPU and CUDA.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vfrnn_kernels.spectral_recurrence.form import spectral_form
from vfrnn_kernels.spectral_recurrence.gradients import gradients


def forward(
    states: Callable[..., None],
    x: Tensor,
    U: Tensor,
    c: Tensor | None,
    S: Tensor,
    delta: Tensor | None,
    dt: Tensor,
    h0: Tensor,
    beta: Tensor | None,
    activation: str,
    substeps: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """hs (T, B, n), and for the backward the spectral form of S."""
    basis, omega = spectral_form(S, x.dtype)
    rows = x.flatten(0, 1)
    hs = rows @ U.mT if c is None else torch.addmm(c, rows, U.mT)
    hs = hs.unflatten(0, x.shape[:2])
    states(hs, delta, dt, h0, beta, basis, omega, activation, substeps)
    return hs, basis, omega


def backward(
    deltas: Callable[..., tuple[Tensor, Tensor]],
    grad_hs: Tensor,
    x: Tensor,
    U: Tensor,
    c: Tensor | None,
    S: Tensor,
    delta: Tensor | None,
    dt: Tensor,
    h0: Tensor,
    beta: Tensor | None,
    hs: Tensor,
    basis: Tensor,
    omega: Tensor,
    activation: str,
    substeps: int,
    needs: int,
) -> tuple[Tensor | None, ...]:
    """Gradients of x, U, c, S, delta, dt, h0, beta; those that `needs` does not ask for may be None."""
    found = deltas(grad_hs, delta, dt, basis, omega, hs, activation, substeps)
    return gradients(*found, x, U, c, S, delta, dt, h0, beta, hs, basis, omega, substeps, needs)


def spectral_recurrence(*args: object) -> tuple[Tensor, Tensor, Tensor]:
    """The op on the library's chains."""
    return forward(torch.ops.vfrnn_kernels.spectral_recurrence_states, *args)  # type: ignore[arg-type]


def spectral_recurrence_backward(*args: object) -> tuple[Tensor | None, ...]:
    """Its backward on the library's chains."""
    return backward(torch.ops.vfrnn_kernels.spectral_recurrence_grad_z, *args)  # type: ignore[arg-type]
