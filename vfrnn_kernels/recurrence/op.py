"""recurrence: contract, fakes and autograd. (x, U, c, M, h0, beta) -> all states hs (model.md 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from vfrnn_kernels.autocast import autocast_dtype, converted
from vfrnn_kernels.autograd import differentiable
from vfrnn_kernels.checks import check_choice, check_rank, check_shape, check_tensor
from vfrnn_kernels.dispatch import select_backend
from vfrnn_kernels.final_state import Recurrent, final_state, last_state
from vfrnn_kernels.recurrence.reference import recurrence_backward_reference, recurrence_reference

ACTIVATIONS = ("modrelu", "tanh", "relu", "identity")
Activation = Literal["modrelu", "tanh", "relu", "identity"]


def recurrence(
    x: Tensor,
    U: Tensor,
    c: Tensor | None,
    M: Tensor,
    h0: Tensor | None = None,
    activation: Activation = "tanh",
    beta: Tensor | None = None,
    *,
    return_sequence: bool = True,
    reversible: bool = False,
    backend: str | None = None,
) -> Tensor:
    r"""All states of a recurrent layer, or the last one, computed inside one op.

    .. math:: h_t = \mathrm{act}(M h_{t-1} + U x_t + c), \quad
        \mathrm{modrelu}(z) = \mathrm{sign}(z)\, \mathrm{relu}(|z| + \beta)

    Args:
        x: (T, B, i), the inputs; T or B may be 0.
        U: (n, i), input matrix.
        c: (n,) bias, or None for none.
        M: (n, n), transition matrix.
        h0: (B, n), the state before the first step; None is zero. Its dtype, with that of c, beta and hs, is the
            dtype of x, or float32 beside x, U and M in 16 bits: products in 16 bits then keep a float32 state.
        activation: "modrelu", "tanh", "relu" or "identity".
        beta: (n,), the bias of modrelu's modulus; given exactly when the activation is "modrelu".
        return_sequence: False returns h_T alone and keeps about sqrt(T) states for the backward, which computes the
            others again, chunk by chunk: the time of one forward more.
        reversible: the caller's word that M is orthogonal: of h_T alone, with the identity, nothing is kept, and the
            backward turns the states back. They return to rounding, which grows with T as the drift of their lengths.
        backend: "cpu", "cuda", "triton", "reference" or None (the first that serves the call).

    Returns:
        hs (T, B, n), or h_T (B, n). Its derivatives follow from hs alone: where modrelu or relu returned 0 the gradient
        is 0.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device or shape, or is missing.
        RuntimeError: the backend cannot serve the call.

    Under torch.autocast: autocast.py.

    Source: modrelu: Arjovsky et al. 2016 (arXiv 1511.06464).

    Example:
        >>> import torch
        >>> x, U, M = torch.ones(3, 1, 1), torch.ones(1, 1), torch.full((1, 1), 2.0)
        >>> recurrence(x, U, None, M, activation="relu").flatten().tolist()
        [1.0, 3.0, 7.0]
    """
    x, U, c, M, h0, beta = _autocast(x, U, c, M, h0, beta, backend)
    check_tensor("x", x)
    check_rank("x", x, "(T, B, i)", 3)
    B, i = x.shape[1:]
    check_tensor("M", M, x, "x")
    check_rank("M", M, "(n, n)", 2)
    n = M.shape[0]
    if n < 1:
        raise ValueError(f"M must have at least one row, got shape {tuple(M.shape)}")
    check_shape("M", M, "(n, n)", (n, n), n=n)
    check_tensor("U", U, x, "x")
    check_shape("U", U, "(n, i)", (n, i), n=n, i=i)
    if h0 is None:
        h0 = x.new_zeros(B, n)
    wide = isinstance(h0, Tensor) and h0.dtype == torch.float32 and x.dtype in (torch.float16, torch.bfloat16)
    check_tensor("h0", h0, x.new_empty(0, dtype=torch.float32) if wide else x, "x")
    check_shape("h0", h0, "(B, n)", (B, n), B=B, n=n)
    state, state_name = (h0, "h0") if wide else (x, "x")
    if c is not None:
        check_tensor("c", c, state, state_name)
        check_shape("c", c, "(n,)", (n,), n=n)
    check_choice("activation", activation, ACTIVATIONS)
    if (beta is None) == (activation == "modrelu"):
        raise ValueError(
            "beta must be given when activation is 'modrelu', got None"
            if beta is None
            else f"beta must be None unless activation is 'modrelu', got a tensor with activation {activation!r}"
        )
    if beta is not None:
        check_tensor("beta", beta, state, state_name)
        check_shape("beta", beta, "(n,)", (n,), n=n)
    if reversible and (return_sequence or activation != "identity"):
        raise ValueError(
            "reversible must be False unless return_sequence is False and activation is 'identity', "
            f"got return_sequence={return_sequence} and activation {activation!r}"
        )
    name = select_backend("recurrence", backend, (x,))
    tensors = (x, U, c, M, h0, beta)
    if return_sequence:
        return _functions[name](*tensors, activation)[0]
    arguments, sizes = (*tensors, activation), (x.shape[0], B, n)
    return last_state(_functions[name], _final_functions[name], arguments, sizes, bool(reversible))


def _autocast(
    x: Tensor, U: Tensor, c: Tensor | None, M: Tensor, h0: Tensor | None, beta: Tensor | None, backend: str | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor | None, Tensor | None]:
    """The tensors in the dtypes that autocast gives them (the rule is in autocast.py)."""
    dtype = autocast_dtype(x)
    if dtype is None or x.dtype == torch.float64:
        return x, U, c, M, h0, beta
    if select_backend("recurrence", backend, (x,), torch.float32) not in ("cuda", "triton"):
        dtype = torch.float32
    if h0 is None and isinstance(M, Tensor) and x.dim() == 3 and M.dim() == 2:
        h0 = x.new_zeros(x.shape[1], M.shape[0])
    x, U, M = converted(dtype, x, U, M)
    c, h0, beta = converted(torch.float32, c, h0, beta)
    return x, U, c, M, h0, beta


def _fake(
    x: Tensor, U: Tensor, c: Tensor | None, M: Tensor, h0: Tensor, beta: Tensor | None, activation: str
) -> Tensor:
    return h0.new_empty(x.shape[0], x.shape[1], M.shape[0])


def _reverse(
    run: Callable[..., tuple[Tensor]], tensors: Sequence[Tensor | None], constants: Sequence[str], h: Tensor, hs: Tensor
) -> Tensor:
    """The state before a chunk, and hs in it, the last of which is h: h_{t-1} = M^T h_t - M^T U x_t - M^T c."""
    x, U, c, M = tensors[:4]
    assert x is not None
    assert U is not None
    assert M is not None
    back = M.mT.contiguous()
    shift = None if c is None else -(back.to(c.dtype) @ c)
    before = run(x.flip(0), -(back @ U), shift, back, h, None, *constants)[0]
    torch.cat([before[:-1].flip(0), h.unsqueeze(0)], out=hs)
    return before[-1].clone()


_ARGUMENTS = "Tensor x, Tensor U, Tensor? c, Tensor M, Tensor h0, Tensor? beta, str activation"
_functions = differentiable(
    "recurrence",
    arguments=_ARGUMENTS,
    reference=recurrence_reference,
    reference_backward=recurrence_backward_reference,
    fake=_fake,
    inputs=6,
    outputs=1,
)
_final_functions = final_state(
    Recurrent("recurrence", inputs=6, timed=(0,), state=4, into="recurrence_into", reverse=_reverse),
    arguments=_ARGUMENTS,
    reference=recurrence_reference,
    reference_backward=recurrence_backward_reference,
)
