"""The last state of a recurrent op alone, from O(sqrt T) states: how it becomes an op of its own, `<op>_final`.

The forward goes through time in chunks of about sqrt(T) steps and keeps the states between them. The backward goes
back through the chunks, computes the states of one again, and takes its gradients with the backward of the op itself:
all backends of the op serve, and time is that of one forward more (Chen et al. 2016, arXiv 1604.06174).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from vfrnn_kernels.autograd import differentiable, kernels_of

Tensors = tuple[Tensor, ...]
#: (run, the chunk's tensors, constants, its last state, hs) -> its first state; its states go to hs. `run` is the op.
Reverse = Callable[..., Tensor]
#: Numbers of a chunk's states below which a call would take longer to make than to run.
LEAST_NUMBERS = 1 << 20


def chunk_length(T: int, B: int, n: int) -> int:
    """Steps of a chunk: as many as there are chunks, or more where the states are small."""
    return max(math.isqrt(max(T - 1, 0)) + 1, LEAST_NUMBERS // max(B * n, 1))


def last_state(
    whole: Callable[..., Tensors],
    final: Callable[..., Tensors],
    arguments: Sequence[Any],
    sizes: tuple[int, int, int],
    reversible: bool = False,
) -> Tensor:
    """h_T (B, n), by the op `whole` or by its `<op>_final`; `sizes` are T, B, n."""
    chunk = chunk_length(*sizes)
    if not reversible and 0 < sizes[0] <= chunk:
        # One chunk: what would be computed again is as much as may be kept.
        return whole(*arguments)[0][-1].clone()
    return final(*arguments, reversible, chunk)[0]


@dataclass(frozen=True)
class Recurrent:
    """A recurrent op: (*tensors, *constants) -> hs (T, B, n), and what else its kernels keep.

    Attributes:
        name: of the op.
        inputs: how many of the arguments are tensors.
        timed: indices of those that begin with the time, x the first.
        state: index of h0.
        into: the library op that computes the states into its first argument; None: there is none.
        reverse: how a chunk is found from its last state, where the last constant asks for that; None: it never can.
    """

    name: str
    inputs: int
    timed: Sequence[int]
    state: int
    into: str | None = None
    reverse: Reverse | None = None


def final_state(
    op: Recurrent,
    *,
    arguments: str,
    reference: Callable[..., Tensors],
    reference_backward: Callable[..., tuple[Tensor | None, ...]],
) -> dict[str, Callable[..., Tensors]]:
    """`<op>_final` as one differentiable function per backend: (*tensors, *constants, reversible, chunk) -> h_T and,
    beside it, the states between chunks. The parameters are those of `autograd.differentiable` for the op itself."""
    name = f"{op.name}_final"

    def whole(*args: Any) -> Tensors:
        T, h0 = args[op.timed[0]].shape[0], args[op.state]
        return (reference(*args[:-2])[0][-1] if T else h0.clone(),)

    def whole_backward(grad: Tensor, *args: Any) -> tuple[Tensor | None, ...]:
        tensors, constants = args[: op.inputs], args[op.inputs + 1 : -2]
        if tensors[op.timed[0]].shape[0] == 0:
            zeros = (None if t is None else torch.zeros_like(t) for t in tensors)
            return tuple(grad if k == op.state else zero for k, zero in enumerate(zeros))
        results = reference(*tensors, *constants)
        grad_hs = torch.zeros_like(results[0])
        grad_hs[-1:] = grad
        return reference_backward(grad_hs, *tensors, *results, *constants)

    def fake(*args: Any) -> Tensors:
        T, h0 = args[op.timed[0]].shape[0], args[op.state]
        reversible, chunk = args[-2:]
        kept = 0 if reversible else -(-T // chunk)
        return h0.new_empty(h0.shape), h0.new_empty(kept, *h0.shape)

    def on(backend: str) -> Any:
        chunks = _Chunks(op, backend)
        return SimpleNamespace(**{name: chunks.forward, f"{name}_backward": chunks.backward})

    return differentiable(
        name,
        arguments=f"{arguments}, bool reversible, int chunk",
        reference=whole,
        reference_backward=whole_backward,
        fake=fake,
        inputs=op.inputs,
        outputs=1,
        saved=1,
        triton_saved=1,
        composition=on("cpu"),
        triton_composition=on("triton"),
    )


class _Chunks:
    def __init__(self, op: Recurrent, backend: str) -> None:
        self.op, self.backend = op, backend

    def _tensors(self, tensors: Tensors, h: Tensor, first: int, last: int) -> list[Tensor]:
        chunk = [*tensors]
        for k in self.op.timed:
            chunk[k] = tensors[k][first:last]
        chunk[self.op.state] = h
        return chunk

    def _op(self, h0: Tensor, chunk: int) -> Callable[..., Tensors]:
        """The op on chunks of up to `chunk` steps, in the same memory every time if the library can: glibc does not
        reuse what is freed between smaller blocks."""
        if self.op.into is None or self.backend == "triton":
            return kernels_of(f"{self.op.name}:{self.backend}").forward
        into, memory = getattr(torch.ops.vfrnn_kernels, self.op.into), h0.new_empty(chunk, *h0.shape)

        def run(*args: Any) -> Tensors:
            hs = memory[: args[self.op.timed[0]].shape[0]]
            into(hs, *args)
            return (hs,)

        return run

    def forward(self, *args: Any) -> Tensors:
        tensors, (*constants, reversible, chunk) = args[: self.op.inputs], args[self.op.inputs :]
        h0, T = tensors[self.op.state], tensors[self.op.timed[0]].shape[0]
        run = self._op(h0, min(chunk, T))
        kept = h0.new_empty(0 if reversible else -(-T // chunk), *h0.shape)
        h = h0.clone()
        for number, first in enumerate(range(0, T, chunk)):
            if not reversible:
                kept[number] = h
            results = run(*self._tensors(tensors, h, first, min(first + chunk, T)), *constants)
            h.copy_(results[0][-1])
        return h, kept

    def backward(self, grad: Tensor, *args: Any) -> tuple[Tensor | None, ...]:
        op = self.op
        tensors, (h, kept, *constants, reversible, chunk, needs) = args[: op.inputs], args[op.inputs :]
        kernels = kernels_of(f"{op.name}:{self.backend}")
        T = tensors[op.timed[0]].shape[0]
        wanted = [k for k in range(op.inputs) if needs >> k & 1 and tensors[k] is not None]
        found = {
            # sums over many chunks in float64
            k: tensors[k].new_empty(tensors[k].shape)
            if k in op.timed
            else tensors[k].new_zeros(tensors[k].shape, dtype=torch.float64)
            for k in wanted
        }
        run, grad_hs = self._op(h, min(chunk, T)), grad.new_zeros(min(chunk, T), *grad.shape)
        hs = h.new_empty(min(chunk, T) if reversible else 0, *h.shape)
        for number in reversed(range(-(-T // chunk))):
            first, last = number * chunk, min(number * chunk + chunk, T)
            if reversible:
                assert op.reverse is not None
                results: Tensors = (hs[: last - first],)
                h = op.reverse(run, self._tensors(tensors, h, first, last), constants, h, *results)
            else:
                h = kept[number]
                results = run(*self._tensors(tensors, h, first, last), *constants)
            here = self._tensors(tensors, h, first, last)
            part = grad_hs[len(grad_hs) - (last - first) :]
            part[-1] = grad
            gradients: Any = kernels.backward(part, *here, *results, *constants, needs | 1 << op.state)
            grad = gradients[op.state]
            for k in wanted:
                if k in op.timed:
                    found[k][first:last] = gradients[k]
                elif k != op.state:
                    found[k] += gradients[k]
        if op.state in found:
            found[op.state] = grad if T else grad.clone()  # no result of an op is one of its arguments
        return tuple(found[k].to(tensors[k].dtype) if k in found else None for k in range(op.inputs))
