"""spectral_recurrence: contract, fakes and autograd. A recurrence whose steps have times of their own (model.md 5)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from vfrnn_kernels.activations import Activation, check_activation, has_beta
from vfrnn_kernels.autocast import in_float32
from vfrnn_kernels.autograd import differentiable
from vfrnn_kernels.checks import LARGEST_SUBSTEPS, check_bool, check_positive_int, check_tensor
from vfrnn_kernels.declaration import REAL, Constant, Op, Sample, Saved, T, declare
from vfrnn_kernels.dispatch import select_backend
from vfrnn_kernels.final_state import final_state, last_state
from vfrnn_kernels.skew_expm.op import generators
from vfrnn_kernels.spectral_recurrence import chains
from vfrnn_kernels.spectral_recurrence.flops import FLOPS
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
        activation: one of `vfrnn_kernels.activations.ACTIVATIONS`.
        beta: (n,), the activation's parameter; given exactly when it has one (the bias of modrelu's modulus).
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
            or dt is not finite, dt S has a norm of more than about a million, or exp(-dt delta / (4 k)) overflows.

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
    sizes = OP.check(x=x, S=S, U=U, dt=dt, h0=h0, c=c, delta=delta, beta=beta)
    T, B, n = sizes["T"], sizes["B"], sizes["n"]
    if dt.dim() == 1:
        dt = dt.unsqueeze(1).expand(T, B)
    if h0 is None:
        h0 = x.new_zeros(B, n)
    check_activation(activation, beta)
    check_bool("return_sequence", return_sequence)
    check_positive_int("substeps", substeps, LARGEST_SUBSTEPS)
    if delta is None:
        substeps = 1
    name = select_backend("spectral_recurrence", backend, (x,), n=n)
    arguments = (x, U, c, S, delta, dt, h0, beta, activation, substeps)
    if return_sequence:
        return _functions[name](*arguments)[0]
    return last_state(_functions[name], _final_functions[name], arguments, sizes)


def _sample(
    n: int,
    T: int = 3,
    B: int = 3,
    i: int = 2,
    activation: Activation = "tanh",
    divergence: bool = True,
    substeps: int = 1,
) -> Sample:
    return Sample(
        {
            "x": torch.randn(T, B, i),
            "U": torch.randn(n, i) / math.sqrt(i),
            "c": torch.randn(n),
            "S": generators(n, 1, 2.0)[0],
            "delta": 0.3 * torch.randn(n) if divergence else None,
            "dt": torch.linspace(-1, 2, T * B).reshape(T, B),
            "h0": torch.randn(B, n),
            "activation": activation,
            "beta": 0.3 * torch.randn(n) if has_beta(activation) else None,
            "substeps": substeps,
        }
    )


def _variations(n: int, dtypes: Sequence[torch.dtype]) -> Iterator[dict[str, Any]]:
    for divergence in (False, True):
        yield {"B": 1, "divergence": divergence}


OP = declare(
    Op(
        "spectral_recurrence",
        inputs=(
            T("x", "T B i"),
            T("U", "n i"),
            T("c", "n", optional=True),
            T("S", "n n", at_least_one="row"),
            T("delta", "n", optional=True),
            T("dt", "T B", given="T | T B"),
            T("h0", "B n"),
            T("beta", "n", optional=True),
        ),
        constants=(Constant("activation", "str"), Constant("substeps", "int")),
        outputs=(T("hs", "T B n"),),
        saved=Saved(
            (T("basis", "2 planes n"), T("omega", "planes")), lambda sizes, _: {"planes": (sizes["n"] + 1) // 2}
        ),
        reference=spectral_recurrence_reference,
        reference_backward=spectral_recurrence_backward_reference,
        flops=FLOPS,
        serves={"cpu": REAL, "cuda": REAL, "triton": (torch.float32,)},
        sample=_sample,
        variations=_variations,
        route_sizes=(17, 250),
        composed=chains,
        timed=("x", "dt"),
        state="h0",
        capturable=False,  # the planes of a generator are found with the host's help
    )
)
_functions = differentiable(OP)
_final_functions = final_state(OP)
