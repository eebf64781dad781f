"""field_flow on a GPU: the sums that end its backward. Equations (7) and (9) of README.md.

The adjoint (triton_device.py) leaves for every field X = sum_t c_t (ra y^T - a r^T) - 2 1 (B^-1/2 grad_div)^T, in parts
where samples share a field, and likewise Y for N~. Each result is summed by one program in a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vfrnn_kernels.field_flow.triton_plan import inverse_root, weights


@triton.jit(do_not_specialize=["m", "n", "d"])
def field_flow_cells_kernel(
    b_ptr, w_ptr, v_ptr, G_ptr, X_ptr, grad_v_ptr, part_w_ptr, m, n, d, BC: tl.constexpr, BN: tl.constexpr
):
    # Of a field: grad_v_ck = (w_c / 2) <X_c, G~_ck> and its part <X_c, C_c> / 2 of grad_w_c
    cells, field = tl.program_id(1) * BC + tl.arange(0, BC), tl.program_id(0).to(tl.int64)
    row = field * m + cells
    half_w = weights(w_ptr, cells, m) * 0.5
    part_w = tl.zeros((BC,), tl.float32)
    for axis in range(d):
        along = tl.zeros((BC, BN), tl.float32)
        for first in range(0, n, BN):
            j = first + tl.arange(0, BN)
            mask = (cells < m)[:, None] & (j < n)[None, :]
            X = tl.load(X_ptr + row[:, None] * n + j[None, :], mask=mask, other=0.0)
            G = tl.load(G_ptr + (cells.to(tl.int64) * d + axis)[:, None] * n + j[None, :], mask=mask, other=0.0)
            along += X * G * inverse_root(b_ptr, j, n)[None, :]
        total = tl.sum(along, 1)
        v = tl.load(v_ptr + row * d + axis, mask=cells < m, other=0.0)
        tl.store(grad_v_ptr + row * d + axis, half_w * total, mask=cells < m)
        part_w += 0.5 * v * total
    tl.store(part_w_ptr + row, part_w, mask=cells < m)


@triton.jit(do_not_specialize=["fields", "slots", "n", "d"])
def field_flow_mesh_kernel(
    b_ptr,
    w_ptr,
    v_ptr,
    X_ptr,
    Y_ptr,
    grad_N_ptr,
    grad_G_ptr,
    fields,
    slots,
    n,
    d,
    BF: tl.constexpr,
    BN: tl.constexpr,
):
    # Of a cell: grad_G_ck = (w_c / 2) B^-1/2 sum_fields v_ck X_c, and for k = d: grad_N_c = (w_c / 2) B^-1/2 Y_c
    cell, m, axis = tl.program_id(0).to(tl.int64), tl.num_programs(0), tl.program_id(2)
    j = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros((BF, BN), tl.float32)
    if axis < d:
        for first in range(0, fields, BF):
            f = first + tl.arange(0, BF)
            row, mask = f.to(tl.int64) * m + cell, (f < fields)[:, None] & (j < n)[None, :]
            v = tl.load(v_ptr + row * d + axis, mask=f < fields, other=0.0)
            total += v[:, None] * tl.load(X_ptr + row[:, None] * n + j[None, :], mask=mask, other=0.0)
    else:
        for first in range(0, slots, BF):
            f = first + tl.arange(0, BF)
            row, mask = f.to(tl.int64) * m + cell, (f < slots)[:, None] & (j < n)[None, :]
            total += tl.load(Y_ptr + row[:, None] * n + j[None, :], mask=mask, other=0.0)
    w = tl.load(w_ptr + cell)
    gradient = 0.5 * w * inverse_root(b_ptr, j, n) * tl.sum(total, 0)
    tl.store(grad_G_ptr + (cell * d + axis) * n + j, gradient, mask=j < tl.where(axis < d, n, 0))
    tl.store(grad_N_ptr + cell * n + j, gradient, mask=j < tl.where(axis < d, 0, n))


@triton.jit(do_not_specialize=["rows", "columns"])
def field_flow_sum_kernel(rows_ptr, out_ptr, rows, columns, BR: tl.constexpr, BJ: tl.constexpr):
    # out_j = sum_i rows_ij
    j = tl.program_id(0) * BJ + tl.arange(0, BJ)
    total = tl.zeros((BR, BJ), tl.float32)
    for first in range(0, rows, BR):
        i = first + tl.arange(0, BR)
        mask = (i < rows)[:, None] & (j < columns)[None, :]
        total += tl.load(rows_ptr + i.to(tl.int64)[:, None] * columns + j[None, :], mask=mask, other=0.0)
    tl.store(out_ptr + j, tl.sum(total, 0), mask=j < columns)
