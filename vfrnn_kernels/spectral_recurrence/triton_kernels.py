"""spectral_recurrence on a GPU: which kernels run its two chains over time. Kernels: triton_device.py.

Two routes:
- resident: one program takes BB samples through all T steps; the planes' vectors stay in its registers and shared
  memory. Up to n = `resident_limit()`.
- step by step: PyTorch's products of all samples, recorded as CUDA graphs (recurrence/triton_graphs.py).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vfrnn_kernels.activations import activate, grad_z_of, number
from vfrnn_kernels.recurrence.triton_graphs import run_steps
from vfrnn_kernels.recurrence.triton_kernels import with_adjacent_entries
from vfrnn_kernels.spectral_recurrence import chains
from vfrnn_kernels.spectral_recurrence.triton_device import spectral_bwd_kernel, spectral_fwd_kernel
from vfrnn_kernels.triton_runtime import KernelSpec, cdiv, next_power_of_2, pointer

#: Samples of a program: the least height of a tensor-core product.
BB = 16
SMALLEST_N = 64


def resident_limit() -> int:
    """Largest n for which the planes stay on the chip (tools/triton_resources.csv holds the kernels to that)."""
    return 64


def chain_spec(n: int, backward: bool, diverges: bool) -> KernelSpec:
    """The resident kernel of an n up to the limit."""
    N = max(SMALLEST_N, next_power_of_2(n))
    names = "grad hs grad_z dt basis quarters growth grad_h0" if backward else "hs dt basis quarters growth h0 beta"
    signature = {f"{name}_ptr": pointer(torch.float32) for name in names.split()}
    strides = ("dt_step", "dt_row", *(("grad_step", "grad_row") if backward else ()))
    signature |= dict.fromkeys(("T", "B", "n", "p", "substeps", *strides, "activation"), "i32")
    # Three products of TensorFloat32 give float32's accuracy.
    constants = {"N": N, "P": N // 2, "BB": BB, "DIVERGES": diverges, "PRECISION": "tf32x3"}
    kernel = spectral_bwd_kernel if backward else spectral_fwd_kernel
    return KernelSpec(kernel, signature, constants, num_warps=4, divisible=("n",) if n % 16 == 0 else ())


def specs() -> Iterator[KernelSpec]:
    """Every kernel x configuration that the op can launch; the same for all architectures."""
    N = SMALLEST_N
    while N <= resident_limit():
        for odd in (0, 1):
            for backward in (False, True):
                for diverges in (False, True):
                    yield chain_spec(N - odd, backward, diverges)
        N *= 2


def _is_resident(hs: Tensor) -> bool:
    B, n = hs.shape[1:]
    return n <= resident_limit() and B * n < 2**31


def _rates(delta: Tensor | None, omega: Tensor, n: int, substeps: int) -> tuple[Tensor, Tensor]:
    """Quarter turns of the planes, and growth of the units, per unit of a step's time."""
    growth = omega.new_zeros(n) if delta is None else delta / (-4 * substeps)
    return omega * (2 / math.pi / substeps), growth


def _move(g: Tensor, dt: Tensor, vectors: Tensor, quarters: Tensor, growth: Tensor, substeps: int) -> Tensor:
    """(e exp(dt S / k) e)^k g of rows g (B, n), with times dt (B,)."""
    angle = dt.unsqueeze(1) * quarters
    angle = (angle - (angle / 4).round() * 4) * (math.pi / 2)
    cosine, sine, e = angle.cos(), angle.sin(), torch.exp(dt.unsqueeze(1) * growth)
    for _ in range(substeps):
        x, y = ((e * g) @ vectors.mT).chunk(2, 1)
        g = e * (torch.cat([cosine * x - sine * y, sine * x + cosine * y], 1) @ vectors)
    return g


def states(
    hs: Tensor,
    delta: Tensor | None,
    dt: Tensor,
    h0: Tensor,
    beta: Tensor | None,
    basis: Tensor,
    omega: Tensor,
    activation: str,
    substeps: int,
) -> None:
    """hs: U x_t + c, replaced by h_t."""
    if hs.numel() == 0:
        return
    T, B, n = hs.shape
    h0 = h0.contiguous()
    quarters, growth = _rates(delta, omega, n, substeps)
    shift = h0 if beta is None else beta.contiguous()  # stands for a tensor that is not read
    if _is_resident(hs):
        spec = chain_spec(n, False, delta is not None)
        sizes = (T, B, n, len(omega), substeps, dt.stride(0), dt.stride(1), number(activation))
        spec.launch((cdiv(B, BB),), hs, dt, basis, quarters, growth, h0, shift, *sizes)
        return

    def step(h: Tensor, weights: Sequence[Tensor], operands: Sequence[Tensor]) -> None:
        (vectors, quarters, growth, shift), (times, h_t) = weights, operands
        z = h_t + _move(h, times, vectors, quarters, growth, substeps)
        h_t.copy_(activate(z, None if beta is None else shift, activation))

    weights = (basis.flatten(0, 1), quarters, growth, shift)
    run_steps(("spectral", activation, substeps), step, h0, weights, (dt.contiguous(), hs), reverse=False)


def grad_z_of_all(
    grad_hs: Tensor,
    delta: Tensor | None,
    dt: Tensor,
    basis: Tensor,
    omega: Tensor,
    hs: Tensor,
    activation: str,
    substeps: int,
) -> tuple[Tensor, Tensor]:
    """The gradients of the pre-activations (T, B, n), and of h0 (B, n)."""
    T, B, n = hs.shape
    found = torch.empty_like(hs, memory_format=torch.contiguous_format)
    if hs.numel() == 0:
        return found, hs.new_zeros(B, n)
    quarters, growth = _rates(delta, omega, n, substeps)
    if _is_resident(hs):
        grad_hs, grad_h0 = with_adjacent_entries(grad_hs), hs.new_empty(B, n)
        spec = chain_spec(n, True, delta is not None)
        sizes = (T, B, n, len(omega), substeps, dt.stride(0), dt.stride(1), grad_hs.stride(0), grad_hs.stride(1))
        pointers = (grad_hs, hs, found, dt, basis, quarters, growth, grad_h0)
        spec.launch((cdiv(B, BB),), *pointers, *sizes, number(activation))
        return found, grad_h0

    def step(carried: Tensor, weights: Sequence[Tensor], operands: Sequence[Tensor]) -> None:
        # what is carried is the transposed step of the grad_z after this one, of that one's time
        (vectors, quarters, growth), (times, grad, h, grad_z_t) = weights, operands
        moved = _move(carried, times, vectors, -quarters, growth, substeps)
        grad_z_t.copy_(grad_z_of(grad + moved, h, activation))

    weights = (basis.flatten(0, 1), quarters, growth)
    after = torch.cat([dt[1:], dt.new_zeros(1, B)])
    operands = (after, grad_hs.contiguous(), hs, found)
    run_steps(("spectral back", activation, substeps), step, hs.new_zeros(B, n), weights, operands, reverse=True)
    return found, _move(found[0], dt[0], weights[0], -quarters, growth, substeps)


spectral_recurrence = functools.partial(chains.forward, states)
spectral_recurrence_backward = functools.partial(chains.backward, grad_z_of_all)
