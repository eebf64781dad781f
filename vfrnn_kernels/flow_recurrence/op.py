"""flow_recurrence: contract, fakes and autograd. A recurrence along fields that read the input (model.md 5)."""

from __future__ import annotations

from torch import Tensor

from vfrnn_kernels.autocast import in_float32
from vfrnn_kernels.autograd import differentiable
from vfrnn_kernels.checks import (
    as_scalar_tensor,
    check_choice,
    check_mesh,
    check_positive_int,
    check_rank,
    check_shape,
    check_tensor,
)
from vfrnn_kernels.dispatch import select_backend
from vfrnn_kernels.final_state import Recurrent, final_state, last_state
from vfrnn_kernels.flow_recurrence import composition
from vfrnn_kernels.flow_recurrence.reference import flow_recurrence_backward_reference, flow_recurrence_reference
from vfrnn_kernels.library import implement_ops
from vfrnn_kernels.loader import CUDA_EMULATED, CUDA_LIBRARY_MISSING
from vfrnn_kernels.recurrence.op import ACTIVATIONS, Activation


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
    order: int = 8,
    substeps: int | None = None,
    return_sequence: bool = True,
    backend: str | None = None,
) -> Tensor:
    r"""All states of a layer that moves its state along an input-conditioned field, or the last, inside one op.

    .. math:: h_t = \mathrm{act}(\Phi_{v_t}(h_{t-1}) + U x_t + c), \quad v_t = v + V x_t,

    where Phi is `field_flow`: every sample has, at every step, a field of its own, and no n x n matrix is ever formed.
    Memory grows with T by the states alone: fields are computed again on the way back.

    Args:
        x: (T, B, i), the inputs; T or B may be 0.
        U: (n, i), input matrix.
        c: (n,) bias, or None for none.
        v: (m, d), the field without input.
        V: (m, d, i): what the field gets from the input.
        b, w, N, G: the mesh: (n,), (m,), (m, n), (m, d, n), as in `field_flow`.
        h0: (B, n), the state before the first step, in the symmetric coordinates B^1/2 f; None is zero.
        activation: "modrelu", "tanh", "relu" or "identity".
        beta: (n,), the bias of modrelu's modulus; given exactly when the activation is "modrelu".
        dt: the time of a step, a number or a zero-dimensional tensor; may be negative.
        divergence_scale: a number or a tensor of shape () or (1,).
        volume_preserving: removes the mean of delta over the nodes.
        order: degree of the flow's Taylor polynomial.
        substeps: of the flow, in every step. None plans them from an upper bound on |dt| ||S|| over all steps and
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
    check_tensor("x", x)
    check_rank("x", x, "(T, B, i)", 3)
    check_tensor("b", b, x, "x")
    check_mesh(b, w, N, G)
    B, i = x.shape[1:]
    n, (m, d) = b.shape[0], G.shape[:2]
    check_tensor("U", U, x, "x")
    check_shape("U", U, "(n, i)", (n, i), n=n, i=i)
    check_tensor("v", v, x, "x")
    check_shape("v", v, "(m, d)", (m, d), m=m, d=d)
    check_tensor("V", V, x, "x")
    check_shape("V", V, "(m, d, i)", (m, d, i), m=m, d=d, i=i)
    if h0 is None:
        h0 = x.new_zeros(B, n)
    check_tensor("h0", h0, x, "x")
    check_shape("h0", h0, "(B, n)", (B, n), B=B, n=n)
    check_choice("activation", activation, ACTIVATIONS)
    if (beta is None) == (activation == "modrelu"):
        raise ValueError(f"beta must be given exactly when activation is 'modrelu', got {activation!r}")
    for name, row in (("c", c), ("beta", beta)):
        if row is not None:
            check_tensor(name, row, x, "x")
            check_shape(name, row, "(n,)", (n,), n=n)
    dt = as_scalar_tensor("dt", dt, x)
    if isinstance(divergence_scale, Tensor) and divergence_scale.shape == (1,):
        divergence_scale = divergence_scale.reshape(())
    divergence_scale = as_scalar_tensor("divergence_scale", divergence_scale, x)
    check_positive_int("order", order)
    if substeps is not None:
        check_positive_int("substeps", substeps)
    name = select_backend("flow_recurrence", backend, (x,), n=n)
    tensors = (x, U, c, v, V, b, w, N, G, h0, beta, dt, divergence_scale)
    constants = (activation, bool(volume_preserving), order, substeps or 0)
    if return_sequence:
        return _functions[name](*tensors, *constants)[0]
    return last_state(_functions[name], _final_functions[name], (*tensors, *constants), (x.shape[0], B, n))


def _fake(x: Tensor, U: Tensor, *args: object) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], x.shape[1], U.shape[0]), x.new_empty(())  # hs and the number of substeps


_ARGUMENTS = (
    "Tensor x, Tensor U, Tensor? c, Tensor v, Tensor V, Tensor b, Tensor w, Tensor N, Tensor G, Tensor h0, "
    "Tensor? beta, Tensor dt, Tensor divergence_scale, str activation, bool volume_preserving, int order, int substeps"
)
_functions = differentiable(
    "flow_recurrence",
    arguments=_ARGUMENTS,
    reference=flow_recurrence_reference,
    reference_backward=flow_recurrence_backward_reference,
    fake=_fake,
    inputs=13,
    outputs=1,
    saved=1,
    triton_saved=1,
)
if CUDA_LIBRARY_MISSING is None:
    implement_ops("flow_recurrence", lambda: composition.OnCuda, 13, 1, "CPU" if CUDA_EMULATED else "CUDA")
_final_functions = final_state(
    Recurrent("flow_recurrence", inputs=13, timed=(0,), state=9),
    arguments=_ARGUMENTS,
    reference=flow_recurrence_reference,
    reference_backward=flow_recurrence_backward_reference,
)
