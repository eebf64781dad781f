"""field_generator on a GPU: kernels, configurations, forward and backward. Equations: README.md beside this file.

General mesh: a program owns the pair of tiles (I, J), I <= J, of S. It contracts v with G where it loads them, so that
[v] G is never stored, and writes S_IJ and S_JI = -S_IJ^T from one accumulation. Complete mesh: S is a scatter of v.
Every sum is taken by one program in a fixed order; nothing depends on the order in which programs run.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from vfrnn_kernels.triton_runtime import KernelSpec, cdiv

#: Cells of a slab of the products, and of the tiles of the backward products.
CELLS = 32
#: Rows and columns of a tile of S: small ones where there are few of them to share among the processors.
SMALL_TILE, LARGE_TILE, SMALL_N = 16, 32, 320
#: Tile of the complete mesh and of row sums: rows, columns.
ROWS, COLUMNS = 16, 64


@triton.jit
def _flux(w, v_ptr, G_ptr, cells, columns, m, n, d, mask):
    # w_c (v.G)_cj of a block of cells and columns: the contraction that is never stored
    total = tl.zeros(mask.shape, tl.float32)
    for k in range(d):
        row = cells.to(tl.int64) * d + k
        v = tl.load(v_ptr + row, mask=cells < m, other=0.0)
        G = tl.load(G_ptr + row[:, None] * n + columns[None, :], mask=mask, other=0.0)
        total += v[:, None] * G
    return w[:, None] * total


@triton.jit
def _weights(w_ptr, cells, m):
    # A weight that is not positive makes the result NaN.
    w = tl.load(w_ptr + cells, mask=cells < m, other=0.0)
    return tl.where((w > 0) | (cells >= m), w, float("nan"))


@triton.jit
def _inverse_root(b_ptr, nodes, n):
    b = tl.load(b_ptr + nodes, mask=nodes < n, other=1.0)
    return 1 / tl.sqrt_rn(tl.where(b > 0, b, float("nan")))


@triton.jit(do_not_specialize=["m", "n", "d"])
def field_generator_fwd_kernel(
    b_ptr, w_ptr, N_ptr, G_ptr, v_ptr, S_ptr, delta_ptr, m, n, d, BT: tl.constexpr, BC: tl.constexpr
):
    k, tile_i, tile_j = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    if tile_i > tile_j:
        return
    i, j = tile_i * BT + tl.arange(0, BT), tile_j * BT + tl.arange(0, BT)
    v_ptr += k * m * d
    H_ij, H_ji = tl.zeros((BT, BT), tl.float32), tl.zeros((BT, BT), tl.float32)  # and the transpose of H_JI
    sums = tl.zeros((BT,), tl.float32)
    for first in range(0, m, BC):
        cells = first + tl.arange(0, BC)
        w = _weights(w_ptr, cells, m)
        row = cells.to(tl.int64)[:, None] * n
        mask_i, mask_j = (cells < m)[:, None] & (i < n)[None, :], (cells < m)[:, None] & (j < n)[None, :]
        N_i = tl.load(N_ptr + row + i[None, :], mask=mask_i, other=0.0)
        N_j = tl.load(N_ptr + row + j[None, :], mask=mask_j, other=0.0)
        flux_i = _flux(w, v_ptr, G_ptr, cells, i, m, n, d, mask_i)
        flux_j = _flux(w, v_ptr, G_ptr, cells, j, m, n, d, mask_j)
        H_ij = tl.dot(tl.trans(N_i), flux_j, H_ij, input_precision="tf32x3")
        H_ji = tl.dot(tl.trans(flux_i), N_j, H_ji, input_precision="tf32x3")
        sums += tl.sum(flux_i, 0)
    r_i, r_j = _inverse_root(b_ptr, i, n), _inverse_root(b_ptr, j, n)
    S = (H_ij - H_ji) * 0.5 * (r_i[:, None] * r_j[None, :])
    # Both triangles from the same numbers: S is exactly skew, on a tile of the diagonal too.
    S = tl.where(i[:, None] == j[None, :], 0.0, S)
    inside = (i < n)[:, None] & (j < n)[None, :]
    S_ptr += k * n * n
    upper = inside & (i[:, None] <= j[None, :])
    tl.store(S_ptr + i.to(tl.int64)[:, None] * n + j[None, :], S, mask=upper)
    lower = inside & (i[:, None] < j[None, :])
    tl.store(S_ptr + j.to(tl.int64)[None, :] * n + i[:, None], -S, mask=lower)
    if tile_i == tile_j:
        tl.store(delta_ptr + k * n + i, -sums * r_i * r_i, mask=i < n)


@triton.jit
def _grad_H(grad_S_ptr, r_i, r_j, i, j, n, mask):
    # R_ij = (grad_S_ij - grad_S_ji) / 2 / sqrt(b_i b_j)
    to_ij = tl.load(grad_S_ptr + i.to(tl.int64)[:, None] * n + j[None, :], mask=mask, other=0.0)
    to_ji = tl.load(grad_S_ptr + j.to(tl.int64)[None, :] * n + i[:, None], mask=mask, other=0.0)
    return (to_ij - to_ji) * 0.5 * (r_i[:, None] * r_j[None, :])


@triton.jit(do_not_specialize=["m", "n", "d"])
def field_generator_products_kernel(
    grad_S_ptr,
    grad_delta_ptr,
    b_ptr,
    w_ptr,
    N_ptr,
    G_ptr,
    v_ptr,
    A_ptr,
    to_N_ptr,
    m,
    n,
    d,
    MESH: tl.constexpr,
    BT: tl.constexpr,
    BC: tl.constexpr,
):
    # One tile of A = N R + 1 q^T and, for MESH, of the field's share W [v] G R^T of grad_N: the two read the same R.
    k = tl.program_id(0).to(tl.int64)
    cells, j = tl.program_id(1) * BC + tl.arange(0, BC), tl.program_id(2) * BT + tl.arange(0, BT)
    v_ptr += k * m * d
    w = _weights(w_ptr, cells, m)
    r_j = _inverse_root(b_ptr, j, n)
    A, to_N = tl.zeros((BC, BT), tl.float32), tl.zeros((BC, BT), tl.float32)
    for first in range(0, n, BT):
        i = first + tl.arange(0, BT)
        mask = (cells < m)[:, None] & (i < n)[None, :]
        R = _grad_H(
            grad_S_ptr + k * n * n, _inverse_root(b_ptr, i, n), r_j, i, j, n, (i < n)[:, None] & (j < n)[None, :]
        )
        N = tl.load(N_ptr + cells.to(tl.int64)[:, None] * n + i[None, :], mask=mask, other=0.0)
        A = tl.dot(N, R, A, input_precision="tf32x3")
        if MESH:
            flux = _flux(w, v_ptr, G_ptr, cells, i, m, n, d, mask)
            to_N = tl.dot(flux, R, to_N, input_precision="tf32x3")
    q = -tl.load(grad_delta_ptr + k * n + j, mask=j < n, other=0.0) * r_j * r_j
    place = (k * m + cells)[:, None] * n + j[None, :]
    mask = (cells < m)[:, None] & (j < n)[None, :]
    tl.store(A_ptr + place, A + q[None, :], mask=mask)
    if MESH:
        tl.store(to_N_ptr + place, -to_N, mask=mask)  # R^T = -R


@triton.jit(do_not_specialize=["K", "m", "n", "d"])
def field_generator_cells_kernel(
    w_ptr,
    G_ptr,
    v_ptr,
    A_ptr,
    to_N_ptr,
    grad_w_ptr,
    grad_N_ptr,
    grad_G_ptr,
    grad_v_ptr,
    K,
    m,
    n,
    d,
    MESH: tl.constexpr,
    BC: tl.constexpr,
    BN: tl.constexpr,
):
    # grad_v and grad_w of a block of cells; for MESH also grad_N and grad_G, summed over the fields in their order.
    cells = tl.program_id(0) * BC + tl.arange(0, BC)
    row = cells.to(tl.int64)
    w = _weights(w_ptr, cells, m)
    grad_w = tl.zeros((BC,), tl.float32)
    for k in range(K):
        for axis in range(d):
            along = tl.zeros((BC, BN), tl.float32)
            for first in range(0, n, BN):
                j = first + tl.arange(0, BN)
                mask = (cells < m)[:, None] & (j < n)[None, :]
                A = tl.load(A_ptr + (tl.cast(k, tl.int64) * m + row)[:, None] * n + j[None, :], mask=mask, other=0.0)
                G = tl.load(G_ptr + (row * d + axis)[:, None] * n + j[None, :], mask=mask, other=0.0)
                along += A * G
            total = tl.sum(along, 1)
            place = (tl.cast(k, tl.int64) * m + row) * d + axis
            v = tl.load(v_ptr + place, mask=cells < m, other=0.0)
            tl.store(grad_v_ptr + place, w * total, mask=cells < m)
            grad_w += v * total
    tl.store(grad_w_ptr + cells, grad_w, mask=cells < m)
    if MESH:
        for first in range(0, n, BN):
            j = first + tl.arange(0, BN)
            mask = (cells < m)[:, None] & (j < n)[None, :]
            grad_N = tl.zeros((BC, BN), tl.float32)
            for k in range(K):
                field = (tl.cast(k, tl.int64) * m + row)[:, None] * n + j[None, :]
                grad_N += tl.load(to_N_ptr + field, mask=mask, other=0.0)
            tl.store(grad_N_ptr + row[:, None] * n + j[None, :], grad_N, mask=mask)
            for axis in range(d):
                grad_G = tl.zeros((BC, BN), tl.float32)
                for k in range(K):
                    field = tl.cast(k, tl.int64) * m + row
                    v = tl.load(v_ptr + field * d + axis, mask=cells < m, other=0.0)
                    A = tl.load(A_ptr + field[:, None] * n + j[None, :], mask=mask, other=0.0)
                    grad_G += (w * v)[:, None] * A
                tl.store(grad_G_ptr + (row * d + axis)[:, None] * n + j[None, :], grad_G, mask=mask)


@triton.jit(do_not_specialize=["K", "n"])
def field_generator_grad_b_kernel(
    grad_S_ptr, grad_delta_ptr, b_ptr, S_ptr, delta_ptr, grad_b_ptr, K, n, BI: tl.constexpr, BJ: tl.constexpr
):
    # S and delta hold b only as the powers b_i^-1/2 b_j^-1/2 and b_i^-1; S_ji = -S_ij.
    i = tl.program_id(0) * BI + tl.arange(0, BI)
    grad_b = tl.zeros((BI,), tl.float32)
    for k in range(K):
        matrix = tl.cast(k, tl.int64) * n * n
        sums = tl.zeros((BI, BJ), tl.float32)
        for first in range(0, n, BJ):
            j = first + tl.arange(0, BJ)
            mask = (i < n)[:, None] & (j < n)[None, :]
            place = matrix + i.to(tl.int64)[:, None] * n + j[None, :]
            to_ij = tl.load(grad_S_ptr + place, mask=mask, other=0.0)
            to_ji = tl.load(grad_S_ptr + matrix + j.to(tl.int64)[None, :] * n + i[:, None], mask=mask, other=0.0)
            sums += (to_ij - to_ji) * tl.load(S_ptr + place, mask=mask, other=0.0)
        place = tl.cast(k, tl.int64) * n + i
        to_delta = tl.load(grad_delta_ptr + place, mask=i < n, other=0.0)
        grad_b -= tl.sum(sums, 1) * 0.5 + to_delta * tl.load(delta_ptr + place, mask=i < n, other=0.0)
    tl.store(grad_b_ptr + i, grad_b / tl.load(b_ptr + i, mask=i < n, other=1.0), mask=i < n)


@triton.jit
def _pair(i, j, n):
    # Number of the cell of the nodes {i, j} on the complete mesh, and whether there is one
    low, high = tl.minimum(i, j).to(tl.int64), tl.maximum(i, j).to(tl.int64)
    return low * (2 * n - low - 1) // 2 + high - low - 1, (low < high) & (high < n)


@triton.jit(do_not_specialize=["n"])
def field_generator_complete_fwd_kernel(b_ptr, w_ptr, v_ptr, S_ptr, delta_ptr, n, BI: tl.constexpr, BJ: tl.constexpr):
    i, k = tl.program_id(1) * BI + tl.arange(0, BI), tl.program_id(0).to(tl.int64)
    m = tl.cast(n, tl.int64) * (n - 1) // 2
    r_i = _inverse_root(b_ptr, i, n)
    sums = tl.zeros((BI, BJ), tl.float32)
    for first in range(0, n, BJ):
        j = first + tl.arange(0, BJ)
        cell, is_cell = _pair(i[:, None], j[None, :], n)
        w = tl.load(w_ptr + cell, mask=is_cell, other=1.0)
        flux = tl.where(w > 0, w, float("nan")) * tl.load(v_ptr + k * m + cell, mask=is_cell, other=0.0)
        flux = tl.where(i[:, None] < j[None, :], flux, -flux)
        # The product of the roots is the same number for (i, j) and (j, i), so S is exactly skew.
        S = flux * 0.5 * (r_i[:, None] * _inverse_root(b_ptr, j, n)[None, :])
        S = tl.where(i[:, None] == j[None, :], 0.0, S)
        inside = (i < n)[:, None] & (j < n)[None, :]
        tl.store(S_ptr + k * n * n + i.to(tl.int64)[:, None] * n + j[None, :], S, mask=inside)
        sums += flux
    tl.store(delta_ptr + k * n + i, tl.sum(sums, 1) * r_i * r_i, mask=i < n)


@triton.jit(do_not_specialize=["K", "n"])
def field_generator_complete_bwd_kernel(
    grad_S_ptr,
    grad_delta_ptr,
    b_ptr,
    w_ptr,
    v_ptr,
    grad_w_ptr,
    grad_v_ptr,
    K,
    n,
    BI: tl.constexpr,
    BJ: tl.constexpr,
):
    # grad_flux_ij = R_ij + q_j - q_i of the cells i < j of one tile
    i, j = tl.program_id(0) * BI + tl.arange(0, BI), tl.program_id(1) * BJ + tl.arange(0, BJ)
    cell, is_cell = _pair(i[:, None], j[None, :], n)
    is_cell = is_cell & (i[:, None] < j[None, :])
    m = tl.cast(n, tl.int64) * (n - 1) // 2
    w = tl.load(w_ptr + cell, mask=is_cell, other=0.0)
    r_i, r_j = _inverse_root(b_ptr, i, n), _inverse_root(b_ptr, j, n)
    grad_w = tl.zeros((BI, BJ), tl.float32)
    for step in range(K):
        k = tl.cast(step, tl.int64)
        R = _grad_H(grad_S_ptr + k * n * n, r_i, r_j, i, j, n, is_cell)
        q_i = -tl.load(grad_delta_ptr + k * n + i, mask=i < n, other=0.0) * r_i * r_i
        q_j = -tl.load(grad_delta_ptr + k * n + j, mask=j < n, other=0.0) * r_j * r_j
        grad_flux = R + q_j[None, :] - q_i[:, None]
        tl.store(grad_v_ptr + k * m + cell, grad_flux * w, mask=is_cell)
        grad_w += grad_flux * tl.load(v_ptr + k * m + cell, mask=is_cell, other=0.0)
    tl.store(grad_w_ptr + cell, grad_w, mask=is_cell)


def _tile(n: int) -> int:
    return SMALL_TILE if n <= SMALL_N else LARGE_TILE


def _spec(
    kernel: object, pointers: str, sizes: str, constants: dict[str, int | bool], num_warps: int = 4
) -> KernelSpec:
    signature = {f"{name}_ptr": "*fp32" for name in pointers.split()} | dict.fromkeys(sizes.split(), "i32")
    return KernelSpec(kernel, signature, constants, num_warps=num_warps)


def _forward_spec(tile: int) -> KernelSpec:
    # with 4 warps the small tile spills on sm_100
    num_warps = 8 if tile == SMALL_TILE else 4
    return _spec(field_generator_fwd_kernel, "b w N G v S delta", "m n d", {"BT": tile, "BC": CELLS}, num_warps)


def _products_spec(tile: int, mesh: bool) -> KernelSpec:
    constants = {"MESH": mesh, "BT": tile, "BC": tile}
    return _spec(
        field_generator_products_kernel,
        "grad_S grad_delta b w N G v A to_N",
        "m n d",
        constants,
        8 if tile == LARGE_TILE else 4,
    )


def _cells_spec(mesh: bool) -> KernelSpec:
    pointers = "w G v A to_N grad_w grad_N grad_G grad_v"
    return _spec(field_generator_cells_kernel, pointers, "K m n d", {"MESH": mesh, "BC": 4, "BN": 128})


def _grad_b_spec() -> KernelSpec:
    pointers = "grad_S grad_delta b S delta grad_b"
    return _spec(field_generator_grad_b_kernel, pointers, "K n", {"BI": ROWS, "BJ": COLUMNS})


def _complete_forward_spec() -> KernelSpec:
    return _spec(field_generator_complete_fwd_kernel, "b w v S delta", "n", {"BI": ROWS, "BJ": COLUMNS})


def _complete_backward_spec() -> KernelSpec:
    pointers = "grad_S grad_delta b w v grad_w grad_v"
    return _spec(field_generator_complete_bwd_kernel, pointers, "K n", {"BI": ROWS, "BJ": COLUMNS})


def specs() -> Iterator[KernelSpec]:
    """Every kernel x configuration that the op can launch."""
    for tile in (SMALL_TILE, LARGE_TILE):
        yield _forward_spec(tile)
        yield _products_spec(tile, False)
        yield _products_spec(tile, True)
    yield from (_cells_spec(False), _cells_spec(True), _grad_b_spec())
    yield from (_complete_forward_spec(), _complete_backward_spec())


def field_generator(b: Tensor, w: Tensor, N: Tensor | None, G: Tensor | None, v: Tensor) -> tuple[Tensor, Tensor]:
    """S (K, n, n) and delta (K, n). A value out of range (b, w, v) makes NaN."""
    b, w, v = b.contiguous(), w.contiguous(), v.contiguous()
    (K, m, d), n = v.shape, b.shape[0]
    S, delta = v.new_empty(K, n, n), v.new_empty(K, n)
    if delta.numel() == 0:
        return S, delta
    if N is None or G is None:
        _complete_forward_spec().launch((K, cdiv(n, ROWS)), b, w, v, S, delta, n)
        return S, delta
    spec = _forward_spec(_tile(n))
    tiles = cdiv(n, spec.constexprs["BT"])
    spec.launch((K, tiles, tiles), b, w, N.contiguous(), G.contiguous(), v, S, delta, m, n, d)
    return S, delta


def field_generator_backward(
    grad_S: Tensor,
    grad_delta: Tensor,
    b: Tensor,
    w: Tensor,
    N: Tensor | None,
    G: Tensor | None,
    v: Tensor,
    S: Tensor,
    delta: Tensor,
    wanted: frozenset[str],
) -> dict[str, Tensor]:
    """The gradients that are wanted of b, w, N, G and v."""
    grad_S, grad_delta, b, w, v = (t.contiguous() for t in (grad_S, grad_delta, b, w, v))
    (K, m, d), n = v.shape, b.shape[0]
    grad_b, grad_w, grad_v = torch.empty_like(b), torch.empty_like(w), torch.empty_like(v)
    found = {"b": grad_b, "w": grad_w, "v": grad_v}
    if "b" in wanted and n:
        _grad_b_spec().launch((cdiv(n, ROWS),), grad_S, grad_delta, b, S, delta, grad_b, K, n)
    if (N is None or G is None) and wanted & {"w", "v"} and n:
        grid = cdiv(n, ROWS), cdiv(n, COLUMNS)
        _complete_backward_spec().launch(grid, grad_S, grad_delta, b, w, v, grad_w, grad_v, K, n)
    if N is not None and G is not None and wanted - {"b"}:
        mesh = bool(wanted & {"N", "G"})
        N, G = N.contiguous(), G.contiguous()
        A = v.new_empty(K, m, n)
        shares = torch.empty_like(A) if mesh else A  # unread without `mesh`, like the two below
        grad_N, grad_G = (torch.empty_like(N), torch.empty_like(G)) if mesh else (N, G)
        spec = _products_spec(_tile(n), mesh)
        grid_3 = K, cdiv(m, spec.constexprs["BC"]), cdiv(n, spec.constexprs["BT"])
        if A.numel():
            spec.launch(grid_3, grad_S, grad_delta, b, w, N, G, v, A, shares, m, n, d)
        spec = _cells_spec(mesh)
        if m:
            grid_1 = (cdiv(m, spec.constexprs["BC"]),)
            spec.launch(grid_1, w, G, v, A, shares, grad_w, grad_N, grad_G, grad_v, K, m, n, d)
        found |= {"N": grad_N, "G": grad_G}
    return found
