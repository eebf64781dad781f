"""Data-parallel training: every process that torchrun started takes its share of every batch.

All processes draw the same batches and hold the same model. Gradients are summed by hand, with the shares of a batch as
weights, and not by DistributedDataParallel: its mean over processes is that over the batch only where all shares are
equally large and none is empty.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch import distributed as dist

from vfrnn.tasks.task import Batch

ENDED = "another process of the run has ended, or cannot be reached"


class Processes(Protocol):
    """The processes of a run, `size` in number, as the one with this `rank`, which computes on `device`, sees them."""

    rank: int
    size: int
    device: torch.device

    def sum(self, values: Tensor) -> Tensor:
        """The sum of the tensors of all processes."""
        ...


class Alone:
    """A run of one process."""

    rank, size = 0, 1

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)

    def sum(self, values: Tensor) -> Tensor:
        return values


class Group:
    """The process group of torch.distributed."""

    def __init__(self, device: str) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.device = torch.device(device)

    def sum(self, values: Tensor) -> Tensor:
        """
        Raises:
            RuntimeError: another process has ended, or cannot be reached.
        """
        try:
            dist.all_reduce(values)
        except RuntimeError as error:
            raise RuntimeError(f"{ENDED}: {str(error).splitlines()[0]}") from error
        return values


def shard(batch: Batch, processes: Processes) -> tuple[Tensor, Tensor, float]:
    """The samples of a batch that are this process's, on its device, and which share of the batch they are; perhaps
    none."""
    x, target = batch
    count = target.shape[-1]
    low, high = (count * k // processes.size for k in (processes.rank, processes.rank + 1))
    mine, of_mine = (part.to(processes.device) for part in (x[:, low:high], target[..., low:high]))
    return mine, of_mine, (high - low) / count


def sum_gradients(parameters: Sequence[nn.Parameter], loss: Tensor, processes: Processes) -> Tensor:
    """Sums gradients in place, and returns the sum of the losses."""
    if processes.size == 1:
        return loss
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    summed = processes.sum(torch.cat([loss.reshape(1), *(part.flatten() for part in parts)]))
    of_loss, *gradients = summed.split([1, *(part.numel() for part in parts)])
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.view_as(parameter)
    return of_loss[0]


@contextmanager
def joined(device: str = "cpu") -> Iterator[Processes]:
    """All processes of the run that torchrun started, or this one alone; on "cuda" each has a GPU of its own.

    Of several that fail the first raises its error, which the command line prints; the others end without a word, and
    torchrun ends those that wait for it.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield Alone(device)
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    store, rank, size = next(iter(dist.rendezvous("env://")))
    dist.init_process_group(dist.get_default_backend_for_device(device), store=store, rank=rank, world_size=size)
    try:
        yield Group(device)
    except (Exception, KeyboardInterrupt) as error:
        if store.add("failures", 1) > 1:
            raise SystemExit(1) from error
        raise
    finally:
        dist.destroy_process_group()
