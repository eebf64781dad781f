"""Argument checks shared by the ops. Every message names the argument, what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensor(name: str, value: object, like: Tensor | None = None, like_name: str = "") -> None:
    """`value` is a real floating-point tensor, of the dtype and device of `like` if that is given.

    Raises:
        TypeError: it is no tensor, or no floating-point one, or of another dtype than `like`.
        ValueError: it lives on another device than `like`.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if value.dtype not in DTYPES:
        raise TypeError(f"{name} must be float32, float64, float16 or bfloat16, got {value.dtype}")
    if like is not None and value.dtype != like.dtype:
        raise TypeError(f"{name} must have the dtype of {like_name}, {like.dtype}, got {value.dtype}")
    if like is not None and value.device != like.device:
        raise ValueError(f"{name} must be on the device of {like_name}, {like.device}, got {value.device}")


def check_shape(name: str, tensor: Tensor, shape: str, expected: Sequence[int], **sizes: int) -> None:
    """`tensor` has the expected shape; `shape` spells it in letters and `sizes` says what the letters are.

    Raises:
        ValueError: as in "M must have shape (n, n) with n = 190, got (128, 190)".
    """
    if tuple(tensor.shape) != tuple(expected):
        letters = ", ".join(f"{letter} = {size}" for letter, size in sizes.items())
        where = f" with {letters}" if letters else ""
        raise ValueError(f"{name} must have shape {shape}{where}, got {tuple(tensor.shape)}")


def check_rank(name: str, tensor: Tensor, shape: str, rank: int, *, batched: bool = False) -> None:
    """`tensor` has `rank` dimensions, or at least that many when `batched`.

    Raises:
        ValueError: it has not.
    """
    if tensor.dim() != rank and not (batched and tensor.dim() >= rank):
        raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")


def check_positive_int(name: str, value: object) -> None:
    """`value` is an int of at least 1.

    Raises:
        TypeError: it is no int.
        ValueError: it is below 1.
    """
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """`value` is one of `choices`.

    Raises:
        ValueError: it is not.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def as_scalar_tensor(name: str, value: object, like: Tensor) -> Tensor:
    """A number or a zero-dimensional tensor as a zero-dimensional tensor of the dtype and device of `like`.

    Raises:
        TypeError: it is neither, or a tensor of another dtype.
        ValueError: a number that is not finite, a tensor with dimensions or on another device.
    """
    if isinstance(value, Tensor):
        check_tensor(name, value, like, "the state")
        check_shape(name, value, "()", ())
        return value
    return as_number_tensor(name, value, like)


def as_number_tensor(name: str, value: object, like: Tensor) -> Tensor:
    """A finite number as a zero-dimensional tensor of the dtype and device of `like`.

    Raises:
        TypeError: it is no number.
        ValueError: it is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number or a tensor, got {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return torch.full((), float(value), dtype=like.dtype, device=like.device)
