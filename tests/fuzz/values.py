"""Odd arguments: what is done to a right one, by name, so that a call is a line of Python that can be pasted."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Values that stand for every kind of number.
NUMBERS = (0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), float("-inf"), 1e-45, 1e-38, 1e38, -1e38, 1e308, 1e6, -3.0)
#: Sizes: none, one, primes, those of vectors and tiles, and huge ones.
SIZES = (0, 1, 2, 3, 5, 7, 16, 17, 31, 33)
HUGE = (2**31 - 1, 2**31, 2**32 + 1, 2**62, 2**63 - 1)
DTYPES = tuple(
    f"torch.{name}"
    for name in (
        "float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool", "complex64", "complex128",
        "float8_e4m3fn",
    )
)  # fmt: skip
#: Python source of what is no tensor.
NO_TENSORS = (
    "None", "0", "1", "-1", "True", "1.0", "float('nan')", "float('inf')", "'x'", "b'x'", "[]", "[[1.0, 2.0]]", "()",
    "{}", "object()", "torch.float32", "torch.device('cpu')", "np.float64(1)", "np.float32(2)", "np.int64(1)",
    "np.ones((3, 3), np.float32)", "np.ones(3)", "torch.nn.Parameter", "1j", "2**63", "10**400", "len", "range(3)",
    "torch.nn.utils.rnn.pack_sequence([torch.ones(2, 2)])", "Number()",
)  # fmt: skip
#: Python source of values for an argument that is a string, a bool, an int, a float.
STRINGS = (
    "''",
    "'Tanh'",
    "'tanh '",
    "'cpu'",
    "'x' * 5000",
    "None",
    "b'tanh'",
    "0",
    "('tanh',)",
    "[]",
    "'\\ud800'",
    "'\\0'",
)
BOOLS = ("True", "False", "0", "1", "None", "'False'", "np.bool_(True)", "torch.tensor(True)", "2.0", "[]")
INTS = (
    "0", "1", "2", "3", "7", "17", "-1", "True", "1.0", "2.5", "float('nan')", "'1'", "None", "np.int64(2)",
    "torch.tensor(2)", "[1]", "2**31", "2**32 + 1", "2**62", "2**63", "2**64 + 1", "10**30", "-2**63", "Number()",
)  # fmt: skip
FLOATS = (
    "0.0", "0.5", "1.0", "-1.0", "1", "0", "float('nan')", "float('inf')", "-float('inf')", "1e-45", "1e38", "1e308",
    "1e6", "1e-300", "True", "'1'", "None", "np.float32(0.5)", "np.float64(0.25)", "torch.tensor(0.5)",
    "torch.tensor(0.5, dtype=torch.float64)", "torch.tensor([0.5])", "torch.tensor(1)", "torch.tensor(float('nan'))",
    "torch.tensor(0.5, requires_grad=True)", "torch.tensor(0.5, device='meta')", "10**400", "2**70", "1j", "[0.5]",
    "Number()",
)  # fmt: skip


class Number:
    """Converts to a number, and is none."""

    def __index__(self) -> int:
        return 2

    def __float__(self) -> float:
        return 2.0


class Wrapped(Tensor):
    """A subclass of a tensor without a method of its own."""


def tensor(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
    """Normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    numbers = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    return numbers.to(dtype)


def every_other(t: Tensor) -> Tensor:
    """The same values, two entries apart."""
    if t.dim() == 0:
        return shifted(t)
    wide = t.new_full((*t.shape[:-1], 2 * t.shape[-1]), float("nan") if t.is_floating_point() else 1)
    wide[..., ::2] = t
    return wide[..., ::2]


def transposed(t: Tensor) -> Tensor:
    """The same values, in the order of columns."""
    return t.mT.contiguous().mT if t.dim() > 1 else every_other(t)


def permuted(t: Tensor) -> Tensor:
    """The same values, the first dimension innermost."""
    return t.movedim(0, -1).contiguous().movedim(-1, 0) if t.dim() else t


def shifted(t: Tensor) -> Tensor:
    """The same values, one entry behind the beginning of their storage: no vector of them is aligned."""
    flat = t.new_empty(t.numel() + 1)
    flat[1:] = t.reshape(-1)
    return flat[1:].view(t.shape)


def expanded(t: Tensor, dim: int) -> Tensor:
    """One slice of a dimension in every place, by a stride of 0."""
    if t.dim() == 0:
        return t
    dim %= t.dim()
    return t if t.shape[dim] == 0 else t.narrow(dim, 0, 1).expand(t.shape)


def overlapping(t: Tensor) -> Tensor:
    """Rows that begin one entry after each other."""
    return t.contiguous().as_strided(t.shape, (1,) * t.dim()) if t.numel() else t


def negated(t: Tensor) -> Tensor:
    """The same values behind torch's negative bit."""
    return torch._neg_view(-t) if t.is_floating_point() else t


def resized(t: Tensor, dim: int, size: int) -> Tensor:
    """Another size of a dimension, of repeated entries; a huge one by a stride of 0."""
    if t.dim() == 0:
        return t.expand(size)
    dim %= t.dim()
    if size > 1000:
        return t.new_ones(()).expand(*t.shape[:dim], size, *t.shape[dim + 1 :])
    if t.shape[dim] == 0:
        return t.new_ones((*t.shape[:dim], size, *t.shape[dim + 1 :]))
    index = torch.arange(size, device=t.device) % t.shape[dim]
    return t.index_select(dim, index)


def put(t: Tensor, value: float, index: int = 0) -> Tensor:
    """One entry has this value."""
    if t.numel():
        t = t.clone()
        t.view(-1)[index % t.numel()] = value
    return t


def inference(t: Tensor) -> Tensor:
    with torch.inference_mode():
        return t.clone()


def in_layout(t: Tensor, layout: str) -> Tensor:
    if layout == "nested":
        return torch.nested.nested_tensor([t, t])
    if layout == "mkldnn":
        return t.to_mkldnn()
    if layout == "quantized":
        return torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8)
    return t.to_sparse() if layout == "sparse" else t.to_sparse_csr()


def as_dtype(t: Tensor, dtype: torch.dtype) -> Tensor:
    return t.to(dtype)


#: What is done to a tensor, by name; those of SAME leave its values, shape, dtype and device as they were.
SAME: dict[str, Callable[..., Any]] = {
    "every_other": every_other,
    "transposed": transposed,
    "permuted": permuted,
    "shifted": shifted,
    "negated": negated,
    "subclass": lambda t: t.as_subclass(Wrapped),
    "parameter": lambda t: torch.nn.Parameter(t) if t.is_floating_point() else t,
    "inference": inference,
    "expanded": expanded,
    "overlapping": overlapping,
}
CHANGES: dict[str, Callable[..., Any]] = SAME | {
    "filled": lambda t, value: torch.full_like(t, value) if t.is_floating_point() else t,
    "put": put,
    "scaled": lambda t, value: t * value,
    "resized": resized,
    "unsqueezed": lambda t, dim: t.unsqueeze(dim % (t.dim() + 1)),
    "squeezed": lambda t: t.flatten() if t.dim() > 1 else t.sum(),
    "dtype": as_dtype,
    "meta": lambda t: t.to("meta"),
    "layout": in_layout,
    "numpy": lambda t: t.numpy(),
    "list": lambda t: t.tolist(),
    "is": lambda t, value: value,
}
NAMESPACE = {"torch": torch, "np": np, "Number": Number, "tensor": tensor, "inf": float("inf"), "nan": float("nan")}


def changed(value: Any, change: tuple[Any, ...]) -> Any:
    """An argument after a change: its name and what else it takes. What no tensor can take is left as it is."""
    name, *rest = change
    if name == "is":
        return rest[0]
    if not isinstance(value, Tensor):
        return value
    try:
        return CHANGES[name](value, *rest)
    except Exception:
        return value  # torch itself has no such tensor: a sparse one on meta, complex numbers quantized


@functools.cache
def named(dtype: str) -> torch.dtype:
    return getattr(torch, dtype.removeprefix("torch."))
