"""torch.vmap of an op: one call for all that is mapped, where the op computes samples that know nothing of each other.

The dimension that is mapped joins the one that counts samples (`Op.samples`), so that a result is that of the loop, to
the bit. The gradient of a tensor without samples, as the matrix of a recurrence, which the op would add up over all
that is mapped, follows for each from those of tensors with samples (`Op.per_sample`). Where there is no way to that, or
where a tensor without samples is mapped itself, the op runs once for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vfrnn_kernels.declaration import Op, T, Tensors

InDims = tuple[int | None, ...]


def map_op(
    run: Callable[..., Tensors],
    declared: Sequence[T],
    results: Sequence[T],
    letters: Sequence[str],
    batch_size: int,
    in_dims: InDims,
    args: tuple[Any, ...],
) -> tuple[Tensors, tuple[int, ...]]:
    """The results of `run` for every index of the dimensions mapped, and which of their dimensions that is.

    Args:
        run: of the arguments given.
        declared: what the first arguments are; the others are no tensors.
        results: what the results are.
        letters: that count samples, in the shapes of `declared` and `results`.
        batch_size: of the dimensions mapped.
        in_dims: of each argument, None where it is not mapped.
        args: with the dimensions that are mapped.
    """
    places = [_place(t, letters) for t in declared]
    found = [_place(t, letters) for t in results]
    mapped = [place for place, dim in zip(places, in_dims, strict=False) if dim is not None]
    if any(place is None for place in (*mapped, *found)):
        return _one_by_one(run, batch_size, in_dims, args)
    tensors = zip(args, in_dims, places, strict=False)
    joined = [_joined(tensor, dim, place, batch_size) for tensor, dim, place in tensors]
    values = run(*joined, *args[len(joined) :])
    split = zip(values, found, strict=True)
    return tuple(_split(value, place or 0, batch_size) for value, place in split), tuple(place or 0 for place in found)


def map_per_sample(
    op: Op,
    run: Callable[..., Tensors],
    declared: Sequence[T],
    wanted: Sequence[T],
    batch_size: int,
    in_dims: InDims,
    args: tuple[Any, ...],
) -> tuple[Tensors, tuple[int, ...]] | None:
    """`map_op` of a backward, with gradients of tensors without samples; None where that is not what is asked for, or
    the op has no way to it."""
    places = [_place(t, op.samples) for t in declared]
    found = [_place(t, op.samples) for t in wanted]
    mapped = [place for place, dim in zip(places, in_dims, strict=False) if dim is not None]
    if op.per_sample is None or None in mapped or None not in found:
        return None
    tensors = zip(args, in_dims, places, strict=False)
    joined = [_joined(tensor, dim, place, batch_size) for tensor, dim, place in tensors]
    names = [t.name for t in wanted]
    gradients = op.per_sample(run, batch_size, frozenset(names), *joined, *args[len(joined) : -1])
    values = zip(names, found, strict=True)
    split = [gradients[name] if place is None else _split(gradients[name], place, batch_size) for name, place in values]
    return tuple(split), tuple(place or 0 for place in found)


def _place(t: T, letters: Sequence[str]) -> int | None:
    """The dimension that counts samples."""
    return next((k for k, letter in enumerate(t.shape.split()) if letter in letters), None)


def _joined(tensor: Tensor | None, dim: int | None, place: int | None, batch_size: int) -> Tensor | None:
    """The tensor with the mapped dimension and that of its samples as one; it is repeated where it is not mapped."""
    if tensor is None or place is None:
        return tensor
    if dim is None:
        shape = tensor.shape
        tensor = tensor.unsqueeze(place).expand(*shape[:place], batch_size, *shape[place:])
    else:
        tensor = tensor.movedim(dim, place)
    return tensor.flatten(place, place + 1)


def _split(tensor: Tensor, place: int, batch_size: int) -> Tensor:
    return tensor.unflatten(place, (batch_size, tensor.shape[place] // batch_size))


def _one_by_one(
    run: Callable[..., Tensors], batch_size: int, in_dims: InDims, args: tuple[Any, ...]
) -> tuple[Tensors, tuple[int, ...]]:
    rows = [
        run(*(arg if dim is None else arg.select(dim, k) for arg, dim in zip(args, in_dims, strict=True)))
        for k in range(batch_size)
    ]
    stacked = tuple(torch.stack(column) for column in zip(*rows, strict=True))
    return stacked, (0,) * len(stacked)
