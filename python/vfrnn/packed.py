"""How a network walks through sequences: all equally long, or those of a PackedSequence (padded: `vfrnn.padded`).

The classes bring what a layer reads into the order of its steps (`steps`, `times`), bring its states back (`in_place`)
and find every sequence's last state (`last`). `lengths` (B,) is where the padding begins, None where there is none.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Equal:
    """Sequences of one length, x (T, B, features)."""

    lengths: Tensor | None = None

    def steps(self, x: Tensor, reverse: bool) -> Tensor:
        return x.flip(0) if reverse else x

    def times(self, dt: Tensor, reverse: bool) -> Tensor:
        """The times of the steps from those of the inputs, (T,) or (T, B)."""
        return self.steps(dt, reverse)

    def in_place(self, hs: Tensor, reverse: bool) -> Tensor:
        return hs.flip(0) if reverse else hs

    def last(self, hs: Tensor) -> Tensor:
        return hs[-1]


class Packed:
    """Sequences of different lengths, the longest first, packed as x (sum of the lengths, features).

    A layer runs on the padded batch (T, B, features), in one call of the op: row k of the packed data is step t of
    sequence b. The other direction reads every sequence from its own end, so that in both the padding comes last,
    where it changes nothing. Beside the packed x and hs this takes memory (and time) for the padding: T B rows each
    instead of the sum of the lengths. States in the padding are dropped, and their gradient is 0; but a step that
    lets them overflow within T steps (relu, identity, a growing matrix) makes gradients NaN.

    Args:
        batch_sizes: (T,), on the CPU: how many sequences have a step t.
        B: how many sequences there are.
        x: the packed data.
    """

    def __init__(self, batch_sizes: Tensor, B: int, x: Tensor) -> None:
        rows, self.T, self.B = x.shape[0], batch_sizes.shape[0], B
        t = torch.arange(self.T).repeat_interleave(batch_sizes, output_size=rows)
        b = torch.arange(rows) - (batch_sizes.cumsum(0) - batch_sizes)[t]
        self.lengths: Tensor | None
        self.lengths = lengths = (torch.arange(self.B) < batch_sizes.unsqueeze(1)).sum(0)  # (B,)
        # rows of the padded batch, flattened to (T B, features)
        places = (t * self.B + b, (lengths[b] - 1 - t) * self.B + b, (lengths - 1) * self.B + torch.arange(self.B))
        self.forward, self.backward, self.ends = (place.to(x.device, non_blocking=True) for place in places)

    def steps(self, x: Tensor, reverse: bool) -> Tensor:
        padded = x.new_zeros(self.T * self.B, x.shape[1])
        return padded.index_copy(0, self._rows(reverse), x).unflatten(0, (self.T, self.B))

    def packed(self, padded: Tensor) -> Tensor:
        """Rows of the packed data from the padded batch (T, B)."""
        return padded.flatten().index_select(0, self.forward)

    def times(self, dt: Tensor, reverse: bool) -> Tensor:
        """The times of the steps (T, B) from those of the packed inputs (rows,); 0 in the padding."""
        return self.steps(dt.unsqueeze(1), reverse).squeeze(2)

    def in_place(self, hs: Tensor, reverse: bool) -> Tensor:
        return hs.flatten(0, 1).index_select(0, self._rows(reverse))

    def last(self, hs: Tensor) -> Tensor:
        return hs.flatten(0, 1).index_select(0, self.ends)

    def _rows(self, reverse: bool) -> Tensor:
        return self.backward if reverse else self.forward
