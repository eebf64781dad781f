"""spectral_recurrence: contract, fakes and autograd. A recurrence whose steps have times of their own (model.md 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from vfrnn_kernels.autocast import in_float32
from vfrnn_kernels.autograd import differentiable
from vfrnn_kernels.checks import check_choice, check_positive_int, check_rank, check_shape, check_tensor
from vfrnn_kernels.dispatch import select_backend
from vfrnn_kernels.final_state import Recurrent, final_state, last_state
from vfrnn_kernels.recurrence.op import ACTIVATIONS, Activation
from vfrnn_kernels.spectral_recurrence import composition
from vfrnn_kernels.spectral_recurrence.reference import (
    spectral_recurrence_backward_reference,
    spectral_recurrence_reference,
)


def spectral_recurrence(
    x: Tensor,
    U: Tensor,
    c: Tensor | None,
    S: Tensor,
    delta: Tensor | None,
    dt: Tensor,
    h0: Tensor | None = None,
    activation: Activation = "tanh",
    beta: Tensor | None = None,
    *,
    substeps: int = 1,
    return_sequence: bool = True,
    backend: str | None = None,
) -> Tensor:
    r"""All states of a layer whose steps last differently, or the last one, computed inside one op.

    .. math:: h_t = \mathrm{act}(M_t h_{t-1} + U x_t + c), \quad M_t = (\mathrm{diag}(e_t)\, \exp(dt_t\, S / k)\,
        \mathrm{diag}(e_t))^k, \quad e_t = \exp(-dt_t\, \delta / (4 k))

    M_t is the `strang_step` of the time dt_t, with its own for every step and sample, and is never formed: S turns
    planes, which are found once, in float64, and a step turns their coordinates by dt_t times their frequencies.

    Args:
        x: (T, B, i), the inputs; T or B may be 0.
        U: (n, i), input matrix.
        c: (n,) bias, or None for none.
        S: (n, n), skew-symmetric up to rounding (its skew part is used), n >= 1.
        delta: (n,), or None for none.
        dt: (T,) or (T, B), the times of the steps, of any sign; finite.
        h0: (B, n), the state before the first step; None is zero.
        activation: "modrelu", "tanh", "relu" or "identity".
        beta: (n,), the bias of modrelu's modulus; given exactly when the activation is "modrelu".
        substeps: k >= 1; without delta all k are the same.
        return_sequence: False returns h_T alone and keeps about sqrt(T) states for the backward, which computes the
            others again, chunk by chunk.
        backend: "cpu", "cuda", "triton", "reference" or None (the first that serves the call).

    Returns:
        hs (T, B, n), or h_T (B, n). The derivatives of the activation follow from hs alone: where modrelu or relu
        returned 0 the gradient is 0. Memory grows with T by the states alone; the backward computes the steps again,
        by blocks.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device or shape, or is missing.
        RuntimeError: the backend cannot serve the call; S is not finite or not skew-symmetric; on the CPU also: delta
            or dt is not finite.

    Under torch.autocast it computes in float32. Second derivatives are right, but not optimised.

    Source: the divided differences of the backward: Daleckii, Krein 1965; Najfeld, Havel 1995 (doi
    10.1006/aama.1995.1017).

    Example:
        >>> import torch
        >>> S, x, U = torch.tensor([[0.0, -1.0], [1.0, 0.0]]), torch.zeros(2, 1, 1), torch.zeros(2, 1)
        >>> times, h0 = torch.tensor([torch.pi / 2, -torch.pi]), torch.tensor([[1.0, 0.0]])
        >>> hs = spectral_recurrence(x, U, None, S, None, times, h0, "identity")
        >>> [[round(y, 4) + 0.0 for y in h] for h in hs[:, 0].tolist()]  # a quarter turn, and half a turn back
        [[0.0, 1.0], [0.0, -1.0]]
    """
    x, U, c, S, delta, dt, h0, beta = in_float32(x, U, c, S, delta, dt, h0, beta)
    check_tensor("x", x)
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be float32 or float64, got {x.dtype}")
    check_rank("x", x, "(T, B, i)", 3)
    T, B, i = x.shape
    check_tensor("S", S, x, "x")
    check_rank("S", S, "(n, n)", 2)
    n = S.shape[0]
    if n < 1:
        raise ValueError(f"S must have at least one row, got shape {tuple(S.shape)}")
    check_shape("S", S, "(n, n)", (n, n), n=n)
    check_tensor("U", U, x, "x")
    check_shape("U", U, "(n, i)", (n, i), n=n, i=i)
    check_tensor("dt", dt, x, "x")
    if dt.dim() == 1:
        check_shape("dt", dt, "(T,) or (T, B)", (T,), T=T, B=B)
        dt = dt.unsqueeze(1).expand(T, B)
    check_shape("dt", dt, "(T,) or (T, B)", (T, B), T=T, B=B)
    if h0 is None:
        h0 = x.new_zeros(B, n)
    check_tensor("h0", h0, x, "x")
    check_shape("h0", h0, "(B, n)", (B, n), B=B, n=n)
    check_choice("activation", activation, ACTIVATIONS)
    if (beta is None) == (activation == "modrelu"):
        raise ValueError(f"beta must be given exactly when activation is 'modrelu', got {activation!r}")
    for name, row in (("c", c), ("delta", delta), ("beta", beta)):
        if row is not None:
            check_tensor(name, row, x, "x")
            check_shape(name, row, "(n,)", (n,), n=n)
    check_positive_int("substeps", substeps)
    if delta is None:
        substeps = 1
    name = select_backend("spectral_recurrence", backend, (x,), n=n)
    arguments = (x, U, c, S, delta, dt, h0, beta, activation, substeps)
    if return_sequence:
        return _functions[name](*arguments)[0]
    return last_state(_functions[name], _final_functions[name], arguments, (T, B, n))


def _fake(x: Tensor, U: Tensor, *args: object) -> tuple[Tensor, Tensor, Tensor]:
    n = U.shape[0]
    planes = (n + 1) // 2
    return x.new_empty(x.shape[0], x.shape[1], n), x.new_empty(2, planes, n), x.new_empty(planes)


_ARGUMENTS = (
    "Tensor x, Tensor U, Tensor? c, Tensor S, Tensor? delta, Tensor dt, Tensor h0, Tensor? beta, "
    "str activation, int substeps"
)
_functions = differentiable(
    "spectral_recurrence",
    arguments=_ARGUMENTS,
    reference=spectral_recurrence_reference,
    reference_backward=spectral_recurrence_backward_reference,
    fake=_fake,
    inputs=8,
    outputs=1,
    saved=2,
    triton_saved=2,
    composition=composition,
)
_final_functions = final_state(
    Recurrent("spectral_recurrence", inputs=8, timed=(0, 5), state=6),
    arguments=_ARGUMENTS,
    reference=spectral_recurrence_reference,
    reference_backward=spectral_recurrence_backward_reference,
)
