"""spectral_recurrence in plain PyTorch, an exponential for every step and sample: the definition of right. Equations:
README.md beside this file."""

from __future__ import annotations

import torch
from torch import Tensor

from vfrnn_kernels.recurrence.reference import activate, multiply_by_derivative, stack
from vfrnn_kernels.reference_values import values_readable
from vfrnn_kernels.skew_expm.reference import skew_expm_backward_reference, skew_expm_reference
from vfrnn_kernels.strang_step.reference import strang_step_backward_reference, strang_step_reference


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
    return (_steps(S, delta, times, substeps) @ h.unsqueeze(-1)).squeeze(-1)


def _steps(S: Tensor, delta: Tensor | None, times: Tensor, substeps: int) -> Tensor:
    """M (B, n, n) of one step, for the times (B,)."""
    B, n = len(times), len(S)
    if delta is None:
        return skew_expm_reference(S.expand(B, n, n), times)[0]
    return strang_step_reference(S.expand(B, n, n), delta.expand(B, n), times, substeps)[0]


def _steps_backward(
    grad_M: Tensor, S: Tensor, delta: Tensor | None, times: Tensor, M: Tensor, substeps: int
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Gradients of S and delta, added over the samples, and of the times (B,)."""
    B, n = len(times), len(S)
    if delta is None:
        grad_S, grad_times = skew_expm_backward_reference(grad_M, S.expand(B, n, n), times, M)
        return grad_S.sum(0), None, grad_times
    arguments = (S.expand(B, n, n), delta.expand(B, n), times, M, substeps)
    grad_S, grad_delta, grad_times = strang_step_backward_reference(grad_M, *arguments)
    return grad_S.sum(0), grad_delta.sum(0), grad_times


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
    """Gradients of x, U, c, S, delta, dt, h0, beta, step by step: h_t = act(M_t h_{t-1} + U x_t + c) gives
    grad_M_t = grad_z_t h_{t-1}^T for every sample, from which those of S, delta and dt follow as for one step."""
    previous = torch.cat([h0.unsqueeze(0), hs])[:-1]
    carried, grads_z, grads_dt = torch.zeros_like(h0), [], []
    grad_S, grad_delta = torch.zeros_like(S), None if delta is None else torch.zeros_like(delta)
    for t in reversed(range(len(hs))):
        grad_z = multiply_by_derivative(grad_hs[t] + carried, hs[t], activation)
        M = _steps(S, delta, dt[t], substeps)
        grad_M = grad_z.unsqueeze(-1) * previous[t].unsqueeze(-2)
        of_S, of_delta, of_times = _steps_backward(grad_M, S, delta, dt[t], M, substeps)
        grad_S = grad_S + of_S
        grad_delta = None if grad_delta is None or of_delta is None else grad_delta + of_delta
        carried = (M.mT @ grad_z.unsqueeze(-1)).squeeze(-1)
        grads_z.append(grad_z)
        grads_dt.append(of_times)
    grad_z = stack(grads_z[::-1], h0)
    return (
        grad_z @ U,
        torch.einsum("tbj,tbi->ji", grad_z, x),
        None if c is None else grad_z.sum((0, 1)),
        grad_S,
        grad_delta,
        torch.stack(grads_dt[::-1]) if grads_dt else torch.zeros_like(dt),
        carried,
        None if beta is None else (hs.sign() * grad_z).sum((0, 1)),
    )
