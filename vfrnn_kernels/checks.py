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
    check_dense(name, value)
    if value.dtype not in DTYPES:
        raise TypeError(f"{name} must be float32, float64, float16 or bfloat16, got {value.dtype}")
    if like is not None and value.dtype != like.dtype:
        raise TypeError(f"{name} must have the dtype of {like_name}, {like.dtype}, got {value.dtype}")
    if like is not None and value.device != like.device:
        raise ValueError(f"{name} must be on the device of {like_name}, {like.device}, got {value.device}")


def check_dense(name: str, value: Tensor) -> None:
    """`value` is no sparse and no nested tensor.

    Raises:
        TypeError: it is one.
    """
    if value.is_nested:
        raise TypeError(
            f"{name} must be a dense tensor, got a nested one: pack its sequences, "
            "torch.nn.utils.rnn.pack_sequence(list(nested.unbind()), enforce_sorted=False), or pad them, "
            "torch.nested.to_padded_tensor(nested, 0.0)"
        )
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {value.layout}")


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


def check_bool(name: str, value: object) -> None:
    """`value` is a bool.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {type(value).__name__}")


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
    # a number that torch.compile made symbolic has no value here
    if not torch.compiler.is_compiling() and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return torch.full((), float(value), dtype=like.dtype, device=like.device)


def as_batch(tensor: Tensor, batch: Sequence[int], *rest: int) -> Tensor:
    """The tensor, which broadcasts to (*batch, *rest), with one batch dimension. Nothing is done where nothing changes:
    every view that is differentiated costs as much as a small kernel."""
    shape = (*batch, *rest)
    if tensor.shape != shape:
        tensor = tensor.expand(shape)
    return tensor if len(batch) == 1 else tensor.reshape(math.prod(batch), *rest)


def from_batch(tensor: Tensor, batch: Sequence[int]) -> Tensor:
    """A result with one batch dimension in the shape of the batch."""
    return tensor if len(batch) == 1 else tensor.reshape(*batch, *tensor.shape[1:])


def check_mesh(b: Tensor, w: Tensor, N: Tensor | None, G: Tensor | None) -> None:
    """The tensors of a mesh fit each other; without N and G it is the complete mesh.

    Raises:
        TypeError, ValueError: they do not.
    """
    if (N is None) != (G is None):
        raise ValueError(f"N and G must both be given or both be None, got {'G' if N is None else 'N'} alone")
    check_mesh_gradient(b, w, G)
    if N is not None:
        check_tensor("N", N, b, "b")
        m, n = w.shape[0], b.shape[0]
        check_shape("N", N, "(m, n)", (m, n), m=m, n=n)


def check_mesh_gradient(b: Tensor, w: Tensor, G: Tensor | None) -> None:
    """The weights and the gradient of a mesh fit each other; without G it is the complete mesh.

    Raises:
        TypeError, ValueError: they do not.
    """
    check_tensor("b", b)
    check_rank("b", b, "(n,)", 1)
    n = b.shape[0]
    if n < 1:
        raise ValueError("b must have at least one node, got shape (0,)")
    check_tensor("w", w, b, "b")
    check_rank("w", w, "(m,)", 1)
    if G is None:
        check_shape("w", w, "(n (n - 1) / 2,)", (n * (n - 1) // 2,), n=n)
        return
    check_tensor("G", G, b, "b")
    check_rank("G", G, "(m, d, n)", 3)
    m = w.shape[0]
    check_shape("G", G, "(m, d, n)", (m, G.shape[1], n), m=m, n=n)
