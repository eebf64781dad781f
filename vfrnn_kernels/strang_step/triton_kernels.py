"""strang_step on a GPU through Triton: skew_expm's kernels with diag(e) fused to their last product, and powers.

One substep, the usual case, costs no launch more than the exponential forward and one more backward. Further substeps
are the products of M1^k by the binary digits of k, a launch each. Mathematics: README.md, "Triton".
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from vfrnn_kernels.skew_expm import triton_kernels as exponential
from vfrnn_kernels.skew_expm.triton_kernels import PLANS, Plan, configuration, kept_of_half, plan
from vfrnn_kernels.skew_expm.triton_tiles import half_step, load_tile, load_transposed, product, store_tile
from vfrnn_kernels.triton_runtime import KernelSpec, cdiv, on_device_of


@triton.jit
def product_kernel(
    A_ptr, B_ptr, C_ptr, D_ptr, result_ptr,  # (K, n, n)
    n,
    SUM: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A B, or if SUM A B + C D: one tile."""
    offset, index = tl.program_id(0).to(tl.int64) * n * n, tl.program_id(1)
    tiles = tl.cdiv(n, BLOCK)
    rows, columns = index // tiles * BLOCK + tl.arange(0, BLOCK), index % tiles * BLOCK + tl.arange(0, BLOCK)
    value = product(A_ptr + offset, B_ptr + offset, rows, columns, n, DEPTH, PRECISION)
    if SUM:
        value += product(C_ptr + offset, D_ptr + offset, rows, columns, n, DEPTH, PRECISION)
    store_tile(result_ptr + offset, rows, columns, n, value, True)


# M1_ij = e_i Q_ij e_j: c_i = e_i dL/de_i is the i-th row sum plus the i-th column sum of grad_M1 * M1, and
# log e = -step delta / 4.
@triton.jit
def scaling_bwd_kernel(
    grad_ptr,  # (K, n, n), of M1
    delta_ptr,  # (K, n)
    step_ptr,  # (K,)
    Q_ptr,  # (K, n, n)
    grad_delta_ptr,  # (K, n)
    pairings_ptr,  # (K, blocks of rows), summing to -<c, delta> / 4
    n,
    BLOCK: tl.constexpr,
):
    """grad_delta of one block of rows, and what these add to the gradient of the step."""
    matrix, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    offset = matrix * n * n
    step, delta_ptr = tl.load(step_ptr + matrix), delta_ptr + matrix * n
    rows = block * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, n, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        weights = load_tile(grad_ptr + offset, rows, columns, n) * load_tile(Q_ptr + offset, rows, columns, n)
        weights += load_transposed(grad_ptr + offset, rows, columns, n) * load_transposed(
            Q_ptr + offset, rows, columns, n
        )
        total += weights * half_step(delta_ptr, step, columns, n, 1)[None, :]
    c = half_step(delta_ptr, step, rows, n, 1) * tl.sum(total, 1)
    delta = tl.load(delta_ptr + rows, mask=rows < n, other=0.0)
    tl.store(grad_delta_ptr + matrix * n + rows, -0.25 * step * c, mask=rows < n)
    tl.store(pairings_ptr + matrix * tl.num_programs(1) + block, -0.25 * tl.sum(c * delta, 0))


@functools.cache
def _scaling(divisible: bool) -> KernelSpec:
    return configuration(scaling_bwd_kernel, Plan(False, 32, 32, 4, 1), divisible)


def specs() -> list[KernelSpec]:
    """Every kernel x configuration that strang_step launches beside those of skew_expm."""
    found = [_scaling(divisible) for divisible in (False, True)]
    for sum_ in (False, True):
        found += [configuration(product_kernel, plan, divisible, SUM=sum_) for plan, divisible in PLANS]
    return found


def strang_step(S: Tensor, delta: Tensor, dt: Tensor, substeps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """M of S (K, n, n), delta (K, n), dt (K,); kept: Q (K, n, n) and what skew_expm keeps.

    Half precisions compute in float32 and make everything again for the backward pass.
    """
    if S.dtype != torch.float32:
        M, Q, _, _ = strang_step(S.float(), delta.float(), dt.float(), substeps)
        return M.to(S.dtype), Q.to(S.dtype), *kept_of_half(S)
    return _forward(S, delta, dt, substeps, plan(S.shape[-1]))


def strang_step_backward(
    grad_M: Tensor,
    S: Tensor,
    delta: Tensor,
    dt: Tensor,
    M: Tensor,
    Q: Tensor,
    matrices: Tensor,
    squarings: Tensor,
    substeps: int,
    wanted: frozenset[str],
) -> dict[str, Tensor]:
    """The gradients that are wanted of S, delta and dt."""
    if S.dtype != torch.float32:
        wide = S.float(), delta.float(), dt.float()
        _, Q, matrices, squarings = strang_step(*wide, substeps)
        found = _backward(grad_M.float(), *wide, Q, matrices, squarings, substeps, wanted, plan(S.shape[-1]))
        return {name: gradient.to(S.dtype) for name, gradient in found.items()}
    return _backward(grad_M, S, delta, dt, Q, matrices, squarings, substeps, wanted, plan(S.shape[-1]))


def _forward(
    S: Tensor, delta: Tensor, dt: Tensor, substeps: int, chosen: Plan
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    step = dt / substeps if substeps > 1 else dt
    Q, M1, matrices, squarings = exponential.forward(S, delta, step, chosen)
    M = M1
    for digit in bin(substeps)[3:]:
        M = _product(chosen, M, M)
        if digit == "1":
            M = _product(chosen, M, M1)
    return M, Q, matrices, squarings


def _backward(
    grad_M: Tensor,
    S: Tensor,
    delta: Tensor,
    dt: Tensor,
    Q: Tensor,
    matrices: Tensor,
    squarings: Tensor,
    substeps: int,
    wanted: frozenset[str],
    chosen: Plan,
) -> dict[str, Tensor]:
    step, delta = (dt / substeps if substeps > 1 else dt).contiguous(), delta.contiguous()
    grad_M1 = (_power_gradient(grad_M, delta, step, Q, substeps, chosen) if substeps > 1 else grad_M).contiguous()
    K, n = delta.shape
    found: dict[str, Tensor] = {}
    if wanted & {"S", "dt"}:
        found |= exponential.backward(grad_M1, S, delta, step, Q, matrices, squarings, wanted, chosen)
    if wanted & {"delta", "dt"}:
        blocks = cdiv(n, 32)
        grad_delta, pairings = torch.empty_like(delta), S.new_empty(K, blocks)
        if K:
            with on_device_of(S):
                _scaling(n % 16 == 0).launch((K, blocks), grad_M1, delta, step, Q, grad_delta, pairings, n)
        found["delta"] = grad_delta
        if "dt" in wanted:
            found["dt"] = (found["dt"] + pairings.sum(-1)) / substeps
    return found


def _power_gradient(G: Tensor, delta: Tensor, step: Tensor, Q: Tensor, k: int, chosen: Plan) -> Tensor:
    """The gradient of M1, with G that of M1^k: the transpose of T_k = sum_(b < k) M1^(k-1-b) G^T M1^b.

    By the digits of k, first to last, so that no power is kept: T_2a = M1^a T_a + T_a M1^a and
    T_(a+1) = M1 T_a + G^T M1^a.
    """
    e = torch.exp(-0.25 * step[:, None] * delta)
    M1 = e[:, :, None] * Q * e[:, None, :]
    G = G.mT.contiguous()
    power, total = M1, G
    digits = bin(k)[3:]
    for place, digit in enumerate(digits):
        last = place == len(digits) - 1
        total = _product(chosen, power, total, total, power)
        if digit == "1" or not last:
            power = _product(chosen, power, power)
        if digit == "1":
            total = _product(chosen, M1, total, G, power)
            if not last:
                power = _product(chosen, power, M1)
    return total.mT


def _product(chosen: Plan, A: Tensor, B: Tensor, C: Tensor | None = None, D: Tensor | None = None) -> Tensor:
    """A B, or A B + C D, of contiguous (K, n, n)."""
    K, n, _ = A.shape
    result = torch.empty_like(A)
    if K:
        spec = configuration(product_kernel, chosen, n % 16 == 0, SUM=C is not None)
        with on_device_of(A):
            spec.launch((K, cdiv(n, chosen.block) ** 2), A, B, A if C is None else C, B if D is None else D, result, n)
    return result
