"""spectral_recurrence in plain PyTorch, an exponential for every step and sample: the definition of right. Equations:
README.md beside this file."""

from __future__ import annotations

import torch
from torch import Tensor

from vfrnn_kernels.checks import values_readable
from vfrnn_kernels.recurrence.reference import activate, multiply_by_derivative, stack
from vfrnn_kernels.skew_expm.reference import skew_expm_reference
from vfrnn_kernels.spectral_recurrence.form import spectral_form
from vfrnn_kernels.spectral_recurrence.gradients import gradients
from vfrnn_kernels.strang_step.reference import strang_step_reference


def spectral_recurrence_reference(
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
) -> tuple[Tensor]:
    """The states hs (T, B, n) of the inputs x (T, B, i), with steps of the times dt (T, B), as a tuple of one."""
    if values_readable(dt) and not bool(torch.isfinite(dt).all()):
        raise RuntimeError("dt must be finite, got NaN or infinity")
    h, hs = h0, []
    for x_t, times in zip(x.unbind(0), dt.unbind(0), strict=True):
        z = _moved(h, S, delta, times, substeps) + x_t @ U.mT
        h = activate(z if c is None else z + c, beta, activation)
        hs.append(h)
    return (stack(hs, h0),)


def _moved(h: Tensor, S: Tensor, delta: Tensor | None, times: Tensor, substeps: int) -> Tensor:
    B, n = h.shape
    generators = S.expand(B, n, n)
    if delta is None:
        M = skew_expm_reference(generators, times)[0]
    else:
        M = strang_step_reference(generators, delta.expand(B, n), times, substeps)[0]
    return (M @ h.unsqueeze(-1)).squeeze(-1)


def spectral_recurrence_backward_reference(
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
    activation: str,
    substeps: int,
) -> tuple[Tensor | None, ...]:
    """Gradients of x, U, c, S, delta, dt, h0, beta by the hand-written rules of README.md."""
    carried, deltas = torch.zeros_like(h0), []
    for grad_h, h, times in zip(*(reversed(t.unbind(0)) for t in (grad_hs, hs, dt)), strict=True):
        deltas.append(multiply_by_derivative(grad_h + carried, h, activation))
        # the transpose of e exp(dt S) e
        carried = _moved(deltas[-1], -S, None if delta is None else delta, times, substeps)
    found = stack(deltas[::-1], h0), carried
    basis, omega = spectral_form(S, S.dtype)
    return gradients(*found, x, U, c, S, delta, dt, h0, beta, hs, basis, omega, substeps, -1)
