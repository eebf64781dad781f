"""Whether every entry that a recurrence computes is its equation, rounded: a step from the states as they were found.

Errors of 16-bit states pile up over time, and a tolerance for their sum is so wide that a kernel with exchanged
operands passes. Here a step is judged alone: from the found h_{t-1}, in float64, h_t is allowed the rounding of its
sum, of u_t and of its own, entry by entry; backwards in the same way, where U is the identity and grad_x shows grad_z.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests import oracles

#: Of the sums, which are taken in float32 at least.
EPS = torch.finfo(torch.float32).eps


def assert_states(hs: Tensor, tensors: list[Tensor | None], activation: str, splits: bool) -> None:
    """h_t = act(M h_{t-1} + u_t + c) of every step. `splits`: beside 16-bit products a float32 state is multiplied as
    two 16-bit numbers, and not rounded to one."""
    x, U, c, M, h0, beta = tensors
    before = torch.cat([h0.unsqueeze(0), hs])[:-1]
    before = (before if splits else before.to(M.dtype)).double()
    x, U, M, c, beta = (None if t is None else t.double() for t in (x, U, M, c, beta))
    u, offset = x @ U.mT, 0 if c is None else c
    z = before @ M.mT + u + offset
    terms = before.abs() @ M.abs().mT + x.abs() @ U.abs().mT + (0 if c is None else c.abs())
    # u_t may be rounded, and again with c added
    error = _of_a_sum(terms, M.shape[0] + U.shape[1], hs.dtype) + _half(hs.dtype) * (u.abs() + (u + offset).abs())
    # act is monotonous: what it makes of z up to its error lies between these, on both sides of a bend or a jump
    low, high = (oracles.activate(activation, z + sign * error, beta) for sign in (-1, 1))
    own = _of_an_entry(torch.maximum(low.abs(), high.abs()), hs.dtype)
    _assert_between(hs, low - own, high + own, "hs")


def assert_gradients(
    found: list[Tensor | None], grad_hs: Tensor, hs: Tensor, tensors: list[Tensor | None], activation: str, splits: bool
) -> None:
    """The gradients of M, c, h0, beta and, in place of that of x, grad_z: U is the identity."""
    _, U, _, M, h0, _ = tensors
    assert torch.equal(U, torch.eye(len(U), dtype=U.dtype, device=U.device))
    grad_z, _, grad_c, grad_M, grad_h0, grad_beta = (None if t is None else t.double() for t in found)
    kind, state = M.dtype, h0.dtype
    # a float32 grad_z beside 16-bit products is seen in grad_x rounded, and multiplied as two numbers
    unseen = _half(kind) if splits and kind != state else 0.0
    before = torch.cat([h0.unsqueeze(0), hs])[:-1].to(kind).double()
    carried = torch.cat([grad_z[1:], torch.zeros_like(grad_z[:1])])
    h, g, M = hs.double(), grad_hs.double(), M.double()
    slope = oracles.SLOPES[activation](h)
    terms = g.abs() + carried.abs() @ M.abs()
    error = _of_a_sum(slope.abs() * terms, len(M), kind)
    if activation == "tanh":  # 1 - h h may round h h
        error = error + min(EPS, torch.finfo(kind).eps) * terms
    error = error + unseen * slope.abs() * (carried.abs() @ M.abs())
    right = slope * (g + carried @ M)
    _assert_near(grad_z, right, error, kind, "grad_z")
    rows, previous = grad_z.flatten(0, 1), before.flatten(0, 1)
    # two products, that of the first step and that of the others, each rounded before they are added
    first, right = grad_z[0].mT @ before[0], rows.mT @ previous
    terms = rows.abs().mT @ previous.abs()
    error = _of_a_sum(terms, len(rows), kind) + _half(kind) * (first.abs() + (right - first).abs())
    error = error + 2 * unseen * terms
    _assert_near(grad_M, right, error, kind, "grad_M")
    for what, gradient, terms in (("grad_c", grad_c, grad_z), ("grad_beta", grad_beta, h.sign() * grad_z)):
        if gradient is not None:
            size = terms.abs().sum((0, 1))
            error = _of_a_sum(size, len(rows), state) + unseen * size
            _assert_near(gradient, terms.sum((0, 1)), error, state, what)
    size = grad_z[0].abs() @ M.abs()
    _assert_near(grad_h0, grad_z[0] @ M, _of_a_sum(size, len(M), state) + unseen * size, state, "grad_h0")


def _half(dtype: torch.dtype) -> float:
    """The relative error of a rounding."""
    return torch.finfo(dtype).eps / 2


def _of_a_sum(terms: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """The error of a sum of `count` products, from the sum of their moduli: partial sums are rounded, in any order, and
    each product of three TensorFloat32 products lacks less than 4 eps."""
    eps = min(EPS, torch.finfo(dtype).eps)
    return (8 + 2 * math.sqrt(count)) * eps * terms


def _of_an_entry(size: Tensor, dtype: torch.dtype) -> Tensor:
    """The error of an activation or a slope, and of a result's own rounding. In float32 tanh is within 8 units; where
    it is rounded to 16 bits the CUDA kernels take one within 2^-14.5, a tenth of that rounding (common/tanh.h)."""
    info = torch.finfo(dtype)
    function = 2**-14.5 if info.bits == 16 else 8 * min(EPS, info.eps)
    return (info.eps / 2 + function) * size + info.tiny * info.eps


def _assert_near(found: Tensor, right: Tensor, error: Tensor, dtype: torch.dtype, what: str) -> None:
    own = error + _of_an_entry(right.abs() + error, dtype)
    _assert_between(found, right - own, right + own, what)


def _assert_between(found: Tensor, low: Tensor, high: Tensor, what: str) -> None:
    """Names the first entry that is not, and how many are not."""
    found = found.detach().double()
    outside = ~((low <= found) & (found <= high))
    if bool(outside.any()):
        where = tuple(int(k) for k in outside.nonzero()[0])
        raise AssertionError(
            f"{what}{list(where)} must be between {low[where]:.8g} and {high[where]:.8g}, got {found[where]:.8g}; "
            f"{int(outside.sum())} of {outside.numel()} entries are outside"
        )
