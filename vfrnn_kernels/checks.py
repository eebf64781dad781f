"""Argument checks shared by the ops. Every message names the argument, what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LARGEST = {dtype: torch.finfo(dtype).max for dtype in DTYPES}  # what asking costs, every call would pay
#: Of the kernels' integers, and of the entries of a tensor.
LARGEST_INT = 2**63 - 1
#: Of a count of units, samples or epochs: more than any memory, or anyone's time, is for.
LARGEST_SIZE = 2**31 - 1
#: Of a Taylor polynomial: 1 / 171! is less than every normal float64, so that further terms add nothing.
LARGEST_ORDER = 170
#: A hundred times what is ever planned.
LARGEST_SUBSTEPS = 1_000_000


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


def check_positive_int(name: str, value: object, most: int = LARGEST_INT) -> None:
    """`value` is an int of at least 1 and, unless torch.compile made it symbolic, of at most `most`.

    Raises:
        TypeError: it is no int.
        ValueError: it is below 1 or above `most`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    if isinstance(value, int) and value > most:
        raise ValueError(f"{name} must be at most {most}, got {value}")


def check_series(order: object, substeps: object) -> None:
    """`order` and `substeps` of a flow by a series, each None where it is planned.

    Raises:
        TypeError, ValueError: one is no int, below 1, or so large that a call would not end.
    """
    if order is not None:
        check_positive_int("order", order, LARGEST_ORDER)
    if substeps is not None:
        check_positive_int("substeps", substeps, LARGEST_SUBSTEPS)


def check_bool(name: str, value: object) -> None:
    """`value` is a bool.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {type(value).__name__}")


def check_dtype(name: str, value: object) -> None:
    """`value` is a dtype of parameters, or None for PyTorch's default.

    Raises:
        TypeError: it is not.
    """
    if value is not None and not (isinstance(value, torch.dtype) and value in DTYPES):
        raise TypeError(f"{name} must be None, torch.float32, float64, float16 or bfloat16, got {value!r}")


def check_module(name: str, value: object) -> None:
    """`value` is a module.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, torch.nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module, got {type(value).__name__}")


def check_broadcast(name: str, shape: Sequence[int], other: str, expected: Sequence[int]) -> None:
    """Two batch shapes broadcast.

    Raises:
        ValueError: they do not.
    """
    if any(a != b and 1 not in (a, b) for a, b in zip(reversed(shape), reversed(expected), strict=False)):
        raise ValueError(
            f"{name} must broadcast with the batch shape of {other}, {tuple(expected)}, got {tuple(shape)}"
        )


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """`value` is one of `choices`.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, str) or value not in choices:
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
        ValueError: it is not finite, or not in the dtype of `like`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number or a tensor, got {type(value).__name__}")
    # a number that torch.compile made symbolic has no value here
    if not torch.compiler.is_compiling():
        check_finite(name, value, like.dtype)
    return torch.full((), float(value), dtype=like.dtype, device=like.device)


def check_finite(name: str, value: float, dtype: torch.dtype = torch.float64) -> None:
    """A number is finite, also where it is converted to `dtype`.

    Raises:
        ValueError: it is not.
    """
    largest = _LARGEST[dtype]
    if abs(value) <= largest:
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    raise ValueError(f"{name} must be at most {largest:.3g}, the largest number in {dtype}, got {_short(value)}")


def _short(number: float) -> str:
    """A number in a few letters; an int of thousands of digits has no other ones."""
    return repr(number) if isinstance(number, float) else f"an int of {number.bit_length()} bits"


def check_entries(name: str, *shape: int) -> None:
    """A tensor of this shape, which `name` asks for, has no more entries than can be counted; nor would it with a
    row where it has none, which is how its strides are counted.

    Raises:
        ValueError: it has more.
    """
    if torch.compiler.is_compiling():
        return  # sizes are symbols
    if math.prod([max(size, 1) for size in shape]) > LARGEST_INT:
        raise ValueError(f"{name} must give tensors of fewer than 2**63 entries, got shape {shape}")


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
