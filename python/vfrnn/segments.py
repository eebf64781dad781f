"""Resets inside sequences: the segments between them, which do not depend on each other, run as batches."""

from __future__ import annotations

import torch
from torch import Tensor

from vfrnn.steps import Steps


class Segments:
    """Sequences cut into segments, each of which begins at a state of its own.

    The segments are sorted by length into at most log2(T) + 2 batches, in each of which the longest is less than twice
    as long as the shortest: a layer takes at most 2 T steps, most of them for many segments at once, and gathers and
    scatters its inputs and states once.

    Args:
        cut: (T, B), boolean, in the order of the layer's steps: before which of them a segment begins.
        lengths: (B,), behind which the sequences are padding, whose states are arbitrary; None where there is none.
    """

    def __init__(self, cut: Tensor, lengths: Tensor | None = None) -> None:
        self.T, self.B = cut.shape
        self.batches, self.places = _batches(cut, lengths)

    def states(self, steps: Steps, x: Tensor, h0: Tensor, start: Tensor, dt: Tensor | None = None) -> Tensor:
        """All states (T, B, n) on x (T, B, i), from h0 (B, n) to the first cut and from `start` (n,) after each.

        dt, (T,) or (T, B), is given where the steps have times of their own.
        """
        if not self.batches:
            return steps(x, h0, dt)
        first = torch.cat([h0, start.unsqueeze(0)])
        rows, found = x.flatten(0, 1), []
        times = None if dt is None else (dt if dt.dim() == 2 else dt.unsqueeze(1).expand(self.T, self.B)).flatten()
        for row, begin in self.batches:
            of_batch = None if times is None else times.index_select(0, row.flatten()).view(row.shape)
            inputs = rows.index_select(0, row.flatten()).unflatten(0, row.shape)
            found.append(steps(inputs, first.index_select(0, begin), of_batch).flatten(0, 1))
        states = torch.cat(found) if len(found) > 1 else found[0]
        return states.index_select(0, self.places).unflatten(0, (self.T, self.B))


def _batches(cut: Tensor, lengths: Tensor | None) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """The batches, and where in their states, one behind the other, each row of the padded batch is found, (T B,).

    A batch has its steps' rows in the padded batch (W, K), and where its segments begin (K,): the number of a
    sequence, at whose first state, or B. There are none without sequences, nor where values are not known.
    """
    device, (T, B) = cut.device, cut.shape
    if cut.is_meta or B == 0:
        return [], cut.new_zeros(T * B, dtype=torch.long)
    # On the CPU, in one transfer. Position b T + t is step t of sequence b: no segment goes from one to another.
    cut = cut.mT.cpu()
    begins = cut.clone()
    begins[:, 0] = True
    starts = begins.flatten().nonzero().squeeze(1)
    b, t = starts // T, starts % T
    ends = torch.full((B,), T) if lengths is None else lengths.cpu().long()
    sizes = torch.minimum(starts.diff(append=starts.new_tensor([B * T])), ends[b] - t)
    at_first = (t == 0) & ~cut[b, t]
    batches, places, offset = [], torch.zeros(T * B, dtype=torch.long), 0
    # class k holds the lengths from 2^(k-1) + 1 to 2^k
    classes = torch.bucketize(sizes, 2 ** torch.arange(T.bit_length()))
    for k in classes[sizes > 0].unique().tolist():
        chosen = ((classes == k) & (sizes > 0)).nonzero().squeeze(1)
        size, first = sizes[chosen], at_first[chosen]
        w = torch.arange(int(size.max())).unsqueeze(1)
        # behind its end a segment reads its last step again, so that no value comes in that the layer would not see
        rows = (t[chosen] + torch.minimum(w, size - 1)) * B + b[chosen]  # (W, K)
        inside = w < size
        places[rows[inside]] = offset + inside.flatten().nonzero().squeeze(1)
        offset += rows.numel()
        batches.append((rows.to(device), torch.where(first, b[chosen], B).to(device)))
    return batches, places.to(device)
