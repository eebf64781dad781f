"""How a network walks through padded sequences whose lengths are given, as `vfrnn.packed` through others."""

from __future__ import annotations

import numbers
from collections.abc import Sequence

import torch
from torch import Tensor

from vfrnn_kernels.checks import check_dense


class Padded:
    """Sequences of different lengths, x (T, B, features), of which what is behind the end is never read.

    The other direction reads every sequence from its own end, so that in both the padding comes last. A layer also
    steps through the padding, on inputs of 0, and those states are dropped; a step that lets them overflow within T
    steps (relu, identity, a growing matrix) makes gradients NaN.

    Args:
        lengths: (B,), integers.
        T, device: of x.
    """

    def __init__(self, lengths: Tensor, T: int, device: torch.device) -> None:
        self.lengths: Tensor | None = lengths
        self.T, self.B = T, lengths.shape[0]
        t, b = torch.arange(T, device=device).unsqueeze(1), torch.arange(self.B, device=device)
        self.inside = t < lengths  # (T, B)
        self.backward = (torch.where(self.inside, lengths - 1 - t, t) * self.B + b).flatten()  # its own inverse
        self.ends = (lengths - 1) * self.B + b

    def steps(self, x: Tensor, reverse: bool) -> Tensor:
        return self._zeroed(self._turned(x) if reverse else x)

    def times(self, dt: Tensor, reverse: bool) -> Tensor:
        """The times of the steps (T, B) from those of the inputs, (T,) or (T, B); 0 in the padding."""
        return self.steps(dt if dt.dim() == 2 else dt.unsqueeze(1).expand(self.T, self.B), reverse)

    def in_place(self, hs: Tensor, reverse: bool) -> Tensor:
        return self._zeroed(self._turned(hs) if reverse else hs)

    def last(self, hs: Tensor) -> Tensor:
        return hs.flatten(0, 1).index_select(0, self.ends)

    def _turned(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1).index_select(0, self.backward).unflatten(0, (self.T, self.B))

    def _zeroed(self, x: Tensor) -> Tensor:
        # not a product: the padding may hold NaN
        return torch.where(self.inside.view(self.T, self.B, *[1] * (x.dim() - 2)), x, torch.zeros_like(x))


def lengths_of(lengths: Tensor | Sequence[int], T: int, B: int, device: torch.device) -> Tensor:
    """The lengths of padded sequences as integers (B,) on the device of the input.

    Raises:
        TypeError, ValueError: they are no integers, not B of them, or (on the CPU) not from 1 to T.
    """
    if isinstance(lengths, Tensor):
        check_dense("lengths", lengths)
        given = lengths
    else:
        if not isinstance(lengths, Sequence) or isinstance(lengths, str):
            raise TypeError(f"lengths must be a tensor or a list of integers, got {type(lengths).__name__}")
        other = next((length for length in lengths if not _is_integer(length)), None)
        if other is not None:
            raise TypeError(f"lengths must be integers, got {type(other).__name__} in a {type(lengths).__name__}")
        try:
            given = torch.tensor([int(length) for length in lengths], dtype=torch.long)
        except (OverflowError, ValueError, RuntimeError) as error:
            raise ValueError(f"lengths must be from 1 to T = {T}, got {list(lengths)}") from error
    if given.dtype.is_floating_point or given.dtype.is_complex or given.dtype == torch.bool:
        raise TypeError(f"lengths must be integers, got {given.dtype}")
    if tuple(given.shape) != (B,):
        raise ValueError(f"lengths must have shape (B,) with B = {B}, got {tuple(given.shape)}")
    if given.is_meta and device.type != "meta":
        raise ValueError(f"lengths must be on the CPU or on the device of the input, {device}, got meta")
    given = given.to(torch.long)
    readable = given.device.type == "cpu" and not torch.compiler.is_compiling()
    if readable and not torch._C._are_functorch_transforms_active() and B > 0:
        least, most = (int(end) for end in given.aminmax())
        if least < 1 or most > T:
            raise ValueError(f"lengths must be from 1 to T = {T}, got {least if least < 1 else most}")
    return given.to(device=device, dtype=torch.long)


def _is_integer(value: object) -> bool:
    return isinstance(value, (numbers.Integral, torch.SymInt)) and not isinstance(value, bool)
