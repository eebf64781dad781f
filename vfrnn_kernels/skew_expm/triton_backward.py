"""The backward kernels of skew_expm in Triton: stages, and the two ways to run them (see triton_kernels.py).

z = skew(Q^T G) is the gradient in the tangent space at Q. It passes through the squarings, X -> X X takes z to
z + X z X^T, then through the derivative of Q0 = C + P K in the direction z, brought back by Q0^T. All of these are
functions of the commutator with A and commute: the squarings are taken first to last, so that those that have no slot
are made again on the way.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vfrnn_kernels.skew_expm.triton_forward import KEPT, LEVELS
from vfrnn_kernels.skew_expm.triton_tiles import (
    cotangent,
    even_tangents,
    fourth_tangent,
    load_skew,
    load_tile,
    odd_tangent,
    power_of_half,
    product,
    product_transposed,
    square_tangent,
    store_skew,
    store_symmetric,
    store_tile,
    upper_tile,
)

#: Slots of the scratch: z; V, then dC, then dQ0; dX; dX2; dK.
SCRATCH = 5

_LEVELS = tl.constexpr(LEVELS)
_KEPT = tl.constexpr(KEPT)
_SCRATCH = tl.constexpr(SCRATCH)


@triton.jit
def _bwd_stage(
    STAGE: tl.constexpr, G, S, delta, dt, Q, matrices, scratch, s, grad_S, pairings, n, X, i, j, scaled,
    BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Tile (i, j) of one stage of the backward pass of one matrix; X is the matrix that a squaring stage is about."""
    area = n.to(tl.int64) * n
    even, fourth, K, Q0 = matrices, matrices + area, matrices + 2 * area, matrices + 3 * area
    z, V, dX, dX2, dK = scratch, scratch + area, scratch + 2 * area, scratch + 3 * area, scratch + 4 * area
    rows, columns = i * BLOCK + tl.arange(0, BLOCK), j * BLOCK + tl.arange(0, BLOCK)
    mirrored = i != j
    scale = power_of_half(s)
    if STAGE == "cotangent":
        value = cotangent(Q, G, delta, dt, rows, columns, n, scaled, DEPTH, PRECISION)
        store_skew(z, rows, columns, n, value, mirrored)
        # <z, S>: a tile off the diagonal counts twice
        pairs = tl.sum(tl.sum(value * load_skew(S, rows, columns, n), 1), 0)
        tl.store(pairings + j * (j + 1) // 2 + i, tl.where(mirrored, 2 * pairs, pairs))
    elif STAGE == "turn":
        value = product(X, z, rows, columns, n, DEPTH, PRECISION)
        store_tile(V, rows, columns, n, value, True)
    elif STAGE == "turn back":
        value = product_transposed(V, X, rows, columns, n, DEPTH, PRECISION)
        store_skew(z, rows, columns, n, value + load_tile(z, rows, columns, n), mirrored)
    elif STAGE == "square":
        value = square_tangent(S, dt * scale, z, rows, columns, n, DEPTH, PRECISION)
        store_symmetric(dX, rows, columns, n, value, mirrored)
    elif STAGE == "fourth":
        value = fourth_tangent(even, dX, scale, rows, columns, n, DEPTH, PRECISION)
        store_symmetric(dX2, rows, columns, n, value, mirrored)
    elif STAGE == "even":
        even_tangents(even, fourth, dX, dX2, dK, V, scale, rows, columns, n, mirrored, DEPTH, PRECISION)
    elif STAGE == "odd":
        value = odd_tangent(S, dt * scale, z, K, dK, rows, columns, n, DEPTH, PRECISION)
        dC = load_tile(V, rows, columns, n)
        store_tile(V, rows, columns, n, dC + value, True)
        store_tile(V, columns, rows, n, tl.trans(dC - value), mirrored)
    else:  # gradient
        value = product_transposed(V, Q0, rows, columns, n, DEPTH, PRECISION)
        store_skew(grad_S, rows, columns, n, dt * (scale * value), mirrored)


@triton.jit
def _all_tiles_bwd(
    STAGE: tl.constexpr, HALF: tl.constexpr, G, S, delta, dt, Q, matrices, scratch, s, grad_S, pairings, n, X, scaled,
    BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One stage of a matrix by one program, and the barrier after which all its threads see the result."""
    for i in range(0, tl.cdiv(n, BLOCK)):
        for j in range(i if HALF else 0, tl.cdiv(n, BLOCK)):
            _bwd_stage(
                STAGE, G, S, delta, dt, Q, matrices, scratch, s, grad_S, pairings, n, X, i, j, scaled,
                BLOCK, DEPTH, PRECISION,
            )  # fmt: skip
    tl.debug_barrier()


@triton.jit
def _far_levels(matrices, scratch, s, n, BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr):
    """The squarings that have no slot, made again in the scratch of dX and dX2."""
    area = n.to(tl.int64) * n
    for level in range(_LEVELS, s):
        X = scratch + (2 + level % 2) * area
        root = scratch + (3 - level % 2) * area
        if level == _LEVELS:
            root = matrices + (_KEPT - 1) * area
        for i in range(0, tl.cdiv(n, BLOCK)):
            for j in range(0, tl.cdiv(n, BLOCK)):
                rows, columns = i * BLOCK + tl.arange(0, BLOCK), j * BLOCK + tl.arange(0, BLOCK)
                store_tile(X, rows, columns, n, product(root, root, rows, columns, n, DEPTH, PRECISION), True)
        tl.debug_barrier()
        m, x = matrices, scratch
        _all_tiles_bwd("turn", False, m, m, m, 0.0, m, m, x, s, m, m, n, X, 0, BLOCK, DEPTH, PRECISION)
        _all_tiles_bwd("turn back", True, m, m, m, 0.0, m, m, x, s, m, m, n, X, 0, BLOCK, DEPTH, PRECISION)


@triton.jit(do_not_specialize=["level", "scaled"])
def tiled_bwd_kernel(
    grad_ptr,  # (K, n, n), of Q, or of M if scaled
    S_ptr,  # (K, n, n)
    delta_ptr,  # (K, n), read if scaled
    dt_ptr,  # (K,)
    Q_ptr,  # (K, n, n)
    matrices_ptr,  # (K, KEPT, n, n)
    squarings_ptr,  # (K,)
    scratch_ptr,  # (K, SCRATCH, n, n)
    grad_S_ptr,  # (K, n, n)
    pairings_ptr,  # (K, tiles (tiles + 1) / 2), summing to <z, S>
    n,
    level,  # of a squaring
    scaled,  # whether grad is that of M and delta is there
    STAGE: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One stage: a program for every tile, of one triangle if HALF."""
    matrix, index = tl.program_id(0).to(tl.int64), tl.program_id(1)
    area, tiles = n.to(tl.int64) * n, tl.cdiv(n, BLOCK)
    if HALF:
        i, j = upper_tile(index)
    else:
        i, j = index // tiles, index % tiles
    s = tl.load(squarings_ptr + matrix)
    needed = True
    if STAGE == "turn" or STAGE == "turn back":
        needed = level < s
    matrices_ptr += matrix * _KEPT * area
    if needed:
        _bwd_stage(
            STAGE, grad_ptr + matrix * area, S_ptr + matrix * area, delta_ptr + matrix * n, tl.load(dt_ptr + matrix),
            Q_ptr + matrix * area, matrices_ptr, scratch_ptr + matrix * _SCRATCH * area, s, grad_S_ptr + matrix * area,
            pairings_ptr + matrix * (tiles * (tiles + 1) // 2), n, matrices_ptr + (3 + level) * area, i, j, scaled,
            BLOCK, DEPTH, PRECISION,
        )  # fmt: skip


@triton.jit
def far_bwd_kernel(
    matrices_ptr, squarings_ptr, scratch_ptr, n, BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr
):
    """The squarings after the first LEVELS, one program per matrix."""
    matrix = tl.program_id(0).to(tl.int64)
    area = n.to(tl.int64) * n
    s = tl.load(squarings_ptr + matrix)
    _far_levels(
        matrices_ptr + matrix * _KEPT * area, scratch_ptr + matrix * _SCRATCH * area, s, n, BLOCK, DEPTH, PRECISION
    )


@triton.jit(do_not_specialize=["scaled"])
def whole_bwd_kernel(
    grad_ptr, S_ptr, delta_ptr, dt_ptr, Q_ptr, matrices_ptr, squarings_ptr, scratch_ptr, grad_S_ptr, pairings_ptr, n,
    scaled, BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All stages of one matrix."""
    matrix = tl.program_id(0).to(tl.int64)
    area, tiles = n.to(tl.int64) * n, tl.cdiv(n, BLOCK)
    G, S, dt, Q = grad_ptr + matrix * area, S_ptr + matrix * area, tl.load(dt_ptr + matrix), Q_ptr + matrix * area
    d, m, x = delta_ptr + matrix * n, matrices_ptr + matrix * _KEPT * area, scratch_ptr + matrix * _SCRATCH * area
    g, p = grad_S_ptr + matrix * area, pairings_ptr + matrix * (tiles * (tiles + 1) // 2)
    s = tl.load(squarings_ptr + matrix)
    _all_tiles_bwd("cotangent", True, G, S, d, dt, Q, m, x, s, g, p, n, m, scaled, BLOCK, DEPTH, PRECISION)
    for level in range(0, tl.minimum(s, _LEVELS)):
        X = m + (3 + level) * area
        _all_tiles_bwd("turn", False, G, S, d, dt, Q, m, x, s, g, p, n, X, scaled, BLOCK, DEPTH, PRECISION)
        _all_tiles_bwd("turn back", True, G, S, d, dt, Q, m, x, s, g, p, n, X, scaled, BLOCK, DEPTH, PRECISION)
    _far_levels(m, x, s, n, BLOCK, DEPTH, PRECISION)
    _all_tiles_bwd("square", True, G, S, d, dt, Q, m, x, s, g, p, n, m, scaled, BLOCK, DEPTH, PRECISION)
    _all_tiles_bwd("fourth", True, G, S, d, dt, Q, m, x, s, g, p, n, m, scaled, BLOCK, DEPTH, PRECISION)
    _all_tiles_bwd("even", True, G, S, d, dt, Q, m, x, s, g, p, n, m, scaled, BLOCK, DEPTH, PRECISION)
    _all_tiles_bwd("odd", True, G, S, d, dt, Q, m, x, s, g, p, n, m, scaled, BLOCK, DEPTH, PRECISION)
    _all_tiles_bwd("gradient", True, G, S, d, dt, Q, m, x, s, g, p, n, m, scaled, BLOCK, DEPTH, PRECISION)
