"""What one program of the Triton exponential computes: one tile of one n x n product, with everything fused to it.

Mathematics and order of the products: README.md, "Triton"; who calls these: `triton_kernels.py`. Pointers are those of
one matrix of the batch. `rows` and `columns` index the tile (BLOCK,), DEPTH is the step of the inner dimension, and
`mirrored` says that the tile is off the diagonal of a product known to be symmetric or skew-symmetric: its transpose
is stored too and nobody computes it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vfrnn_kernels.skew_expm.coefficients import E4, MAX_SQUARINGS

A1 = tl.constexpr(E4.a)
C1, C2, C4 = (tl.constexpr(value) for value in E4.c)
K1, K2, K4 = (tl.constexpr(value) for value in E4.k)
INVERSE_THETA = tl.constexpr(1 / E4.theta)
LAST = tl.constexpr(MAX_SQUARINGS)


@triton.jit
def upper_tile(index):
    """(i, j), i <= j, of a tile of one triangle, column by column: index = j (j + 1) / 2 + i."""
    j = ((tl.sqrt(8.0 * index + 1.0) - 1.0) * 0.5).to(tl.int32)
    j = tl.where(j * (j + 1) // 2 > index, j - 1, j)  # the root is rounded
    j = tl.where((j + 1) * (j + 2) // 2 <= index, j + 1, j)
    return index - j * (j + 1) // 2, j


@triton.jit
def load_tile(pointer, rows, columns, n):
    inside = (rows < n)[:, None] & (columns < n)[None, :]
    return tl.load(pointer + rows[:, None] * n + columns[None, :], mask=inside, other=0.0)


@triton.jit
def load_transposed(pointer, rows, columns, n):
    return tl.trans(load_tile(pointer, columns, rows, n))


@triton.jit
def load_skew(S, rows, columns, n):
    return 0.5 * (load_tile(S, rows, columns, n) - load_transposed(S, rows, columns, n))


@triton.jit
def store_tile(pointer, rows, columns, n, value, when):
    if when:
        inside = (rows < n)[:, None] & (columns < n)[None, :]
        tl.store(pointer + rows[:, None] * n + columns[None, :], value, mask=inside)


@triton.jit
def store_symmetric(pointer, rows, columns, n, value, mirrored):
    store_tile(pointer, rows, columns, n, value, True)
    store_tile(pointer, columns, rows, n, tl.trans(value), mirrored)


@triton.jit
def store_skew(pointer, rows, columns, n, value, mirrored):
    # on the diagonal the tile is its own mirror image
    value = tl.where(mirrored, value, 0.5 * (value - tl.trans(value)))
    store_tile(pointer, rows, columns, n, value, True)
    store_tile(pointer, columns, rows, n, -tl.trans(value), mirrored)


@triton.jit
def half_step(delta, dt, rows, n, scaled):
    """e = exp(-dt delta / 4) of strang_step where `scaled` is 1; where it is 0, 1, and delta is not read."""
    return tl.exp(-0.25 * dt * tl.load(delta + rows, mask=rows < n * scaled, other=0.0))


@triton.jit
def store_result(Q, M, delta, dt, rows, columns, n, value, when, scaled):
    """A tile of Q and, if `scaled`, of M = diag(e) Q diag(e)."""
    store_tile(Q, rows, columns, n, value, when)
    if scaled != 0:
        left, right = half_step(delta, dt, rows, n, scaled), half_step(delta, dt, columns, n, scaled)
        store_tile(M, rows, columns, n, left[:, None] * value * right[None, :], when)


@triton.jit
def power_of_half(s):
    """2^-s exactly, from its bits; NaN for s = -1, which makes everything NaN that is scaled with it."""
    return tl.where(s < 0, float("nan"), ((127 - s) << 23).to(tl.float32, bitcast=True))


@triton.jit
def product(A, B, rows, columns, n, DEPTH: tl.constexpr, PRECISION: tl.constexpr):
    """A B."""
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for start in range(0, n, DEPTH):
        k = start + tl.arange(0, DEPTH)
        total = tl.dot(load_tile(A, rows, k, n), load_tile(B, k, columns, n), total, input_precision=PRECISION)
    return total


@triton.jit
def product_transposed(A, B, rows, columns, n, DEPTH: tl.constexpr, PRECISION: tl.constexpr):
    """A B^T."""
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for start in range(0, n, DEPTH):
        k = start + tl.arange(0, DEPTH)
        total = tl.dot(load_tile(A, rows, k, n), load_transposed(B, k, columns, n), total, input_precision=PRECISION)
    return total


@triton.jit
def transposed_product(A, B, rows, columns, n, DEPTH: tl.constexpr, PRECISION: tl.constexpr):
    """A^T B."""
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for start in range(0, n, DEPTH):
        k = start + tl.arange(0, DEPTH)
        total = tl.dot(load_transposed(A, rows, k, n), load_tile(B, k, columns, n), total, input_precision=PRECISION)
    return total


@triton.jit
def generator_square(S, dt, rows, columns, n, DEPTH: tl.constexpr, PRECISION: tl.constexpr):
    """X = A A with A = dt skew(S)."""
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for start in range(0, n, DEPTH):
        k = start + tl.arange(0, DEPTH)
        left, right = dt * load_skew(S, rows, k, n), dt * load_skew(S, k, columns, n)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    return total


@triton.jit
def store_row_sums(norms, value, i, j, rows, columns, n, tiles, mirrored):
    """What a tile of the symmetric X2 adds to the row sums of |X2| and of the squares of 2^-40 X2.

    norms (2, tiles, n): entry (., t, row) is written once, by the tile that holds that row (or mirrors it) in column t.
    """
    small = value * 9.094947017729282e-13
    sums, squares = tl.abs(value), small * small
    tl.store(norms + j * n + rows, tl.sum(sums, 1), mask=rows < n)
    tl.store(norms + (tiles + j) * n + rows, tl.sum(squares, 1), mask=rows < n)
    if mirrored:
        tl.store(norms + i * n + columns, tl.sum(sums, 0), mask=columns < n)
        tl.store(norms + (tiles + i) * n + columns, tl.sum(squares, 0), mask=columns < n)


@triton.jit
def squarings(norms, n, tiles):
    """s, the least with ||A||_2 <= theta 2^s that is seen from X2 = A^4; -1: not finite, or beyond MAX_SQUARINGS.

    The eigenvalues of A come in pairs, so ||X2||_2^2 is at most half of ||X2||_F^2. The 2^-40 keeps squares of norms
    between 1e-2 and 1e8 from underflow and overflow: below, the bound is 0, above, it is that of the row sums.
    """
    largest, total, squares = tl.zeros((256,), tl.float32), tl.zeros((256,), tl.float32), tl.zeros((256,), tl.float32)
    for start in range(0, n, 256):
        row = start + tl.arange(0, 256)
        sums = tl.zeros((256,), tl.float32)
        for first in range(0, tiles, 8):
            tile = first + tl.arange(0, 8)
            inside = (tile < tiles)[:, None] & (row < n)[None, :]
            place = tile[:, None] * n + row[None, :]
            sums += tl.sum(tl.load(norms + place, mask=inside, other=0.0), 0)
            squares += tl.sum(tl.load(norms + tiles * n + place, mask=inside, other=0.0), 0)
        largest = tl.maximum(largest, sums)
        total += sums
    bound = tl.minimum(tl.max(largest, 0), tl.sqrt(0.5 * tl.sum(squares, 0)) * 1.099511627776e12)
    ratio = tl.minimum(tl.maximum(tl.sqrt(tl.sqrt(bound)) * INVERSE_THETA, 1.0), 1e9)
    s = tl.ceil(tl.log2(ratio)).to(tl.int32)
    finite = tl.sum(total, 0) < float("inf")  # a maximum may lose NaN, a sum does not
    return tl.where(finite & (s <= LAST), s, -1)


@triton.jit
def even_parts(X, X2, K, C, s, rows, columns, n, mirrored, DEPTH: tl.constexpr, PRECISION: tl.constexpr):
    """Y = X2 (X2 + a X), and from it K and C of exp(P) = C + P K, P = 2^-s A. Of C only the tiles that are read."""
    scale = power_of_half(s)
    to_X, to_X2 = scale * scale, scale * scale  # X2 4^-s 4^-s: 16^-s alone could underflow
    Y = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for start in range(0, n, DEPTH):
        k = start + tl.arange(0, DEPTH)
        left = to_X2 * (to_X2 * load_tile(X2, rows, k, n))
        right = to_X2 * (to_X2 * load_tile(X2, k, columns, n)) + (to_X * load_tile(X, k, columns, n)) * A1
        Y = tl.dot(left, right, Y, input_precision=PRECISION)
    x = to_X * load_tile(X, rows, columns, n)
    x2 = to_X2 * (to_X2 * load_tile(X2, rows, columns, n))
    identity = tl.where(rows[:, None] == columns[None, :], 1.0, 0.0)
    store_symmetric(K, rows, columns, n, identity + (x * K1 + x2 * K2 + Y * K4), mirrored)
    store_tile(C, rows, columns, n, identity + (x * C1 + x2 * C2 + Y * C4), True)


@triton.jit
def odd_part(S, factor, K, rows, columns, n, DEPTH: tl.constexpr, PRECISION: tl.constexpr):
    """P K with P = factor skew(S)."""
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for start in range(0, n, DEPTH):
        k = start + tl.arange(0, DEPTH)
        left = factor * load_skew(S, rows, k, n)
        total = tl.dot(left, load_tile(K, k, columns, n), total, input_precision=PRECISION)
    return total


@triton.jit
def cotangent(Q, G, delta, dt, rows, columns, n, scaled, DEPTH: tl.constexpr, PRECISION: tl.constexpr):
    """z = (Q^T G - G^T Q) / 2; if `scaled`, G is the gradient of M and diag(e) G diag(e) that of Q."""
    e_rows, e_columns = half_step(delta, dt, rows, n, scaled), half_step(delta, dt, columns, n, scaled)
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for start in range(0, n, DEPTH):
        k = start + tl.arange(0, DEPTH)
        e = half_step(delta, dt, k, n, scaled)[:, None]
        g_rows = e * load_tile(G, k, rows, n) * e_rows[None, :]
        g_columns = e * load_tile(G, k, columns, n) * e_columns[None, :]
        total = tl.dot(load_transposed(Q, rows, k, n), 0.5 * g_columns, total, input_precision=PRECISION)
        total = tl.dot(tl.trans(-0.5 * g_rows), load_tile(Q, k, columns, n), total, input_precision=PRECISION)
    return total


@triton.jit
def square_tangent(S, factor, z, rows, columns, n, DEPTH: tl.constexpr, PRECISION: tl.constexpr):
    """P z + z P with P = factor skew(S): the tangent of P^2."""
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for start in range(0, n, DEPTH):
        k = start + tl.arange(0, DEPTH)
        left, right = factor * load_skew(S, rows, k, n), factor * load_skew(S, k, columns, n)
        total = tl.dot(left, load_tile(z, k, columns, n), total, input_precision=PRECISION)
        total = tl.dot(load_tile(z, rows, k, n), right, total, input_precision=PRECISION)
    return total


@triton.jit
def fourth_tangent(X, dX, scale, rows, columns, n, DEPTH: tl.constexpr, PRECISION: tl.constexpr):
    """X dX + dX X, X scaled: the tangent of P^4."""
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for start in range(0, n, DEPTH):
        k = start + tl.arange(0, DEPTH)
        left, right = scale * scale * load_tile(X, rows, k, n), scale * scale * load_tile(X, k, columns, n)
        total = tl.dot(left, load_tile(dX, k, columns, n), total, input_precision=PRECISION)
        total = tl.dot(load_tile(dX, rows, k, n), right, total, input_precision=PRECISION)
    return total


@triton.jit
def even_tangents(
    X, X2, dX, dX2, dK, dC, scale, rows, columns, n, mirrored, DEPTH: tl.constexpr, PRECISION: tl.constexpr
):
    """dY = dX2 (X2 + a X) + X2 (dX2 + a dX), and from it dK and (only the tiles that are read) dC."""
    to_X, to_X2 = scale * scale, scale * scale
    dY = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for start in range(0, n, DEPTH):
        k = start + tl.arange(0, DEPTH)
        W = to_X2 * (to_X2 * load_tile(X2, k, columns, n)) + (to_X * load_tile(X, k, columns, n)) * A1
        dW = load_tile(dX2, k, columns, n) + load_tile(dX, k, columns, n) * A1
        dY = tl.dot(load_tile(dX2, rows, k, n), W, dY, input_precision=PRECISION)
        dY = tl.dot(to_X2 * (to_X2 * load_tile(X2, rows, k, n)), dW, dY, input_precision=PRECISION)
    dx, dx2 = load_tile(dX, rows, columns, n), load_tile(dX2, rows, columns, n)
    store_symmetric(dK, rows, columns, n, dx * K1 + dx2 * K2 + dY * K4, mirrored)
    store_tile(dC, rows, columns, n, dx * C1 + dx2 * C2 + dY * C4, True)


@triton.jit
def odd_tangent(S, factor, z, K, dK, rows, columns, n, DEPTH: tl.constexpr, PRECISION: tl.constexpr):
    """z K + P dK with P = factor skew(S): the tangent of P K."""
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for start in range(0, n, DEPTH):
        k = start + tl.arange(0, DEPTH)
        left = factor * load_skew(S, rows, k, n)
        total = tl.dot(load_tile(z, rows, k, n), load_tile(K, k, columns, n), total, input_precision=PRECISION)
        total = tl.dot(left, load_tile(dK, k, columns, n), total, input_precision=PRECISION)
    return total
