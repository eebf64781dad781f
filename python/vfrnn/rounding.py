"""Rounding: what 16-bit parameters are computed in, and a step matrix in a narrower dtype that gives the same lengths.

The rule for 16-bit parameters: generators, step matrices, flows and states are computed in float32, and the states are
rounded once per layer (in 16 bits a rotation would lose its length within some hundred steps). Only a GPU multiplies by
a step matrix in 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vfrnn_kernels import recurrence
from vfrnn_kernels.autocast import converted

NUDGES = 4


def wider(dtype: torch.dtype) -> torch.dtype | None:
    """float32, in which 16 bits are computed; None for a dtype that is computed in as it is."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else None


def rounded_once(op: Callable[..., Tensor], x: Tensor, *arguments: Any, **options: Any) -> Tensor:
    """The states `op(x, *arguments, **options)` in the dtype of x, by the rule for 16-bit parameters above.

    x may be float32 beside 16-bit parameters, for a caller that rounds later.
    """
    wide = wider(x.dtype)
    if wide is None:
        return op(x, *(converted(x.dtype, *arguments) if x.dtype == torch.float32 else arguments), **options)
    dtype = wide if op is not recurrence or x.device.type in ("cpu", "meta") else x.dtype
    return op(*converted(dtype, x, *arguments), **options).to(x.dtype)


def round_step(M: Tensor, dtype: torch.dtype) -> Tensor:
    """M (n, n) in the narrower `dtype`, so that the rounded R has `R^T R` close to `M^T M`.

    A step is applied unchanged at every time, so what rounding does to the length of a rotation's plane compounds: in
    T steps T times. Where M is block-diagonal, as it is after initialisation, nothing averages that out, and plain
    rounding can change a norm by more than 10^-3 over 10^5 steps. There the two largest entries of each column are
    moved by a few roundings so that the column keeps its length. Of this and of plain rounding, the result is the one
    with the smaller `||R^T R - M^T M||`: in a dense M plain rounding averages out by itself.

    The gradient is that of plain rounding.
    """
    plain = M.to(dtype)
    if M.dtype == dtype or M.shape[0] < 2:
        return plain
    with torch.no_grad():
        lengths = _keep_lengths(M, plain)
        gram = M.mT @ M
        plain_error, error = (
            torch.linalg.matrix_norm(R.mT @ R - gram) for R in (plain.to(M.dtype), lengths.to(M.dtype))
        )
        correction = torch.where(error < plain_error, lengths - plain, 0.0)
    return plain + correction


def _keep_lengths(M: Tensor, plain: Tensor) -> Tensor:
    eps = torch.finfo(plain.dtype).eps
    rows = M.abs().topk(2, dim=0).indices  # (2, n)
    first, second = plain.gather(0, rows)
    # the squared length that these two entries must have together
    wide = plain.to(M.dtype)
    pair = (M.square() - wide.square()).sum(0) + wide.gather(0, rows).square().sum(0)
    best, best_error = torch.stack([first, second]), (pair - wide.gather(0, rows).square().sum(0)).abs()
    for k in range(-NUDGES, NUDGES + 1):
        one = first * (1 + k * eps)
        other = (pair - one.to(M.dtype).square()).clamp_min(0).sqrt().to(plain.dtype)
        other = torch.where(second < 0, -other, other)
        error = (pair - one.to(M.dtype).square() - other.to(M.dtype).square()).abs()
        # An angle may change by NUDGES roundings of pi / 2, no more: it is known to one rounding of the field.
        better = (error < best_error) & ((other - second).abs() <= NUDGES * eps)
        best = torch.where(better, torch.stack([one, other]), best)
        best_error = torch.where(better, error, best_error)
    return plain.scatter(0, rows, best)
