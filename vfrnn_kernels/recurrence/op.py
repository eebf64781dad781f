"""recurrence: contract, fakes and autograd. (x, U, c, M, h0, beta) -> all states hs (model.md 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from vfrnn_kernels.activations import ACTIVATIONS, Activation, check_activation, has_beta
from vfrnn_kernels.autocast import autocast_dtype, converted
from vfrnn_kernels.autograd import differentiable
from vfrnn_kernels.checks import check_bool, check_tensor
from vfrnn_kernels.declaration import REAL, Constant, Op, Sample, T, Tensors, declare
from vfrnn_kernels.dispatch import select_backend
from vfrnn_kernels.final_state import final_state, last_state
from vfrnn_kernels.recurrence.flops import FLOPS
from vfrnn_kernels.recurrence.reference import recurrence_backward_reference, recurrence_reference


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
        activation: one of `vfrnn_kernels.activations.ACTIVATIONS`.
        beta: (n,), the activation's parameter; given exactly when it has one (the bias of modrelu's modulus).
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
    if isinstance(h0, Tensor) and isinstance(x, Tensor) and h0.dtype == torch.float32 and x.dtype in _HALF:
        sizes = OP.check(x=x, M=M, U=U)
        check_tensor("h0", h0, x.new_empty(0, dtype=torch.float32), "x")
        OP.check(sizes, h0=h0, c=c, beta=beta)
    else:
        sizes = OP.check(x=x, M=M, U=U, h0=h0, c=c, beta=beta)
    if h0 is None:
        h0 = x.new_zeros(sizes["B"], sizes["n"])
    check_activation(activation, beta)
    check_bool("return_sequence", return_sequence)
    check_bool("reversible", reversible)
    if reversible and (return_sequence or activation != "identity"):
        raise ValueError(
            "reversible must be False unless return_sequence is False and activation is 'identity', "
            f"got return_sequence={return_sequence} and activation {activation!r}"
        )
    name = select_backend("recurrence", backend, (x,))
    arguments = (x, U, c, M, h0, beta, activation)
    if return_sequence:
        return _functions[name](*arguments)[0]
    return last_state(_functions[name], _final_functions[name], arguments, sizes, reversible)


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


def _reverse(
    run: Callable[..., tuple[Tensor]], chunk: dict[str, Tensor], constants: Sequence[Any], h: Tensor, hs: Tensor
) -> Tensor:
    """The state before a chunk, and hs in it, the last of which is h: h_{t-1} = M^T h_t - M^T U x_t - M^T c."""
    c, back = chunk["c"], chunk["M"].mT.contiguous()
    shift = None if c is None else -(back.to(c.dtype) @ c)
    before = run(chunk["x"].flip(0), -(back @ chunk["U"]), shift, back, h, None, *constants)[0]
    torch.cat([before[:-1].flip(0), h.unsqueeze(0)], out=hs)
    return before[-1].clone()


def _per_sample(
    run: Callable[..., Tensors],
    count: int,
    wanted: frozenset[str],
    grad_hs: Tensor,
    x: Tensor,
    U: Tensor,
    c: Tensor | None,
    M: Tensor,
    h0: Tensor,
    beta: Tensor | None,
    hs: Tensor,
    *constants: Any,
) -> dict[str, Tensor]:
    """(3) and (4) of README.md for each group of samples: grad_z is the gradient of an input that is added as it is."""
    n = hs.shape[2]
    # Not zero, whatever it is: second derivatives go through the states that it gives.
    eye, added = torch.eye(n, dtype=U.dtype, device=U.device), x @ U.mT
    needs = OP.needs([name in ("x", "h0") for name in OP.input_names])
    grad_z, grad_h0 = run(grad_hs, added, eye, c, M, h0, beta, hs, *constants, needs)
    found = {"h0": grad_h0}
    if "x" in wanted:
        found["x"] = grad_z @ U
    grouped = grad_z.unflatten(1, (count, -1))

    def product(right: Tensor) -> Tensor:
        return torch.einsum("tgbn,tgbk->gnk", grouped, right.to(grad_z.dtype).unflatten(1, (count, -1)))

    if "U" in wanted:
        found["U"] = product(x)
    if "M" in wanted:
        found["M"] = product(torch.cat([h0.unsqueeze(0), hs])[:-1])
    if "c" in wanted:
        found["c"] = grouped.sum((0, 2)).to(hs.dtype)
    if "beta" in wanted:
        found["beta"] = (hs.sign().unflatten(1, (count, -1)) * grouped).sum((0, 2))
    return found


def _sample(
    n: int,
    T: int = 5,
    B: int = 3,
    i: int = 2,
    activation: Activation = "tanh",
    dtype: torch.dtype = torch.float32,
    state: torch.dtype | None = None,
    bias: bool = True,
) -> Sample:
    state = state or dtype
    return Sample(
        {
            "x": torch.randn(T, B, i).to(dtype),
            "U": (torch.randn(n, i) / math.sqrt(i or 1)).to(dtype),
            "c": torch.randn(n).to(state) if bias else None,
            # of a norm of about 0.8: rounding does not grow with t
            "M": (torch.randn(n, n) * (0.4 / math.sqrt(n))).to(dtype),
            "h0": torch.randn(B, n).to(state),
            "activation": activation,
            "beta": (0.3 * torch.randn(n)).to(state) if has_beta(activation) else None,
        }
    )


def _variations(n: int, dtypes: Sequence[torch.dtype]) -> Iterator[dict[str, Any]]:
    for dtype in dtypes:
        for state in dict.fromkeys((dtype, torch.float32)):
            for i in (1, 32):  # the two ways in which the input is multiplied
                for activation in ACTIVATIONS:
                    yield {"T": 12, "B": 1, "i": i, "activation": activation, "dtype": dtype, "state": state}


_HALF = (torch.float16, torch.bfloat16)
OP = declare(
    Op(
        "recurrence",
        inputs=(
            T("x", "T B i"),
            T("U", "n i"),
            T("c", "n", optional=True, like="h0"),
            T("M", "n n", at_least_one="row"),
            T("h0", "B n", like="h0"),
            T("beta", "n", optional=True, like="h0"),
        ),
        constants=(Constant("activation", "str"),),
        outputs=(T("hs", "T B n", like="h0"),),
        reference=recurrence_reference,
        reference_backward=recurrence_backward_reference,
        flops=FLOPS,
        serves={"cpu": REAL, "cuda": (torch.float32, *_HALF, torch.float64), "triton": (torch.float32, *_HALF)},
        sample=_sample,
        variations=_variations,
        samples=("B",),
        per_sample=_per_sample,
        timed=("x",),
        state="h0",
        into="recurrence_into",
        reverse=_reverse,
    )
)
_functions = differentiable(OP)
_final_functions = final_state(OP)
