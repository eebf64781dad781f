"""skew_expm on a GPU through Triton: what is launched, in which order and configuration.

Mathematics: README.md, "Triton". A *stage* is one product of all matrices of the batch. Up to n = 64 one program does
all stages of a matrix, with a barrier of its threads between them: one launch. Above, a stage is a launch with a
program for every tile, and those that a matrix does not need (its number of squarings is only known on the device)
return at once. Kernels: `triton_forward.py`, `triton_backward.py`; one tile of one product: `triton_tiles.py`. With
`delta` the same kernels are strang_step with one substep: M = diag(e) Q diag(e), e = exp(-dt delta / 4).
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vfrnn_kernels.skew_expm.triton_backward import SCRATCH, far_bwd_kernel, tiled_bwd_kernel, whole_bwd_kernel
from vfrnn_kernels.skew_expm.triton_forward import KEPT, LEVELS, far_fwd_kernel, tiled_fwd_kernel, whole_fwd_kernel
from vfrnn_kernels.triton_runtime import KernelSpec, cdiv, on_device_of

#: Products by three TF32 products of split operands: as accurate as float32 (README.md), on the tensor cores.
PRECISION = "tf32x3"
#: The largest matrix that one program serves.
LARGEST_WHOLE = 64

#: The stages in their order: (name, whether the result is symmetric or skew, so that one triangle of tiles is enough).
FORWARD = (("square", True), ("fourth", True), ("even", True), ("odd", True), ("squaring", False))
POLISH = (("drift", True), ("polish", False))
LEVEL_BACKWARD = (("turn", False), ("turn back", True))
BACKWARD = (("square", True), ("fourth", True), ("even", True), ("odd", True), ("gradient", True))


@dataclass(frozen=True)
class Plan:
    """How matrices of one size are served: tiles of `block` squared, `depth` of the inner dimension at a step."""

    whole: bool  # one program per matrix, not one per tile
    block: int
    depth: int
    num_warps: int
    num_stages: int


@functools.cache
def plan(n: int) -> Plan:
    """The plan for n x n matrices: small tiles keep more processors busy, large ones read less.

    A depth of 16, not 32, and 32 as the least block: what fits the registers on every architecture. So it is with the
    blocks of 32 where rows do not start at multiples of 16 entries, and every entry has an address of its own.
    """
    large = n > (32 if n <= LARGEST_WHOLE else 256) and n % 16 == 0
    block = 64 if large else 32
    return Plan(True, block, 16, 8, 1) if n <= LARGEST_WHOLE else Plan(False, block, 16, 4, 3)


def far(plan: Plan) -> Plan:
    """The plan of the squarings that one program per matrix makes, beside a plan of tiles."""
    return replace(plan, num_warps=8, num_stages=1)


#: Every plan, and whether n is then a multiple of 16.
PLANS = tuple((plan(n), n % 16 == 0) for n in (17, 32, 64, 65, 80, 512))


@functools.cache
def configuration(kernel: Any, plan: Plan, divisible: bool, **constexprs: Any) -> KernelSpec:
    """A kernel under a plan. The names of its arguments tell their types: pointers end in _ptr."""
    names = kernel.arg_names
    constants = {"BLOCK": plan.block, "DEPTH": plan.depth, "PRECISION": PRECISION} | constexprs
    constants = {name: value for name, value in constants.items() if name in names}
    signature = {
        name: "i32" if not name.endswith("_ptr") else "*i32" if name == "squarings_ptr" else "*fp32"
        for name in names
        if name not in constants
    }
    return KernelSpec(kernel, signature, constants, plan.num_warps, plan.num_stages, ("n",) if divisible else ())


def specs() -> list[KernelSpec]:
    """Every kernel x configuration that is launched, with `delta` or without."""
    found = []
    for plan, divisible in PLANS:
        if plan.whole:
            kernels = whole_fwd_kernel, whole_bwd_kernel
            found += [_whole(kernel, plan, divisible) for kernel in kernels]
            continue
        found += [configuration(kernel, far(plan), divisible) for kernel in (far_fwd_kernel, far_bwd_kernel)]
        found += [_stage(tiled_fwd_kernel, plan, divisible, *stage) for stage in FORWARD + POLISH]
        backward = (("cotangent", True), *LEVEL_BACKWARD, *BACKWARD)
        found += [_stage(tiled_bwd_kernel, plan, divisible, *stage) for stage in backward]
    return found


def _whole(kernel: Any, plan: Plan, divisible: bool) -> KernelSpec:
    # registers again: with aligned rows sm_80 needs the pipelined loops, without them sm_100 the plain ones
    if kernel is whole_fwd_kernel and plan.block == 32 and divisible:
        plan = replace(plan, num_stages=2)
    return configuration(kernel, plan, divisible)


def _stage(kernel: Any, plan: Plan, divisible: bool, stage: str, half: bool) -> KernelSpec:
    return configuration(kernel, plan, divisible, STAGE=stage, HALF=half)


def skew_expm(S: Tensor, dt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Q = exp(dt S) of S (K, n, n), dt (K,); kept: the matrices (K, 9, n, n) and numbers of squarings (K,).

    Half precisions compute in float32 and keep nothing.
    """
    if S.dtype != torch.float32:
        return skew_expm(S.float(), dt.float())[0].to(S.dtype), *kept_of_half(S)
    Q, _, matrices, squarings = forward(S, None, dt)
    return Q, matrices, squarings


def skew_expm_backward(
    grad_Q: Tensor, S: Tensor, dt: Tensor, Q: Tensor, matrices: Tensor, squarings: Tensor, wanted: frozenset[str]
) -> dict[str, Tensor]:
    """The gradients that are wanted of S, dt grad_A, and of dt, <grad_A, S>."""
    if S.dtype != torch.float32:
        wide = S.float(), dt.float()
        found = skew_expm_backward(grad_Q.float(), *wide, *skew_expm(*wide), wanted)
        return {name: gradient.to(S.dtype) for name, gradient in found.items()}
    return backward(grad_Q, S, None, dt, Q, matrices, squarings, wanted)


def saved_shapes(K: int, n: int, dtype: torch.dtype) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of what the forward pass keeps: `matrices`, of the dtype of S, and `squarings`, of int32."""
    return ((K, KEPT, n, n), (K,)) if dtype == torch.float32 else ((0, KEPT, n, n), (0,))


def kept_of_half(S: Tensor) -> tuple[Tensor, Tensor]:
    """What a call in half precision keeps: nothing, in those shapes."""
    matrices, squarings = saved_shapes(S.shape[0], S.shape[1], S.dtype)
    return S.new_empty(matrices), S.new_empty(squarings, dtype=torch.int32)


def forward(
    S: Tensor, delta: Tensor | None, dt: Tensor, plan_: Plan | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Q, M (empty without delta), and what is kept. No value is read on the host, no shape depends on one."""
    S, dt = S.contiguous(), dt.contiguous()
    K, n, _ = S.shape
    chosen = plan_ or plan(n)
    scaled = delta is not None
    tiles = cdiv(n, chosen.block)
    Q = torch.empty_like(S)
    M = torch.empty_like(S) if scaled else S.new_empty(0)
    matrices, scratch, norms = S.new_empty(K, KEPT, n, n), S.new_empty(K, 2, n, n), S.new_empty(K, 2, tiles, n)
    squarings = torch.empty(K, dtype=torch.int32, device=S.device)
    if K == 0:
        return Q, M, matrices, squarings
    divisible = n % 16 == 0
    scaling = delta.contiguous() if delta is not None else dt
    target = M if scaled else Q
    arguments = (S, scaling, dt, matrices, scratch, norms, squarings, Q, target, n)
    with on_device_of(S):
        if chosen.whole:
            _whole(whole_fwd_kernel, chosen, divisible).launch((K,), *arguments, int(scaled))
            return Q, M, matrices, squarings
        grids = {True: (K, tiles * (tiles + 1) // 2), False: (K, tiles * tiles)}

        def launch(stage: str, half: bool, level: int = 0) -> None:
            spec = _stage(tiled_fwd_kernel, chosen, divisible, stage, half)
            spec.launch(grids[half], *arguments, level, int(scaled))

        for stage, half in FORWARD[:-1]:
            launch(stage, half)
        for level in range(LEVELS):
            launch(*FORWARD[-1], level)
        configuration(far_fwd_kernel, far(chosen), divisible).launch((K,), matrices, scratch, squarings, n)
        for stage, half in POLISH:
            launch(stage, half)
    return Q, M, matrices, squarings


def backward(
    grad: Tensor,
    S: Tensor,
    delta: Tensor | None,
    dt: Tensor,
    Q: Tensor,
    matrices: Tensor,
    squarings: Tensor,
    wanted: Collection[str],
    plan_: Plan | None = None,
) -> dict[str, Tensor]:
    """Gradients of S and of dt through the generator, from that of Q, or with `delta` from that of M."""
    grad, S, dt = grad.contiguous(), S.contiguous(), dt.contiguous()
    K, n, _ = S.shape
    chosen = plan_ or plan(n)
    scaled = delta is not None
    tiles = cdiv(n, chosen.block)
    grad_S, scratch = torch.empty_like(S), S.new_empty(K, SCRATCH, n, n)
    pairings = S.new_empty(K, tiles * (tiles + 1) // 2)
    if K == 0:
        return {"S": grad_S, "dt": torch.empty_like(dt)}
    divisible = n % 16 == 0
    scaling = delta.contiguous() if delta is not None else dt
    arguments = (grad, S, scaling, dt, Q, matrices, squarings, scratch, grad_S, pairings, n)
    with on_device_of(S):
        if chosen.whole:
            _whole(whole_bwd_kernel, chosen, divisible).launch((K,), *arguments, int(scaled))
        else:
            grids = {True: (K, tiles * (tiles + 1) // 2), False: (K, tiles * tiles)}

            def launch(stage: str, half: bool, level: int = 0) -> None:
                spec = _stage(tiled_bwd_kernel, chosen, divisible, stage, half)
                spec.launch(grids[half], *arguments, level, int(scaled))

            launch("cotangent", True)
            if "S" in wanted:
                for level in range(LEVELS):
                    for stage, half in LEVEL_BACKWARD:
                        launch(stage, half, level)
                configuration(far_bwd_kernel, far(chosen), divisible).launch((K,), matrices, squarings, scratch, n)
                for stage, half in BACKWARD:
                    launch(stage, half)
    found = {"S": grad_S} if "S" in wanted else {}
    return found | ({"dt": pairings.sum(-1)} if "dt" in wanted else {})
