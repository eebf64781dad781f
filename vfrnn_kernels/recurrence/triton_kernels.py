"""recurrence on a GPU: which kernels run (routes, configurations), forward and backward. Kernels: triton_device.py.

Two routes:
- resident: one program takes BB samples through all T steps; M stays in its registers and shared memory, and programs
  never wait for each other. Up to n = `resident_limit(dtype)`.
- step by step: a product of all samples per step, on tiles; triton_graphs.py launches them as CUDA graphs.
The input product is either made in the resident loop (i <= FUSED_INPUT, with U resident too) or found in hs, whose
step t a kernel reads as U x_t + c before it writes h_t there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vfrnn_kernels.activations import ACTIVATIONS, number
from vfrnn_kernels.recurrence.triton_device import (
    aligned_step_kernel,
    recurrence_bwd_kernel,
    recurrence_fwd_kernel,
    recurrence_sums_kernel,
    unaligned_step_kernel,
)
from vfrnn_kernels.recurrence.triton_graphs import run_steps
from vfrnn_kernels.triton_runtime import KernelSpec, cdiv, next_power_of_2, pointer

#: Samples of a program: the least height of a tensor-core product. More of them would only lengthen each step.
BB = 16
#: Widest input that the resident kernel multiplies itself: one slab of a tensor-core product.
FUSED_INPUT = 16
SMALLEST_N = 64
#: Tile of the step kernels: samples, units, depth.
STEP_TILE = (32, 32, 32)
ROWS_PER_SUM = 1024

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
RUN_TIME = -1


def resident_limit(dtype: torch.dtype) -> int:
    """Largest n for which M stays on the chip (tools/triton_resources.csv holds the kernels to that)."""
    return 128


def _precision(dtype: torch.dtype) -> str:
    # Three products of TensorFloat32 give float32's accuracy; 16-bit products are exact and the word is not read.
    return "tf32x3" if dtype == torch.float32 else "ieee"


def _numerics(dtype: torch.dtype, state: torch.dtype) -> dict[str, object]:
    return {"SPLIT": state != dtype, "PRECISION": _precision(dtype)}


def _block(n: int) -> int:
    return max(SMALLEST_N, next_power_of_2(n))


def forward_spec(n: int, fused: bool, activation: int, dtype: torch.dtype, state: torch.dtype) -> KernelSpec:
    """The resident forward kernel of an n up to the limit."""
    P, H, N = pointer(dtype), pointer(state), _block(n)
    signature = {"x_ptr": P, "U_ptr": P, "c_ptr": H, "M_ptr": P, "h0_ptr": H, "beta_ptr": H, "hs_ptr": H}
    signature |= dict.fromkeys(("T", "B", "n", "i", "x_step", "x_row", "activation"), "i32")
    constants: dict[str, object] = {
        "N": N,
        "I": FUSED_INPUT if fused else 0,
        "BB": BB,
        "ACTIVATION": _compiled(N, activation, dtype),
    }
    constants |= _numerics(dtype, state)
    return KernelSpec(
        recurrence_fwd_kernel, signature, constants, num_warps=_warps(N, state != dtype), divisible=_divisible(n)
    )


def backward_spec(n: int, activation: int, dtype: torch.dtype, state: torch.dtype) -> KernelSpec:
    """The resident backward kernel of an n up to the limit."""
    P, H, N = pointer(dtype), pointer(state), _block(n)
    signature = {"grad_ptr": H, "M_ptr": P, "hs_ptr": H, "grad_z_ptr": P, "grad_h0_ptr": H}
    signature |= dict.fromkeys(("T", "B", "n", "grad_step", "grad_row", "activation"), "i32")
    constants = {"N": N, "BB": BB, "ACTIVATION": _compiled(N, activation, dtype), **_numerics(dtype, state)}
    return KernelSpec(
        recurrence_bwd_kernel, signature, constants, num_warps=_warps(N, state != dtype), divisible=_divisible(n)
    )


def _compiled(N: int, activation: int, dtype: torch.dtype) -> int:
    return activation if _is_crowded(N, dtype) else RUN_TIME


def _is_crowded(N: int, dtype: torch.dtype) -> bool:
    # Three TensorFloat32 products keep M as two numbers: 128 registers of a thread, and h takes nearly as many.
    return dtype == torch.float32 and N == 128


def _divisible(n: int) -> tuple[str, ...]:
    return ("n",) if n % 16 == 0 else ()


def _warps(N: int, split: bool) -> int:
    # So many that a thread holds at most 128 registers of M, and nothing spills (tools/triton_resources.py).
    return 8 if N >= 128 or split else 4


def step_spec(n: int, backward: bool, dtype: torch.dtype, state: torch.dtype) -> KernelSpec:
    """The kernel of one step, forward or backward, of any n."""
    P, H = pointer(dtype), pointer(state)
    signature = {"from_ptr": P if backward else H, "M_ptr": P, "start_ptr": H, "h_ptr": H, "beta_ptr": H}
    signature |= {"to_ptr": P if backward else H, "B": "i32", "n": "i32", "activation": "i32"}
    constants: dict[str, object] = dict(zip(("BB", "BN", "BK"), STEP_TILE, strict=True))
    constants |= {"BACKWARD": backward, **_numerics(dtype, state)}
    if backward:
        constants["SPLIT"] = False  # grad_z is kept in the dtype of M
    kernel = aligned_step_kernel if _divisible(n) else unaligned_step_kernel
    return KernelSpec(kernel, signature, constants, 4, num_stages=3, divisible=_divisible(n))


def sums_spec(n: int, dtype: torch.dtype, state: torch.dtype) -> KernelSpec:
    """The kernel of the sums over steps and samples."""
    signature = {"grad_z_ptr": pointer(dtype), "hs_ptr": pointer(state), "sums_ptr": "*fp32", "rows": "i32", "n": "i32"}
    constants = {"ROWS": ROWS_PER_SUM, "BR": 32, "BN": 64}
    return KernelSpec(recurrence_sums_kernel, signature, constants, divisible=_divisible(n))


def specs() -> Iterator[KernelSpec]:
    """Every kernel x configuration that the op can launch; the same for all architectures."""
    for dtype in DTYPES:
        for state in dict.fromkeys((dtype, torch.float32)):
            for odd in (0, 1):
                n = resident_limit(dtype) + 16 - odd
                yield sums_spec(n, dtype, state)
                yield step_spec(n, False, dtype, state)
                yield step_spec(n, True, dtype, state)
                N = SMALLEST_N
                while N <= resident_limit(dtype):
                    for activation in range(len(ACTIVATIONS)) if _is_crowded(N, dtype) else (RUN_TIME,):
                        yield forward_spec(N - odd, True, activation, dtype, state)
                        yield forward_spec(N - odd, False, activation, dtype, state)
                        yield backward_spec(N - odd, activation, dtype, state)
                    N *= 2


def recurrence(
    x: Tensor, U: Tensor, c: Tensor | None, M: Tensor, h0: Tensor, beta: Tensor | None, activation: str
) -> tuple[Tensor]:
    """hs (T, B, n), of the dtype of h0."""
    T, B, i = x.shape
    n = M.shape[0]
    act = number(activation)
    hs = h0.new_empty(T, B, n)
    if hs.numel() == 0:
        return (hs,)
    U, M, h0 = U.contiguous(), M.contiguous(), h0.contiguous()
    unread = h0  # stands for a tensor that the configuration does not read
    beta = unread if beta is None else beta.contiguous()
    resident = _is_resident(B, n, M.dtype)
    fused = resident and 0 < i <= FUSED_INPUT
    if fused:
        x, c = with_adjacent_entries(x), h0.new_zeros(n) if c is None else c.contiguous()
    else:
        _multiply_input(x, U, c, hs)
        c = unread
    if resident:
        spec = forward_spec(n, fused, act, M.dtype, h0.dtype)
        spec.launch((cdiv(B, BB),), x, U, c, M, h0, beta, hs, T, B, n, i, x.stride(0), x.stride(1), act)
        return (hs,)
    spec = step_spec(n, False, M.dtype, h0.dtype)

    def step(h: Tensor, weights: Sequence[Tensor], operands: Sequence[Tensor]) -> None:
        (matrix, shift), (h_t,) = weights, operands
        spec.launch(_step_grid(B, n), h, matrix, h_t, h_t, shift, h_t, B, n, act)

    run_steps((spec.name, act), step, h0, (M, beta), (hs,), reverse=False)
    return (hs,)


def _is_resident(B: int, n: int, dtype: torch.dtype) -> bool:
    return n <= resident_limit(dtype) and B * n < 2**31


def _step_grid(B: int, n: int) -> tuple[int, int]:
    return cdiv(n, STEP_TILE[1]), cdiv(B, STEP_TILE[0])


def with_adjacent_entries(t: Tensor) -> Tensor:
    """The rows of a step with adjacent entries, at offsets of 32 bits."""
    adjacent = (t.stride(2) == 1 or t.shape[2] == 1) and t.shape[1] * t.stride(1) < 2**31
    return t if adjacent else t.contiguous()


def _multiply_input(x: Tensor, U: Tensor, c: Tensor | None, hs: Tensor) -> None:
    """hs = x U^T + c, in the place where the states will be, and in their dtype: beside a float32 state nothing is
    rounded to 16 bits."""
    to, rows, U = hs.flatten(0, 1), x.flatten(0, 1).to(hs.dtype), U.to(hs.dtype)
    if rows.shape[1] == 0:
        to.copy_(c.expand_as(to) if c is not None else to.new_zeros(()).expand_as(to))
    elif c is None:
        torch.mm(rows, U.mT, out=to)
    else:
        torch.addmm(c, rows, U.mT, out=to)


def recurrence_backward(
    grad_hs: Tensor,
    x: Tensor,
    U: Tensor,
    c: Tensor | None,
    M: Tensor,
    h0: Tensor,
    beta: Tensor | None,
    hs: Tensor,
    activation: str,
    wanted: frozenset[str],
) -> dict[str, Tensor]:
    """The gradients that are wanted: grad_z by (2), then (3) and (4) as products and sums over all of it."""
    if hs.numel() == 0:
        tensors = {"x": x, "U": U, "c": c, "M": M, "h0": h0, "beta": beta}
        return {name: torch.zeros_like(t) for name, t in tensors.items() if t is not None}
    grad_z, grad_h0 = _grad_z(grad_hs, M.contiguous(), h0, hs, activation)
    rows, found = grad_z.flatten(0, 1), {"h0": grad_h0}
    if "x" in wanted:
        found["x"] = (rows @ U).view_as(x)
    if "U" in wanted:
        found["U"] = rows.mT @ x.flatten(0, 1)
    if "M" in wanted:
        found["M"] = grad_z[0].mT @ h0.to(M.dtype)
        if hs.shape[0] > 1:
            found["M"].addmm_(grad_z[1:].flatten(0, 1).mT, hs[:-1].to(M.dtype).flatten(0, 1))
    if wanted & {"c", "beta"}:
        found["c"], found["beta"] = _sums(rows, hs.flatten(0, 1)).to(h0.dtype)
    return found


def _grad_z(grad_hs: Tensor, M: Tensor, h0: Tensor, hs: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """grad_z (T, B, n), of the dtype of M, and grad_h0 (B, n)."""
    T, B, n = hs.shape
    act = number(activation)
    grad_z = M.new_empty(T, B, n)
    if _is_resident(B, n, M.dtype):
        grad_hs, grad_h0 = with_adjacent_entries(grad_hs), h0.new_empty(B, n)
        spec = backward_spec(n, act, M.dtype, h0.dtype)
        strides = (grad_hs.stride(0), grad_hs.stride(1))
        spec.launch((cdiv(B, BB),), grad_hs, M, hs, grad_z, grad_h0, T, B, n, *strides, act)
        return grad_z, grad_h0
    spec = step_spec(n, True, M.dtype, h0.dtype)

    def step(after: Tensor, weights: Sequence[Tensor], operands: Sequence[Tensor]) -> None:
        (matrix,), (grad, h, grad_z_t) = weights, operands
        spec.launch(_step_grid(B, n), after, matrix, grad, h, h, grad_z_t, B, n, act)

    run_steps((spec.name, act), step, M.new_zeros(B, n), (M,), (grad_hs.contiguous(), hs, grad_z), reverse=True)
    return grad_z, grad_z[0].to(h0.dtype) @ M.to(h0.dtype)


def _sums(grad_z: Tensor, hs: Tensor) -> Tensor:
    """The sums over all rows of grad_z and of sign(h) grad_z, (2, n) in float32."""
    count, n = grad_z.shape
    spec = sums_spec(n, grad_z.dtype, hs.dtype)
    programs = cdiv(count, ROWS_PER_SUM)
    sums = torch.empty(programs, 2, n, dtype=torch.float32, device=grad_z.device)
    spec.launch((cdiv(n, spec.constexprs["BN"]), programs), grad_z, hs, sums, count, n)
    return sums.sum(0)
