"""`recurrence_plan`: how the CUDA kernels would run a recurrence, on a machine without a GPU too."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Literal

import torch

from vfrnn_kernels.checks import check_bool, check_positive_int
from vfrnn_kernels.cuda_device import CudaDevice

#: An H100 or H200, for which the counts behind `RecurrencePlan.microseconds` were taken.
HOPPER = CudaDevice(architecture=90, code=90, multiprocessors=132, shared_limit=232448, largest_cluster=16)
#: Of a plan: an int, and the blocks of a grid.
LARGEST_N, LARGEST_BATCH = 2**30, 2**31 - 1
#: Those that the kernels take, by the names of the host module.
DTYPES = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "float32", torch.float64: "float64"}


@dataclass(frozen=True)
class RecurrencePlan:
    """A plan of `recurrence_plan`.

    Attributes:
        route: "cta" (a thread block keeps the matrix on the chip and runs the whole loop over time), "cluster" (blocks
            that share it do) or "steps" (a launch for each step).
        shape: number of the kernel's instance in the table of its route.
        N: the hidden size, padded to the tiles.
        cluster: thread blocks that share a matrix.
        samples: sequences that a block, or a cluster, advances at once.
        unit_tiles: tiles of the hidden size for each warp.
        blocks: thread blocks of the launch.
        threads: threads of a block.
        registers: registers of a thread that hold the matrix.
        shared: bytes of shared memory of a block.
        microseconds: per step of the whole batch: a lower bound from counts of the machine code, not measured.
    """

    route: Literal["cta", "cluster", "steps"]
    shape: int
    N: int
    cluster: int
    samples: int
    unit_tiles: int
    blocks: int
    threads: int
    registers: int
    shared: int
    microseconds: float


def recurrence_plan(
    n: int,
    batch: int,
    dtype: torch.dtype = torch.float32,
    *,
    backward: bool = False,
    device: CudaDevice = HOPPER,
) -> RecurrencePlan:
    """How the CUDA kernels run `recurrence` on a device; neither the device nor CUDA need be there.

    Args:
        n: hidden size.
        batch: sequences, B.
        dtype: of the matrix: torch.bfloat16, float16, float32 or float64.
        backward: the plan of the backward pass and not of the forward.
        device: `vfrnn_kernels.cuda_device.CudaDevice`; an H100 or H200 if not given, and what
            `vfrnn_kernels.cuda_device.cuda_device(index)` returns for a GPU of this machine.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
        ImportError: the host module of this package was not built.

    Example:
        >>> recurrence_plan(512, 64, torch.bfloat16).route
        'cluster'
    """
    check_positive_int("n", n, LARGEST_N)
    check_positive_int("batch", batch, LARGEST_BATCH)
    check_bool("backward", backward)
    if not isinstance(dtype, torch.dtype) or dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(map(str, DTYPES))}, got {dtype}")
    if not isinstance(device, CudaDevice):
        raise TypeError(f"device must be a vfrnn_kernels.cuda_device.CudaDevice, got {type(device).__name__}")
    host = importlib.import_module("vfrnn_kernels._host")  # loads no library of torch; its build is optional
    return RecurrencePlan(
        **host.recurrence_plan(
            n,
            DTYPES[dtype],
            batch,
            backward,
            device.architecture,
            device.multiprocessors,
            device.shared_limit,
            device.largest_cluster,
        )
    )
