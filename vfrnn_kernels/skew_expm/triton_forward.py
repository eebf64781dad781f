"""The forward kernels of skew_expm in Triton: stages, and the two ways to run them (see triton_kernels.py)."""

from __future__ import annotations

import triton
import triton.language as tl

from vfrnn_kernels.skew_expm.coefficients import POLISH_FROM
from vfrnn_kernels.skew_expm.triton_tiles import (
    even_parts,
    generator_square,
    load_tile,
    odd_part,
    power_of_half,
    product,
    squarings,
    store_result,
    store_row_sums,
    store_symmetric,
    store_tile,
    transposed_product,
    upper_tile,
)

#: Squarings with a launch of their own: norms to 1.347 * 2^6 = 86. What is beyond, one program per matrix does.
LEVELS = 6
#: Slots of `matrices` (K, KEPT, n, n), kept for the backward pass: X, X2, K, then Q0 and its squares that are squared.
KEPT = 3 + LEVELS

_LEVELS = tl.constexpr(LEVELS)
_KEPT = tl.constexpr(KEPT)
_POLISH = tl.constexpr(POLISH_FROM)


@triton.jit
def _fwd_stage(
    STAGE: tl.constexpr, S, delta, dt, matrices, scratch, norms, s, Q, M, n, level, i, j, scaled,
    BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Tile (i, j) of one stage of the forward pass of one matrix.

    Q_level is in its slot of `matrices` while there is one and it will be squared, else in `scratch` 0 or 1 such that
    the last is in 0, where the Newton-Schulz step finds it; without that step the last goes to the result.
    """
    area = n.to(tl.int64) * n
    X, X2, K, Q0 = matrices, matrices + area, matrices + 2 * area, matrices + 3 * area
    rows, columns = i * BLOCK + tl.arange(0, BLOCK), j * BLOCK + tl.arange(0, BLOCK)
    mirrored = i != j
    if STAGE == "square":
        value = generator_square(S, dt, rows, columns, n, DEPTH, PRECISION)
        store_symmetric(X, rows, columns, n, value, mirrored)
    elif STAGE == "fourth":
        value = product(X, X, rows, columns, n, DEPTH, PRECISION)
        store_symmetric(X2, rows, columns, n, value, mirrored)
        store_row_sums(norms, value, i, j, rows, columns, n, tl.cdiv(n, BLOCK), mirrored)
    elif STAGE == "even":
        even_parts(X, X2, K, Q0, s, rows, columns, n, mirrored, DEPTH, PRECISION)
    elif STAGE == "odd":
        value = odd_part(S, dt * power_of_half(s), K, rows, columns, n, DEPTH, PRECISION)
        C = load_tile(Q0, rows, columns, n)
        store_tile(Q0, rows, columns, n, C + value, True)
        store_tile(Q0, columns, rows, n, tl.trans(C - value), mirrored)
        store_result(Q, M, delta, dt, rows, columns, n, C + value, s <= 0, scaled)
        store_result(Q, M, delta, dt, columns, rows, n, tl.trans(C - value), (s <= 0) & mirrored, scaled)
    elif STAGE == "squaring":
        value = product(Q0 + level * area, Q0 + level * area, rows, columns, n, DEPTH, PRECISION)
        kept = (level + 1 < s) & (level + 1 < _LEVELS)
        last = (level + 1 == s) & (s < _POLISH)
        store_tile(Q0 + (level + 1) * area, rows, columns, n, value, kept)
        store_tile(scratch + ((s - level - 1) & 1) * area, rows, columns, n, value, (not kept) & (not last))
        store_result(Q, M, delta, dt, rows, columns, n, value, last, scaled)
    elif STAGE == "far squaring":
        source = scratch + ((s - level) & 1) * area
        value = product(source, source, rows, columns, n, DEPTH, PRECISION)
        store_tile(scratch + ((s - level - 1) & 1) * area, rows, columns, n, value, True)
    elif STAGE == "drift":
        value = transposed_product(scratch, scratch, rows, columns, n, DEPTH, PRECISION)
        identity = tl.where(rows[:, None] == columns[None, :], 1.0, 0.0)
        store_symmetric(scratch + area, rows, columns, n, 0.5 * (identity - value), mirrored)
    else:  # polish
        value = product(scratch, scratch + area, rows, columns, n, DEPTH, PRECISION)
        value += load_tile(scratch, rows, columns, n)
        store_result(Q, M, delta, dt, rows, columns, n, value, True, scaled)


@triton.jit
def _all_tiles_fwd(
    STAGE: tl.constexpr, HALF: tl.constexpr, S, delta, dt, matrices, scratch, norms, s, Q, M, n, level, scaled,
    BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One stage of a matrix by one program, and the barrier after which all its threads see the result."""
    for i in range(0, tl.cdiv(n, BLOCK)):
        for j in range(i if HALF else 0, tl.cdiv(n, BLOCK)):
            _fwd_stage(
                STAGE, S, delta, dt, matrices, scratch, norms, s, Q, M, n, level, i, j, scaled, BLOCK, DEPTH, PRECISION
            )  # fmt: skip
    tl.debug_barrier()


@triton.jit(do_not_specialize=["level", "scaled"])
def tiled_fwd_kernel(
    S_ptr,  # (K, n, n)
    delta_ptr,  # (K, n), read if scaled
    dt_ptr,  # (K,)
    matrices_ptr,  # (K, KEPT, n, n)
    scratch_ptr,  # (K, 2, n, n)
    norms_ptr,  # (K, 2, tiles, n)
    squarings_ptr,  # (K,)
    Q_ptr,  # (K, n, n)
    M_ptr,  # (K, n, n), written if scaled
    n,
    level,  # of a squaring
    scaled,  # whether delta and M are there
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
    norms_ptr += matrix * 2 * tiles * n
    s = 0
    needed = True
    if STAGE == "even":  # every program finds the same s, the first tells the stages that follow
        s = squarings(norms_ptr, n, tiles)
        tl.store(squarings_ptr + matrix, s, mask=index == 0)
    elif STAGE != "square" and STAGE != "fourth":
        s = tl.load(squarings_ptr + matrix)
        if STAGE == "squaring":
            needed = level < s
        elif STAGE != "odd":
            needed = s >= _POLISH
    if needed:
        _fwd_stage(
            STAGE, S_ptr + matrix * area, delta_ptr + matrix * n, tl.load(dt_ptr + matrix),
            matrices_ptr + matrix * _KEPT * area, scratch_ptr + matrix * 2 * area, norms_ptr, s,
            Q_ptr + matrix * area, M_ptr + matrix * area, n, level, i, j, scaled, BLOCK, DEPTH, PRECISION,
        )  # fmt: skip


@triton.jit
def far_fwd_kernel(
    matrices_ptr, scratch_ptr, squarings_ptr, n, BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr
):
    """The squarings after the first LEVELS, one program per matrix: right for every norm, fast for none."""
    matrix = tl.program_id(0).to(tl.int64)
    area = n.to(tl.int64) * n
    m, x = matrices_ptr + matrix * _KEPT * area, scratch_ptr + matrix * 2 * area
    s = tl.load(squarings_ptr + matrix)
    for level in range(_LEVELS, s):
        _all_tiles_fwd(
            "far squaring", False, m, m, 0.0, m, x, m, s, m, m, n, level, 0, BLOCK, DEPTH, PRECISION
        )  # fmt: skip


@triton.jit(do_not_specialize=["scaled"])
def whole_fwd_kernel(
    S_ptr, delta_ptr, dt_ptr, matrices_ptr, scratch_ptr, norms_ptr, squarings_ptr, Q_ptr, M_ptr, n, scaled,
    BLOCK: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All stages of one matrix."""
    matrix = tl.program_id(0).to(tl.int64)
    area, tiles = n.to(tl.int64) * n, tl.cdiv(n, BLOCK)
    S, delta, dt = S_ptr + matrix * area, delta_ptr + matrix * n, tl.load(dt_ptr + matrix)
    m, x, norms = (
        matrices_ptr + matrix * _KEPT * area,
        scratch_ptr + matrix * 2 * area,
        norms_ptr + matrix * 2 * tiles * n,
    )
    Q, M = Q_ptr + matrix * area, M_ptr + matrix * area
    _all_tiles_fwd("square", True, S, delta, dt, m, x, norms, 0, Q, M, n, 0, scaled, BLOCK, DEPTH, PRECISION)
    _all_tiles_fwd("fourth", True, S, delta, dt, m, x, norms, 0, Q, M, n, 0, scaled, BLOCK, DEPTH, PRECISION)
    s = squarings(norms, n, tiles)
    tl.store(squarings_ptr + matrix, s)
    _all_tiles_fwd("even", True, S, delta, dt, m, x, norms, s, Q, M, n, 0, scaled, BLOCK, DEPTH, PRECISION)
    _all_tiles_fwd("odd", True, S, delta, dt, m, x, norms, s, Q, M, n, 0, scaled, BLOCK, DEPTH, PRECISION)
    for level in range(0, tl.minimum(s, _LEVELS)):
        _all_tiles_fwd("squaring", False, S, delta, dt, m, x, norms, s, Q, M, n, level, scaled, BLOCK, DEPTH, PRECISION)
    for level in range(_LEVELS, s):
        _all_tiles_fwd(
            "far squaring", False, S, delta, dt, m, x, norms, s, Q, M, n, level, scaled, BLOCK, DEPTH, PRECISION
        )  # fmt: skip
    if s >= _POLISH:
        _all_tiles_fwd("drift", True, S, delta, dt, m, x, norms, s, Q, M, n, 0, scaled, BLOCK, DEPTH, PRECISION)
        _all_tiles_fwd("polish", False, S, delta, dt, m, x, norms, s, Q, M, n, 0, scaled, BLOCK, DEPTH, PRECISION)
