"""The last state of a recurrent op alone, from O(sqrt T) states: how it becomes an op of its own, `<op>_final`.

The forward goes through time in chunks of about sqrt(T) steps and keeps the states between them. The backward goes
back through the chunks, computes the states of one again, and takes its gradients with the backward of the op itself:
all backends of the op serve, and time is that of one forward more (Chen et al. 2016, arXiv 1604.06174).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from vfrnn_kernels.autograd import differentiable, kernels_of
from vfrnn_kernels.declaration import Constant, Flops, Gradients, Op, Saved, Sizes, T, Tensors

#: Numbers of a chunk's states below which a call would take longer to make than to run.
LEAST_NUMBERS = 1 << 20


def chunk_length(T: int, B: int, n: int) -> int:
    """Steps of a chunk: as many as there are chunks, or more where the states are small."""
    return max(math.isqrt(max(T - 1, 0)) + 1, LEAST_NUMBERS // max(B * n, 1))


def _chunk_of_program(T: int, B: int, n: int, reversible: bool) -> int | None:
    """`chunk_length`, as a power of two, in a program that torch.compile or torch.export makes; None for one chunk.

    Of sizes that differ from call to call nothing may be read, or the program would be one for these sizes alone: one
    that does not know whether there are several chunks keeps all states.
    """
    known = torch.fx.experimental.symbolic_shapes.statically_known_true
    lengths = [2**k for k in range(21)]
    large = [c for c in lengths if known(c * B * n >= LEAST_NUMBERS) and known(c * B * n <= 2 * LEAST_NUMBERS)]
    roots = [c for c in lengths if known(c * c >= T)]
    chunk = max([*large[:1], *(roots[:1] or [1024])])
    if reversible:
        return chunk
    return chunk if roots and known(T > chunk) and known(T * B * n > LEAST_NUMBERS) else None


def last_state(
    whole: Callable[..., Tensors],
    final: Callable[..., Tensors],
    arguments: Sequence[Any],
    sizes: Sizes,
    reversible: bool = False,
) -> Tensor:
    """h_T (B, n), by the op `whole` or by its `<op>_final`; `sizes` has those of T, B and n."""
    T, B, n = sizes["T"], sizes["B"], sizes["n"]
    if torch.compiler.is_compiling():
        chunk = _chunk_of_program(T, B, n, reversible)
    else:
        chunk = chunk_length(T, B, n)
        chunk = None if not reversible and 0 < T <= chunk else chunk
    if chunk is None:
        # One chunk: what would be computed again is as much as may be kept.
        return whole(*arguments)[0][-1].clone()
    return final(*arguments, reversible, chunk)[0]


def final_state(op: Op) -> dict[str, Callable[..., Tensors]]:
    """`<op>_final` as one differentiable function per backend: (*inputs, *constants, reversible, chunk) -> h_T and,
    beside it, the states between chunks."""
    assert op.state is not None
    name, state = f"{op.name}_final", op.state
    x_place, h0_place, inputs = op.index(op.timed[0]), op.index(state), len(op.inputs)

    def whole(*args: Any) -> Tensors:
        T, h0 = args[x_place].shape[0], args[h0_place]
        return (op.reference(*args[:-2])[0][-1] if T else h0.clone(),)

    def whole_backward(grad: Tensor, *args: Any) -> Gradients:
        tensors, constants = args[:inputs], args[inputs + 1 : -2]
        if tensors[x_place].shape[0] == 0:
            zeros = (None if t is None else torch.zeros_like(t) for t in tensors)
            return tuple(grad if k == h0_place else zero for k, zero in enumerate(zeros))
        results = op.reference(*tensors, *constants)
        grad_hs = torch.zeros_like(results[0])
        grad_hs[-1:] = grad
        return op.reference_backward(grad_hs, *tensors, *results, *constants)

    def chunks(sizes: Sizes, arguments: Sequence[Any]) -> Sizes:
        reversible, chunk = arguments[-2:]
        return {"chunks": 0 if reversible else -(-sizes["T"] // chunk)}

    def on(backend: str) -> Any:
        chunks = _Chunks(op, backend)
        return SimpleNamespace(**{name: chunks.forward, f"{name}_backward": chunks.backward})

    final = dataclasses.replace(
        op,
        name=name,
        constants=(*op.constants, Constant("reversible", "bool"), Constant("chunk", "int")),
        outputs=(T("h_T", "B n", like=state),),
        saved=Saved((T("between", "chunks B n", like=state),), chunks),
        saved_by_triton=None,
        reference=whole,
        reference_backward=whole_backward,
        flops=_flops_of_chunks(op),
        composed=on("cpu"),
        composed_on_cuda=None,
        triton=on("triton"),
    )
    return differentiable(final)


def _flops_of_chunks(op: Op) -> Flops:
    """The states are computed once, and again for a backward that needs all of those of the first state as well; where
    the steps are turned back, by as much."""

    def backward(sizes: Sizes, named: Mapping[str, Any], wanted: frozenset[str]) -> int:
        return op.flops.forward(sizes, named) + op.flops.backward(sizes, named, wanted)

    return Flops(op.flops.forward, backward)


class _Chunks:
    """The op chunk by chunk, by the kernels of a backend."""

    def __init__(self, op: Op, backend: str) -> None:
        self.op, self.backend = op, backend

    def _arguments(self, named: dict[str, Any]) -> tuple[dict[str, Tensor], list[Any]]:
        inputs = {name: named[name] for name in self.op.input_names}
        return inputs, [named[constant.name] for constant in self.op.constants]

    def _chunk(self, inputs: dict[str, Tensor], h: Tensor, first: int, last: int) -> dict[str, Tensor]:
        assert self.op.state is not None
        return inputs | {name: inputs[name][first:last] for name in self.op.timed} | {self.op.state: h}

    def _op(self, h0: Tensor, chunk: int) -> Callable[..., Tensors]:
        """The op on chunks of up to `chunk` steps, in the same memory every time if the library can: glibc does not
        reuse what is freed between smaller blocks."""
        if self.op.into is None or self.backend == "triton":
            return kernels_of(self.op, self.backend).forward
        into, memory = getattr(torch.ops.vfrnn_kernels, self.op.into), h0.new_empty(chunk, *h0.shape)
        x_place = self.op.index(self.op.timed[0])

        def run(*args: Any) -> Tensors:
            hs = memory[: args[x_place].shape[0]]
            into(hs, *args)
            return (hs,)

        return run

    def forward(self, *, reversible: bool, chunk: int, **named: Any) -> Tensors:
        inputs, constants = self._arguments(named)
        h0, T = named[str(self.op.state)], inputs[self.op.timed[0]].shape[0]
        run = self._op(h0, min(chunk, T))
        between = h0.new_empty(0 if reversible else -(-T // chunk), *h0.shape)
        h = h0.clone()
        for number, first in enumerate(range(0, T, chunk)):
            if not reversible:
                between[number] = h
            results = run(*self._chunk(inputs, h, first, min(first + chunk, T)).values(), *constants)
            h.copy_(results[0][-1])
        return h, between

    def backward(
        self,
        *,
        grad_h_T: Tensor,
        h_T: Tensor,
        between: Tensor,
        reversible: bool,
        chunk: int,
        wanted: frozenset[str],
        **named: Any,
    ) -> dict[str, Tensor]:
        op, state = self.op, self.op.state
        assert state is not None
        inputs, constants = self._arguments(named)
        backward = kernels_of(op, self.backend).backward
        needs = op.needs([name in wanted or name == state for name in op.input_names])
        T = inputs[op.timed[0]].shape[0]
        found = {
            # sums over many chunks in float64
            name: inputs[name].new_empty(inputs[name].shape)
            if name in op.timed
            else inputs[name].new_zeros(inputs[name].shape, dtype=torch.float64)
            for name in wanted
            if inputs[name] is not None
        }
        grad, h = grad_h_T, h_T
        run, grad_hs = self._op(h, min(chunk, T)), grad.new_zeros(min(chunk, T), *grad.shape)
        hs = h.new_empty(min(chunk, T) if reversible else 0, *h.shape)
        for number in reversed(range(-(-T // chunk))):
            first, last = number * chunk, min(number * chunk + chunk, T)
            if reversible:
                assert op.reverse is not None
                results: Tensors = (hs[: last - first],)
                h = op.reverse(run, self._chunk(inputs, h, first, last), constants, h, *results)
            else:
                h = between[number]
                results = run(*self._chunk(inputs, h, first, last).values(), *constants)
            here = self._chunk(inputs, h, first, last).values()
            part = grad_hs[len(grad_hs) - (last - first) :]
            part[-1] = grad
            gradients: Any = dict(zip(op.input_names, backward(part, *here, *results, *constants, needs), strict=True))
            grad = gradients[state]
            for name in found:
                if name in op.timed:
                    found[name][first:last] = gradients[name]
                elif name != state:
                    found[name] += gradients[name]
        if state in found:
            found[state] = grad if T else grad.clone()  # no result of an op is one of its arguments
        return {name: gradient.to(inputs[name].dtype) for name, gradient in found.items()}
