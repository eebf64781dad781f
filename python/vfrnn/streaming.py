"""Step matrices kept between the steps of a stream, until a parameter changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_KEPT = 16  # matrices of a module: a stream whose dt varies freely must not fill the memory


class _Kept:
    """The matrices of one module, made from `tensors` at these versions and addresses."""

    def __init__(self, tensors: list[Tensor], marks: list[tuple[int, int]]) -> None:
        self.tensors, self.marks = tensors, marks
        self.matrices: dict[Any, Tensor] = {}

    def are_of(self, tensors: list[Tensor], marks: list[tuple[int, int]]) -> bool:
        return (
            self.marks == marks
            and len(self.tensors) == len(tensors)
            and all(a is b for a, b in zip(self.tensors, tensors, strict=True))
        )


# Beside the modules, so that neither a copy nor a pickle of one carries matrices.
_kept: WeakKeyDictionary[nn.Module, _Kept] = WeakKeyDictionary()


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Parameters, buffers, and the tensors that stand in their place: in a replica of torch.nn.DataParallel, and in a
    module whose weights are computed before each pass, as pruning does."""
    plain = [value for inner in module.modules() for value in vars(inner).values() if isinstance(value, Tensor)]
    return [*module.parameters(), *module.buffers(), *plain]


def kept_matrix(module: nn.Module, key: Any, compute: Callable[[], Tensor]) -> Tensor:
    """`compute()`, or what it returned for this key while the module's tensors were what they are now.

    A tensor has changed when it is another one, lies elsewhere or has another version; writing through `.data` in
    place changes none of these. Where gradients are recorded nothing is kept: a graph serves one backward pass.
    """
    tensors = tensors_of(module)
    if (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or any(tensor.is_inference() for tensor in tensors)  # these have no version
    ):
        return compute()
    marks = [(tensor._version, tensor.data_ptr()) for tensor in tensors]
    kept = _kept.get(module)
    if kept is None or not kept.are_of(tensors, marks):
        kept = _kept[module] = _Kept(tensors, marks)
    matrix = kept.matrices.get(key)
    if matrix is None:
        matrix = compute()
        # Another dictionary takes the place of this one, which other threads may be reading.
        kept.matrices = {**dict([*kept.matrices.items()][1 - _KEPT :]), key: matrix}
    return matrix
