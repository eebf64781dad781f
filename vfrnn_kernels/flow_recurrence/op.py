"""flow_recurrence: contract, fakes and autograd. A recurrence along fields that read the input (model.md 5)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from vfrnn_kernels.activations import Activation, check_activation, has_beta
from vfrnn_kernels.autocast import in_float32
from vfrnn_kernels.autograd import differentiable
from vfrnn_kernels.checks import as_scalar_tensor, check_bool, check_series
from vfrnn_kernels.declaration import REAL, Constant, Op, Sample, Saved, T, declare
from vfrnn_kernels.dispatch import select_backend
from vfrnn_kernels.field_flow.op import GPU_LARGEST_N
from vfrnn_kernels.field_generator.op import random_mesh
from vfrnn_kernels.final_state import final_state, last_state
from vfrnn_kernels.flow_recurrence import launched_steps
from vfrnn_kernels.flow_recurrence.flops import FLOPS
from vfrnn_kernels.flow_recurrence.reference import flow_recurrence_backward_reference, flow_recurrence_reference


def flow_recurrence(
    x: Tensor,
    U: Tensor,
    c: Tensor | None,
    v: Tensor,
    V: Tensor,
    b: Tensor,
    w: Tensor,
    N: Tensor,
    G: Tensor,
    h0: Tensor | None = None,
    activation: Activation = "tanh",
    beta: Tensor | None = None,
    dt: float | Tensor = 1.0,
    divergence_scale: float | Tensor = 1.0,
    *,
    volume_preserving: bool = False,
    order: int | None = None,
    substeps: int | None = None,
    return_sequence: bool = True,
    backend: str | None = None,
) -> Tensor:
    r"""All states of a layer that moves its state along an input-conditioned field, or the last, inside one op.

    .. math:: h_t = \mathrm{act}(\Phi_{v_t}(h_{t-1}) + U x_t + c), \quad v_t = v + V x_t,

    where Phi is `field_flow`: every sample has, at every step, a field of its own, and no n x n matrix is formed, but
    for fields that repeat, as those of symbols do. Memory grows with T by the states alone: fields are computed again
    on the way back.

    Args:
        x: (T, B, i), the inputs; T or B may be 0.
        U: (n, i), input matrix.
        c: (n,) bias, or None for none.
        v: (m, d), the field without input.
        V: (m, d, i): what the field gets from the input.
        b, w, N, G: the mesh: (n,), (m,), (m, n), (m, d, n), as in `field_flow`.
        h0: (B, n), the state before the first step, in the symmetric coordinates B^1/2 f; None is zero.
        activation: one of `vfrnn_kernels.activations.ACTIVATIONS`.
        beta: (n,), the activation's parameter; given exactly when it has one (the bias of modrelu's modulus).
        dt: the time of a step, a number or a zero-dimensional tensor; may be negative.
        divergence_scale: a number or a tensor of shape () or (1,).
        volume_preserving: removes the mean of delta over the nodes.
        order: degree of the flow's Taylor polynomial, at most 170. None is 8 or, on the CPU where the substeps are
            planned, planned with them; there a step along fields that repeat, because rows of x do, may be the
            exponential itself.
        substeps: of the flow, in every step. None plans them from an upper bound on `|dt| ||S||` over all steps and
            samples; on a GPU for every step. A number that is certainly too small is an error on the CPU.
        return_sequence: False returns h_T alone and keeps about sqrt(T) states for the backward, which computes the
            others again, chunk by chunk;
            substeps are then planned for every chunk.
        backend: "cpu", "cuda", "triton", "reference" or None (the first that serves the call).

    Returns:
        hs (T, B, n), or h_T (B, n). The derivatives of the activation follow from hs alone: where modrelu or relu
        returned 0 the gradient is 0.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device or shape, or is missing.
        RuntimeError: the backend cannot serve the call; on the CPU also: a value is out of range (b, w, v + V x), or
            substeps is too small.

    Under torch.autocast it computes in float32.

    Source: model.md 5, this project's discrete form of Azencot et al. 2021 (arXiv 2102.09589).

    Example:
        >>> import torch
        >>> b, w, N, G = torch.ones(2), torch.full((1,), 2.0), torch.full((1, 2), 0.5), torch.tensor([[[-1.0, 1.0]]])
        >>> x, quarter = torch.tensor([[[1.0]], [[0.0]], [[2.0]]]), torch.tensor([[[torch.pi / 2]]])
        >>> U, v, h0 = torch.zeros(2, 1), torch.zeros(1, 1), torch.tensor([[1.0, 0.0]])
        >>> hs = flow_recurrence(x, U, None, v, quarter, b, w, N, G, h0, "identity", divergence_scale=0.0)
        >>> [[round(y, 4) + 0.0 for y in h] for h in hs[:, 0].tolist()]  # x_t quarter turns at step t
        [[0.0, -1.0], [0.0, -1.0], [0.0, 1.0]]
    """
    x, U, c, v, V, b, w, N, G, h0, beta, dt, divergence_scale = in_float32(
        x, U, c, v, V, b, w, N, G, h0, beta, dt, divergence_scale
    )
    if N is None or G is None:
        raise ValueError("N and G must be given: flow_recurrence has no complete mesh, pass its dense N and G")
    sizes = OP.check(x=x, b=b, w=w, G=G, N=N, U=U, v=v, V=V, h0=h0, c=c, beta=beta)
    if h0 is None:
        h0 = x.new_zeros(sizes["B"], sizes["n"])
    check_activation(activation, beta)
    check_bool("return_sequence", return_sequence)
    check_bool("volume_preserving", volume_preserving)
    dt = as_scalar_tensor("dt", dt, x)
    if isinstance(divergence_scale, Tensor) and not divergence_scale.is_nested and divergence_scale.shape == (1,):
        divergence_scale = divergence_scale.reshape(())
    divergence_scale = as_scalar_tensor("divergence_scale", divergence_scale, x)
    check_series(order, substeps)
    name = select_backend("flow_recurrence", backend, (x,), n=sizes["n"])
    tensors = (x, U, c, v, V, b, w, N, G, h0, beta, dt, divergence_scale)
    arguments = (*tensors, activation, volume_preserving, order or 0, substeps or 0)
    if return_sequence:
        return _functions[name](*arguments)[0]
    return last_state(_functions[name], _final_functions[name], arguments, sizes)


def _sample(
    n: int,
    T: int = 2,
    B: int = 2,
    i: int = 2,
    activation: Activation = "tanh",
    m: int = 3,
    d: int = 2,
    substeps: int | None = 1,
    volume_preserving: bool = False,
) -> Sample:
    arguments = {
        "x": torch.randn(T, B, i),
        "U": torch.randn(n, i) / math.sqrt(i),
        "c": torch.randn(n),
        "v": torch.randn(m, d),
        "V": torch.randn(m, d, i),
        **random_mesh(n, m, d),
        "h0": torch.randn(B, n),
        "beta": 0.3 * torch.randn(n) if has_beta(activation) else None,
        "dt": torch.tensor(0.03 / n),
        "divergence_scale": torch.tensor(0.7),
    }
    options = {"activation": activation, "volume_preserving": volume_preserving, "substeps": substeps}
    return Sample(arguments | options)


def _variations(n: int, dtypes: Sequence[torch.dtype]) -> Iterator[dict[str, Any]]:
    width = max(64, 1 << (n - 1).bit_length())
    for entries in (4096, 8192, 16384):  # as in field_flow
        yield {"T": 1, "m": entries // width, "substeps": None}


OP = declare(
    Op(
        "flow_recurrence",
        inputs=(
            T("x", "T B i"),
            T("U", "n i"),
            T("c", "n", optional=True),
            T("v", "m d"),
            T("V", "m d i"),
            T("b", "n", at_least_one="node"),
            T("w", "m"),
            T("N", "m n"),
            T("G", "m d n"),
            T("h0", "B n"),
            T("beta", "n", optional=True),
            T("dt", ""),
            T("divergence_scale", ""),
        ),
        constants=(
            Constant("activation", "str"),
            Constant("volume_preserving", "bool"),
            Constant("order", "int"),
            Constant("substeps", "int"),
        ),
        outputs=(T("hs", "T B n"),),
        saved=Saved((T("taken", "2"),)),
        reference=flow_recurrence_reference,
        reference_backward=flow_recurrence_backward_reference,
        flops=FLOPS,
        serves={"cpu": REAL, "cuda": (torch.float32,), "triton": (torch.float32,)},
        largest_n={"cuda": GPU_LARGEST_N, "triton": GPU_LARGEST_N},
        sample=_sample,
        variations=_variations,
        composed_on_cuda=launched_steps.OnCuda,
        timed=("x",),
        state="h0",
    )
)
_functions = differentiable(OP)
_final_functions = final_state(OP)
