"""Many small launches as few: chunks of time steps recorded once as CUDA graphs, on buffers of their own.

A step of the step-by-step route takes less time on the device than its launch takes in Python. Steps are therefore
launched in chunks: their operands are copied into the buffers of a graph, which replays the chunk's launches by itself.
Where a graph is already being captured, and for the few steps left over, the kernels are launched one by one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

#: Steps of a chunk, longest first, and the most elements that a buffer may have.
CHUNKS = (64, 8)
LARGEST_BUFFER = 1 << 24
GRAPHS_KEPT = 16

#: Launches one step: (state before, weights, operands of this step).
Step = Callable[[Tensor, Sequence[Tensor], Sequence[Tensor]], None]


class StepGraph:
    """The launches of a chunk of steps. The last operand of a step receives its new state."""

    def __init__(
        self,
        step: Step,
        length: int,
        state: Tensor,
        weights: Sequence[Tensor],
        operands: Sequence[Tensor],
        reverse: bool,
    ) -> None:
        self.state = torch.zeros_like(state)
        self.weights = [torch.zeros_like(weight) for weight in weights]
        self.operands = [operand.new_zeros(length, *operand.shape[1:]) for operand in operands]
        # A kernel loads at its first launch, which must not be one that is recorded.
        step(self.state, self.weights, [operand[0] for operand in self.operands])
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(torch.cuda.Stream(state.device)):
            self.graph.capture_begin(capture_error_mode="thread_local")
            before = self.state
            for k in reversed(range(length)) if reverse else range(length):
                step(before, self.weights, [operand[k] for operand in self.operands])
                before = self.operands[-1][k]
            self.state.copy_(before)
            self.graph.capture_end()

    def set_weights(self, weights: Sequence[Tensor]) -> None:
        """Copies the weights into the graph's buffers."""
        for buffer, weight in zip(self.weights, weights, strict=True):
            buffer.copy_(weight)

    def run(self, state: Tensor, operands: Sequence[Tensor]) -> None:
        """The chunk on these operands; the new states go to the last."""
        self.state.copy_(state)
        for buffer, operand in zip(self.operands, operands, strict=True):
            buffer.copy_(operand)
        self.graph.replay()
        operands[-1].copy_(self.operands[-1])


# Keyed by the stream too: work of one stream never meets another's in the buffers.
_graphs: OrderedDict[Hashable, StepGraph] = OrderedDict()
# A graph's buffers are one thread's from its weights to its last state: the default stream is that of all threads. A
# handler of a signal may interrupt a thread that has them.
_in_use = threading.RLock()


def run_steps(
    key: Hashable, step: Step, state: Tensor, weights: Sequence[Tensor], operands: Sequence[Tensor], reverse: bool
) -> None:
    """`step` for every index of the operands' first dimension, from the last to the first if `reverse`.

    Args:
        key: what `step` is, apart from the shapes of its tensors.
        step: launches one step; its new state is the last of its operands.
        state: before the first step.
        weights: tensors that every step reads.
        operands: (T, ...) each: what a step reads, and the last what it writes.
        reverse: whether time runs backwards.
    """
    T = operands[0].shape[0]
    done = 0
    for length in _chunk_lengths(state):
        if T - done < length:
            continue
        with _in_use:
            graph = _graph(key, step, length, state, weights, operands, reverse)
            graph.set_weights(weights)
            while T - done >= length:
                part = slice(T - done - length, T - done) if reverse else slice(done, done + length)
                graph.run(state, [operand[part] for operand in operands])
                state = operands[-1][part.start if reverse else part.stop - 1]
                done += length
    for k in range(done, T):
        t = T - 1 - k if reverse else k
        step(state, weights, [operand[t] for operand in operands])
        state = operands[-1][t]


def _chunk_lengths(state: Tensor) -> tuple[int, ...]:
    if state.device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return ()
    return tuple(length for length in CHUNKS if length * state.numel() <= LARGEST_BUFFER)


def _graph(
    key: Hashable,
    step: Step,
    length: int,
    state: Tensor,
    weights: Sequence[Tensor],
    operands: Sequence[Tensor],
    reverse: bool,
) -> StepGraph:
    stream = torch.cuda.current_stream(state.device).cuda_stream
    place = (key, reverse, length, tuple(state.shape), state.device, stream)
    if place not in _graphs:
        _graphs[place] = StepGraph(step, length, state, weights, operands, reverse)
        if len(_graphs) > GRAPHS_KEPT:
            _graphs.popitem(last=False)
    _graphs.move_to_end(place)
    return _graphs[place]
