"""field_flow on a GPU: what is made once per call, on the device: the number of substeps, a shared field contracted.

The plan is the bound of reference_plan.py and csrc/field_flow/plan.h, equation (5) of README.md. Its result stays on
the device, where the flow reads it as the bound of its loop, so that nothing waits for the host. -1: no number of
substeps up to the largest suffices, or the bound is not finite; the flow is then NaN.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from vfrnn_kernels.triton_runtime import KernelSpec, cdiv

#: Cells, nodes and fields x cells whose norms one program takes; tile of the products of G with itself.
CELLS, NODES, FIELDS, TILE = 16, 64, 256, 32
NORMS = 5  # rows and columns of W^1/2 N B^-1/2, of W^1/2 G B^-1/2, and |v_c|^2


@triton.jit
def inverse_root(b_ptr, nodes, n):
    """b^-1/2 of the nodes, 0 beyond the last; NaN where b is not positive."""
    b = tl.load(b_ptr + nodes, mask=nodes < n, other=1.0)
    return tl.where(nodes < n, 1 / tl.sqrt_rn(tl.where(b > 0, b, float("nan"))), 0.0)


@triton.jit
def weights(w_ptr, cells, m):
    """w of the cells, 0 beyond the last; NaN where it is not positive."""
    w = tl.load(w_ptr + cells, mask=cells < m, other=0.0)
    return tl.where((w > 0) | (cells >= m), w, float("nan"))


@triton.jit(do_not_specialize=["m", "n", "d"])
def field_flow_contract_kernel(v_ptr, G_ptr, C_ptr, ones_ptr, m, n, d, BC: tl.constexpr, BN: tl.constexpr):
    # C_cj = sum_k v_ck G_ckj: from here on the shared field is 1 on the one-dimensional cells of the gradient C.
    cells, j = tl.program_id(0) * BC + tl.arange(0, BC), tl.program_id(1) * BN + tl.arange(0, BN)
    mask = (cells < m)[:, None] & (j < n)[None, :]
    C = tl.zeros((BC, BN), tl.float32)
    for k in range(d):
        row = cells.to(tl.int64) * d + k
        v = tl.load(v_ptr + row, mask=cells < m, other=0.0)
        C += v[:, None] * tl.load(G_ptr + row[:, None] * n + j[None, :], mask=mask, other=0.0)
    tl.store(C_ptr + cells.to(tl.int64)[:, None] * n + j[None, :], C, mask=mask)
    tl.store(ones_ptr + cells, tl.full((BC,), 1.0, tl.float32), mask=cells < m)


@triton.jit(do_not_specialize=["rows", "m", "n", "d"])
def field_flow_norms_kernel(
    v_ptr,
    b_ptr,
    w_ptr,
    N_ptr,
    G_ptr,
    norms_ptr,
    rows,
    m,
    n,
    d,
    BC: tl.constexpr,
    BN: tl.constexpr,
    BF: tl.constexpr,
):
    # The largest sums of one block of rows, of one of columns and of one of fields; 0 beyond the last of them.
    part, parts = tl.program_id(0), tl.num_programs(0)
    cells = part * BC + tl.arange(0, BC)
    root = tl.sqrt_rn(weights(w_ptr, cells, m))
    of_N, of_G = tl.zeros((BC,), tl.float32), 0.0
    for k in range(-1, d):
        sums = tl.zeros((BC,), tl.float32)
        for first in range(0, n, BN):
            j = first + tl.arange(0, BN)
            mask = (cells < m)[:, None] & (j < n)[None, :]
            place = tl.where(k < 0, cells, cells.to(tl.int64) * d + k)[:, None] * n + j[None, :]
            entries = tl.load(N_ptr + place, mask=mask & (k < 0), other=0.0)
            entries += tl.load(G_ptr + place, mask=mask & (k >= 0), other=0.0)
            sums += tl.sum(tl.abs(entries) * (root[:, None] * inverse_root(b_ptr, j, n)[None, :]), 1)
        of_N = tl.where(k < 0, sums, of_N)
        of_G = tl.where(k < 0, of_G, tl.maximum(of_G, tl.max(sums, 0)))
    tl.store(norms_ptr + part, tl.max(of_N, 0))
    tl.store(norms_ptr + 2 * parts + part, of_G)
    j = part * BN + tl.arange(0, BN)
    r = inverse_root(b_ptr, j, n)
    of_N, columns_G = tl.zeros((BN,), tl.float32), tl.zeros((BN,), tl.float32)
    for first in range(0, m, BC):
        cells = first + tl.arange(0, BC)
        root = tl.sqrt_rn(weights(w_ptr, cells, m))
        mask = (cells < m)[:, None] & (j < n)[None, :]
        N = tl.load(N_ptr + cells.to(tl.int64)[:, None] * n + j[None, :], mask=mask, other=0.0)
        of_N += tl.sum(tl.abs(N) * (root[:, None] * r[None, :]), 0)
        for k in range(d):
            G = tl.load(G_ptr + (cells.to(tl.int64) * d + k)[:, None] * n + j[None, :], mask=mask, other=0.0)
            columns_G += tl.sum(tl.abs(G) * (root[:, None] * r[None, :]), 0)
    tl.store(norms_ptr + parts + part, tl.max(of_N, 0))
    tl.store(norms_ptr + 3 * parts + part, tl.max(columns_G, 0))
    fields = part.to(tl.int64) * BF + tl.arange(0, BF)
    squares = tl.zeros((BF,), tl.float32)
    for k in range(d):
        v = tl.load(v_ptr + fields * d + k, mask=fields < rows, other=0.0)
        squares += v * v
    tl.store(norms_ptr + 4 * parts + part, tl.max(squares, 0))


@triton.jit
def _largest(norms_ptr, which, parts, BF: tl.constexpr):
    largest = tl.zeros((BF,), tl.float32)
    for first in range(0, parts, BF):
        place = first + tl.arange(0, BF)
        found = tl.load(norms_ptr + which * parts + place, mask=place < parts, other=0.0)
        largest = tl.maximum(largest, found)
    return tl.max(largest, 0)


@triton.jit(do_not_specialize=["parts", "m", "n", "d"])
def field_flow_gram_kernel(
    b_ptr, w_ptr, G_ptr, norms_ptr, gram_ptr, parts, m, n, d, BT: tl.constexpr, BF: tl.constexpr
):
    # A^T A, A = W^1/2 G B^-1/2 over the bound sqrt(||A||_1 ||A||_inf) on its norm: no power of it overflows
    i, j = tl.program_id(0) * BT + tl.arange(0, BT), tl.program_id(1) * BT + tl.arange(0, BT)
    norm = tl.sqrt_rn(_largest(norms_ptr, 2, parts, BF)) * tl.sqrt_rn(_largest(norms_ptr, 3, parts, BF))
    inverse = 1 / tl.where(norm > 0, norm, 1.0)
    r_i, r_j = inverse_root(b_ptr, i, n) * inverse, inverse_root(b_ptr, j, n) * inverse
    gram = tl.zeros((BT, BT), tl.float32)
    for first in range(0, m * d, BT):
        row = first + tl.arange(0, BT)
        root = tl.sqrt_rn(weights(w_ptr, row // d, m))
        place = row.to(tl.int64)[:, None] * n
        inside = (row < m * d)[:, None]
        A_i = tl.load(G_ptr + place + i[None, :], mask=inside & (i < n)[None, :], other=0.0)
        A_j = tl.load(G_ptr + place + j[None, :], mask=inside & (j < n)[None, :], other=0.0)
        A_i, A_j = A_i * (root[:, None] * r_i[None, :]), A_j * (root[:, None] * r_j[None, :])
        gram = tl.dot(tl.trans(A_i), A_j, gram, input_precision="tf32x3")
    mask = (i < n)[:, None] & (j < n)[None, :]
    tl.store(gram_ptr + i.to(tl.int64)[:, None] * n + j[None, :], gram, mask=mask)


@triton.jit(do_not_specialize=["n"])
def field_flow_square_kernel(gram_ptr, squares_ptr, n, BT: tl.constexpr):
    # The share of one tile in ||(A^T A)^2||_F^2
    i, j = tl.program_id(0) * BT + tl.arange(0, BT), tl.program_id(1) * BT + tl.arange(0, BT)
    square = tl.zeros((BT, BT), tl.float32)
    for first in range(0, n, BT):
        k = first + tl.arange(0, BT)
        left_mask, right_mask = (i < n)[:, None] & (k < n)[None, :], (k < n)[:, None] & (j < n)[None, :]
        left = tl.load(gram_ptr + i.to(tl.int64)[:, None] * n + k[None, :], mask=left_mask, other=0.0)
        right = tl.load(gram_ptr + k.to(tl.int64)[:, None] * n + j[None, :], mask=right_mask, other=0.0)
        square = tl.dot(left, right, square, input_precision="tf32x3")
    total = tl.sum(tl.sum(square * square, 1), 0)
    tl.store(squares_ptr + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1), total)


@triton.jit(do_not_specialize=["parts", "tiles", "limit", "most"])
def field_flow_count_kernel(dt_ptr, norms_ptr, squares_ptr, count_ptr, parts, tiles, limit, most, BF: tl.constexpr):
    rows_N, columns_N = _largest(norms_ptr, 0, parts, BF), _largest(norms_ptr, 1, parts, BF)
    rows_G, columns_G = _largest(norms_ptr, 2, parts, BF), _largest(norms_ptr, 3, parts, BF)
    total = 0.0
    for first in range(0, tiles, BF):
        place = first + tl.arange(0, BF)
        total += tl.sum(tl.load(squares_ptr + place, mask=place < tiles, other=0.0), 0)
    sharper = tl.sqrt_rn(tl.sqrt_rn(tl.sqrt_rn(total)))  # ||A||_2 <= ||(A^T A)^2||_F^1/4, over the norm taken out
    bound = tl.abs(tl.load(dt_ptr)) * tl.sqrt_rn(_largest(norms_ptr, 4, parts, BF))
    bound = bound * (tl.sqrt_rn(rows_N) * tl.sqrt_rn(columns_N)) * (tl.sqrt_rn(rows_G) * tl.sqrt_rn(columns_G))
    needed = bound * tl.where(sharper < 1, sharper, 1.0) / limit
    within = needed <= most  # false also for NaN
    count = tl.ceil(tl.where(within, needed, 0.0)).to(tl.int32)
    tl.store(count_ptr, tl.where(within, tl.maximum(count, 1), -1))


def describe(
    kernel: object, pointers: str, sizes: str, constants: dict[str, int | bool], num_warps: int = 4, scalars: str = ""
) -> KernelSpec:
    """A kernel on float32 tensors (and count, int32), 32-bit sizes and float scalars, in this order."""
    signature = {f"{name}_ptr": "*i32" if name == "count" else "*fp32" for name in pointers.split()}
    signature |= dict.fromkeys(sizes.split(), "i32") | dict.fromkeys(scalars.split(), "fp32")
    return KernelSpec(kernel, signature, constants, num_warps=num_warps)


CONTRACT = describe(field_flow_contract_kernel, "v G C ones", "m n d", {"BC": 4, "BN": 128})
_NORMS = describe(field_flow_norms_kernel, "v b w N G norms", "rows m n d", {"BC": CELLS, "BN": NODES, "BF": FIELDS})
_GRAM = describe(field_flow_gram_kernel, "b w G norms gram", "parts m n d", {"BT": TILE, "BF": FIELDS})
_SQUARE = describe(field_flow_square_kernel, "gram squares", "n", {"BT": TILE})
_COUNT = describe(
    field_flow_count_kernel, "dt norms squares count", "parts tiles", {"BF": FIELDS}, scalars="limit most"
)

SPECS = (CONTRACT, _NORMS, _GRAM, _SQUARE, _COUNT)


def contracted(v: Tensor, G: Tensor) -> tuple[Tensor, Tensor]:
    """A field shared by all samples as the field 1 (1, m, 1) on the gradient v.G (m, 1, n)."""
    m, d, n = G.shape
    C, ones = G.new_empty(m, 1, n), G.new_empty(1, m, 1)
    if C.numel():
        grid = cdiv(m, CONTRACT.constexprs["BC"]), cdiv(n, CONTRACT.constexprs["BN"])
        CONTRACT.launch(grid, v, G, C, ones, m, n, d)
    return ones, C


#: More substeps than this are refused.
MOST_SUBSTEPS = 10_000.0


def series_limit(order: int) -> float:
    """The largest |dt| ||S|| / substeps at which the series of that degree is exact to the rounding of float32: 0.6 at
    degree 8, and the same first neglected term x^(order + 1) / (order + 1)! at the others."""
    return math.exp((9 * math.log(0.6) - math.lgamma(10) + math.lgamma(order + 2)) / (order + 1))


def planned_count(v: Tensor, b: Tensor, w: Tensor, N: Tensor, G: Tensor, dt: Tensor, order: int) -> Tensor:
    """Substeps that certainly suffice for the fields v, (1,) int32, or -1."""
    m, d, n = G.shape
    rows, tiles = v.shape[0] * m, cdiv(n, TILE)
    parts = max(cdiv(m, CELLS), cdiv(n, NODES), cdiv(rows, FIELDS))
    norms, gram, squares = v.new_empty(NORMS, parts), v.new_empty(n, n), v.new_empty(tiles, tiles)
    count = v.new_empty(1, dtype=torch.int32)
    _NORMS.launch((parts,), v, b, w, N, G, norms, rows, m, n, d)
    _GRAM.launch((tiles, tiles), b, w, G, norms, gram, parts, m, n, d)
    _SQUARE.launch((tiles, tiles), gram, squares, n)
    limit = series_limit(order)
    _COUNT.launch((1,), dt, norms, squares, count, parts, tiles * tiles, limit, MOST_SUBSTEPS)
    return count
