"""Arguments with a value for every step, the times `dt` and the mask `reset`: their checks, and their layout."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from vfrnn.packed import Packed
from vfrnn_kernels.checks import check_dense, check_shape, check_tensor


def check_times(dt: object, weight: Tensor) -> None:
    """The times of the steps are of the dtype and device of the parameters.

    Raises:
        TypeError, ValueError: they are not.
    """
    check_tensor("dt", dt.data if isinstance(dt, PackedSequence) else dt, weight, "the parameters")


def check_mask(reset: object, x: Tensor) -> Tensor:
    """The mask of the steps, or the data of a packed one: boolean, and on the device of the input.

    Raises:
        TypeError, ValueError, RuntimeError: it is not, or cannot be read where the call is transformed.
    """
    mask = reset.data if isinstance(reset, PackedSequence) else reset
    if not isinstance(mask, Tensor):
        raise TypeError(f"reset must be a boolean tensor or a PackedSequence of one, got {type(mask).__name__}")
    check_dense("reset", mask)
    if mask.dtype != torch.bool:
        raise TypeError(f"reset must be boolean, got {mask.dtype}: reset.bool() makes it so")
    if mask.device != x.device:
        raise ValueError(f"reset must be on the device of the input, {x.device}, got {mask.device}")
    if not torch.compiler.is_compiling() and torch._C._functorch.is_batchedtensor(mask):
        raise RuntimeError("reset must not be mapped by torch.vmap: its values decide how the sequences are cut")
    # Within Dynamo is_exporting() is true of every compilation before PyTorch 2.12; what cuts there says so itself.
    exporting = torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
    if exporting or torch.jit.is_tracing():
        where = "torch.export" if exporting else "torch.jit.trace"
        raise RuntimeError(f"reset must be None in {where}: its values decide how the sequences are cut")
    return mask


def padded(name: str, value: Tensor, T: int, B: int, *, batch_first: bool) -> Tensor:
    """The values as (T, B), or times that are the same for all sequences as (T,).

    Raises:
        ValueError: they have another shape.
    """
    expected, shape = ((B, T), "(B, T)") if batch_first else ((T, B), "(T, B)")
    if name == "dt":
        shape = f"(T,) or {shape}"
        expected = (T,) if value.dim() == 1 else expected  # type: ignore[assignment]
    check_shape(name, value, shape, expected, T=T, B=B)
    return value.mT if batch_first and value.dim() == 2 else value


def packed(
    name: str, value: Tensor | PackedSequence, input: PackedSequence, sequences: Packed, *, batch_first: bool
) -> Tensor:
    """The values packed like the input, (rows,), from packed ones or from those of a padded batch, in its order.

    Raises:
        ValueError: they do not fit the sequences.
    """
    if isinstance(value, PackedSequence):
        check_shape(name, value.data, "(rows,) as packed data, like the input", input.data.shape[:1])
        if not torch.equal(value.batch_sizes, input.batch_sizes):
            raise ValueError(f"{name} must be packed like the input, got other batch_sizes")
        order, wanted = _order(value, sequences.B), _order(input, sequences.B)
        if not (order.is_meta or wanted.is_meta or torch.equal(order, wanted)):
            raise ValueError(f"{name} must be packed like the input, got its sequences in another order")
        return value.data
    value = padded(name, value, sequences.T, sequences.B, batch_first=batch_first)
    if value.dim() == 1:
        return sequences.packed(value.expand(sequences.B, -1).mT)
    if input.sorted_indices is not None:
        value = value.index_select(1, input.sorted_indices)
    return sequences.packed(value)


def _order(sequences: PackedSequence, B: int) -> Tensor:
    """Which of the sequences that were given stands where, (B,)."""
    order = sequences.sorted_indices
    return torch.arange(B, device=sequences.data.device) if order is None else order
