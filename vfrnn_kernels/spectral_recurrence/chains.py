"""The op from a backend's two chains over time: what comes before them, and what follows from all steps together.

A backend brings
    states(hs, delta, dt, h0, beta, basis, omega, activation, substeps)   hs: U x_t + c, replaced by h_t
    grad_z(grad_hs, delta, dt, basis, omega, hs, activation, substeps)    -> grad_z (T, B, n) and grad_h0
(csrc/ops.cpp). Here are those of the library, for the CPU and CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vfrnn_kernels.spectral_recurrence.gradients import gradients
from vfrnn_kernels.spectral_recurrence.planes import planes_of


def forward(
    states: Callable[..., None],
    *,
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
    """hs (T, B, n), and for the backward the planes of S."""
    basis, omega = planes_of(S, x.dtype)
    rows = x.flatten(0, 1)
    hs = rows @ U.mT if c is None else torch.addmm(c, rows, U.mT)
    hs = hs.unflatten(0, x.shape[:2])
    states(hs, delta, dt, h0, beta, basis, omega, activation, substeps)
    return hs, basis, omega


def backward(
    chain: Callable[..., tuple[Tensor, Tensor]],
    *,
    grad_hs: Tensor,
    delta: Tensor | None,
    dt: Tensor,
    hs: Tensor,
    basis: Tensor,
    omega: Tensor,
    activation: str,
    substeps: int,
    wanted: frozenset[str],
    **tensors: Any,
) -> dict[str, Tensor]:
    """The gradients that are wanted, by name."""
    grad_z, grad_h0 = chain(grad_hs, delta, dt, basis, omega, hs, activation, substeps)
    flow: dict[str, Any] = {"delta": delta, "dt": dt, "hs": hs, "basis": basis, "omega": omega, "substeps": substeps}
    return gradients(grad_z, grad_h0, wanted=wanted, **flow, **tensors)


def spectral_recurrence(**named: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The op on the library's chains."""
    return forward(torch.ops.vfrnn_kernels.spectral_recurrence_states, **named)


def spectral_recurrence_backward(**named: Any) -> dict[str, Tensor]:
    """Its backward on the library's chains."""
    return backward(torch.ops.vfrnn_kernels.spectral_recurrence_grad_z, **named)
