"""field_flow on a GPU: the kernels of the flow and of its adjoint; triton_kernels.py launches them.

A program takes one sample through all substeps and terms. Its field is contracted with the gradient once, C = v.G~,
and a term is the sum (8) of README.md over the cells, on vectors of nodes that never leave the registers. RESIDENT: C
and N~ stay there too. Else they are made again for every term, a block of cells at a time, from N and G in L2.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vfrnn_kernels.field_flow.triton_plan import inverse_root, weights


@triton.jit
def _load_cells(first, nodes, r, w_ptr, N_ptr, G_ptr, v_ptr, m, n, d, BC: tl.constexpr):
    # Rows N~_c and C_c of a block of cells, and w_c / 2. Places in the block have 32 bits: there are many of them.
    inner, base = tl.arange(0, BC), tl.cast(first, tl.int64)
    is_cell = inner < m - first
    mask = is_cell[:, None] & (nodes < n)[None, :]
    N = tl.load(N_ptr + base * n + (inner[:, None] * n + nodes[None, :]), mask=mask, other=0.0)
    C = tl.zeros(mask.shape, tl.float32)
    place = inner[:, None] * (d * n) + nodes[None, :]
    for k in range(d):
        v = tl.load(v_ptr + base * d + (inner * d + k), mask=is_cell, other=0.0)
        C += v[:, None] * tl.load(G_ptr + (base * d + k) * n + place, mask=mask, other=0.0)
    return N * r[None, :], C * r[None, :], weights(w_ptr, first + inner, m) * 0.5


@triton.jit
def _add_cells(
    Sy, y, N, C, half_w, cells, m, coef_C_ptr, coef_N_ptr, sigma, KEEP_C: tl.constexpr, KEEP_N: tl.constexpr
):
    a, g = tl.sum(N * y[None, :], 1), tl.sum(C * y[None, :], 1)
    if KEEP_C:
        tl.store(coef_C_ptr + cells, sigma * a, mask=cells < m)
    if KEEP_N:
        tl.store(coef_N_ptr + cells, -sigma * g, mask=cells < m)
    return Sy + tl.sum((half_w * g)[:, None] * N - (half_w * a)[:, None] * C, 0)


@triton.jit
def _generator(
    y,
    N,
    C,
    half_w,
    nodes,
    r,
    w_ptr,
    N_ptr,
    G_ptr,
    v_ptr,
    m,
    n,
    d,
    coef_C_ptr,
    coef_N_ptr,
    sigma,
    KEEP_C: tl.constexpr,
    KEEP_N: tl.constexpr,
    RESIDENT: tl.constexpr,
    BC: tl.constexpr,
):
    # S y. Kept for the gradient of C and N~ (README.md, 9): sigma N~_c.y and -sigma C_c.y
    Sy = tl.zeros_like(y)
    if RESIDENT:
        Sy = _add_cells(Sy, y, N, C, half_w, tl.arange(0, BC), m, coef_C_ptr, coef_N_ptr, sigma, KEEP_C, KEEP_N)
    else:
        for first in range(0, m, BC):
            cells = first + tl.arange(0, BC)
            rows_N, rows_C, w = _load_cells(first, nodes, r, w_ptr, N_ptr, G_ptr, v_ptr, m, n, d, BC)
            Sy = _add_cells(Sy, y, rows_N, rows_C, w, cells, m, coef_C_ptr, coef_N_ptr, sigma, KEEP_C, KEEP_N)
    return Sy


@triton.jit
def _divergence(C, half_w, nodes, r, w_ptr, N_ptr, G_ptr, v_ptr, m, n, d, RESIDENT: tl.constexpr, BC: tl.constexpr):
    # div v = -B^-1/2 C^T w
    if RESIDENT:
        total = tl.sum(half_w[:, None] * C, 0)
    else:
        total = tl.zeros_like(r)
        for first in range(0, m, BC):
            _, rows_C, w = _load_cells(first, nodes, r, w_ptr, N_ptr, G_ptr, v_ptr, m, n, d, BC)
            total += tl.sum(w[:, None] * rows_C, 0)
    return -2 * r * total


@triton.jit
def _without_mean(x, nodes, n):
    return tl.where(nodes < n, x - tl.sum(x, 0) / n, 0.0)


@triton.jit
def _substep(
    h,
    e,
    tau,
    order,
    N,
    C,
    half_w,
    nodes,
    r,
    w_ptr,
    N_ptr,
    G_ptr,
    v_ptr,
    m,
    n,
    d,
    RESIDENT: tl.constexpr,
    BC: tl.constexpr,
):
    u = e * h
    y = u
    for term in range(order):
        Sy = _generator(
            y,
            N,
            C,
            half_w,
            nodes,
            r,
            w_ptr,
            N_ptr,
            G_ptr,
            v_ptr,
            m,
            n,
            d,
            w_ptr,
            w_ptr,
            0.0,
            False,
            False,
            RESIDENT,
            BC,
        )
        y = u + tau / (order - term) * Sy
    return e * y


@triton.jit
def _time_step(dt_ptr, count_ptr):
    # A plan that found no number of substeps makes everything NaN.
    count = tl.load(count_ptr)
    return tl.maximum(count, 1), tl.where(count > 0, tl.load(dt_ptr) / count, float("nan"))


@triton.jit(do_not_specialize=["m", "n", "d", "field_stride", "order", "volume_preserving", "direction"])
def field_flow_fwd_kernel(
    h_ptr,
    v_ptr,
    b_ptr,
    w_ptr,
    N_ptr,
    G_ptr,
    dt_ptr,
    scale_ptr,
    count_ptr,
    out_ptr,
    m,
    n,
    d,
    field_stride,
    order,
    volume_preserving,
    direction,
    RESIDENT: tl.constexpr,
    BC: tl.constexpr,
    NB: tl.constexpr,
):
    # The flow of S, or for direction -1 that of -S with the same e: the adjoint.
    sample = tl.program_id(0).to(tl.int64)
    v_ptr += sample * field_stride
    nodes = tl.arange(0, NB)
    r = inverse_root(b_ptr, nodes, n)
    k, tau = _time_step(dt_ptr, count_ptr)
    N, C, half_w = _load_cells(0, nodes, r, w_ptr, N_ptr, G_ptr, v_ptr, m, n, d, BC)
    div = _divergence(C, half_w, nodes, r, w_ptr, N_ptr, G_ptr, v_ptr, m, n, d, RESIDENT, BC)
    div = tl.where(volume_preserving != 0, _without_mean(div, nodes, n), div)
    e = tl.exp(-0.25 * tau * tl.load(scale_ptr) * div)
    h = tl.load(h_ptr + sample * n + nodes, mask=nodes < n, other=0.0)
    tau = tau * direction
    for _ in range(k):
        h = _substep(h, e, tau, order, N, C, half_w, nodes, r, w_ptr, N_ptr, G_ptr, v_ptr, m, n, d, RESIDENT, BC)
    tl.store(out_ptr + sample * n + nodes, h, mask=nodes < n)


@triton.jit
def _add_outer(coef_ptr, vectors_ptr, row_ptr, out_ptr, terms, m, n, is_first, ROW: tl.constexpr, BM: tl.constexpr):
    # out (m, n) += coef^T vectors (+ 1 row^T); the first time out is set
    BT: tl.constexpr = 16
    BJ: tl.constexpr = 64
    for first_cell in range(0, m, BM):
        cells = first_cell + tl.arange(0, BM)
        for first_node in range(0, n, BJ):
            j = first_node + tl.arange(0, BJ)
            place = cells.to(tl.int64)[:, None] * n + j[None, :]
            mask = (cells < m)[:, None] & (j < n)[None, :]
            added = mask & (j < tl.where(is_first != 0, 0, n))[None, :]
            total = tl.load(out_ptr + place, mask=added, other=0.0)
            if ROW:
                total += tl.load(row_ptr + j, mask=j < n, other=0.0)[None, :]
            for first_term in range(0, terms, BT):
                t = first_term + tl.arange(0, BT)
                coef_mask, vector_mask = (t < terms)[None, :] & (cells < m)[:, None], (t < terms)[:, None] & (j < n)
                coef = tl.load(coef_ptr + t[None, :] * m + cells[:, None], mask=coef_mask, other=0.0)
                vectors = tl.load(vectors_ptr + t[:, None] * n + j[None, :], mask=vector_mask, other=0.0)
                total = tl.dot(coef, vectors, total, input_precision="tf32x3")
            tl.store(out_ptr + place, total, mask=mask)


@triton.jit(do_not_specialize=["B", "m", "n", "d", "field_stride", "order", "volume_preserving", "states"])
def field_flow_bwd_kernel(
    grad_ptr,
    h_ptr,
    v_ptr,
    b_ptr,
    w_ptr,
    N_ptr,
    G_ptr,
    dt_ptr,
    scale_ptr,
    count_ptr,
    grad_h_ptr,
    X_ptr,
    Y_ptr,
    row_ptr,
    row_b_ptr,
    parts_ptr,
    states_ptr,
    vectors_ptr,
    coef_C_ptr,
    coef_N_ptr,
    B,
    m,
    n,
    d,
    field_stride,
    order,
    volume_preserving,
    states,
    MESH: tl.constexpr,
    RESIDENT: tl.constexpr,
    BC: tl.constexpr,
    NB: tl.constexpr,
):
    # Program p takes the samples p, p + programs, ... and sums their X = dL/dC over w / 2, and Y, that of N~ (MESH).
    # Of a substep it keeps the vectors y_{j+1} (row 2 j) and r_j (row 2 j + 1) and their coefficients, and in the rows
    # after these the images c_j S y_{j+1}, since y_j - u would have only the digits that are left of them beside u; of
    # the whole flow the state before every `segment`-th substep, from which the others are computed again.
    slot, slots = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    nodes = tl.arange(0, NB)
    inside = nodes < n
    r = inverse_root(b_ptr, nodes, n)
    b = tl.load(b_ptr + nodes, mask=inside, other=1.0)
    k, tau = _time_step(dt_ptr, count_ptr)
    segment = (k + states - 1) // states
    scale = tl.load(scale_ptr)
    X_ptr += slot * m * n
    Y_ptr += slot * m * n
    states_ptr += slot * states * n
    vectors_ptr += slot * 3 * order * n
    coef_C_ptr += slot * 2 * order * m
    coef_N_ptr += slot * 2 * order * m
    row_ptr += slot * n
    for sample_32 in range(tl.program_id(0), B, slots):
        sample = tl.cast(sample_32, tl.int64)
        field_ptr = v_ptr + sample * field_stride
        N, C, half_w = _load_cells(0, nodes, r, w_ptr, N_ptr, G_ptr, field_ptr, m, n, d, BC)
        div = _divergence(C, half_w, nodes, r, w_ptr, N_ptr, G_ptr, field_ptr, m, n, d, RESIDENT, BC)
        delta = scale * tl.where(volume_preserving != 0, _without_mean(div, nodes, n), div)
        e = tl.exp(-0.25 * tau * delta)
        h = tl.load(h_ptr + sample * n + nodes, mask=inside, other=0.0)
        for s in range(k - 1):
            tl.store(states_ptr + (s // segment) * n + nodes, h, mask=nodes < tl.where(s % segment == 0, n, 0))
            h = _substep(
                h, e, tau, order, N, C, half_w, nodes, r, w_ptr, N_ptr, G_ptr, field_ptr, m, n, d, RESIDENT, BC
            )
        last = k - 1
        tl.store(states_ptr + (last // segment) * n + nodes, h, mask=nodes < tl.where(last % segment == 0, n, 0))
        tl.debug_barrier()
        g = tl.load(grad_ptr + sample * n + nodes, mask=inside, other=0.0)
        grad_e, series_b = tl.zeros_like(g), tl.zeros_like(g)
        grad_tau = tl.zeros_like(g)  # summed over the nodes at the end
        for back in range(k):
            s = k - 1 - back
            h = tl.load(states_ptr + (s // segment) * n + nodes, mask=inside, other=0.0)
            for _ in range(s % segment):
                h = _substep(
                    h, e, tau, order, N, C, half_w, nodes, r, w_ptr, N_ptr, G_ptr, field_ptr, m, n, d, RESIDENT, BC
                )
            u = e * h
            y = u
            for term in range(order):
                j = order - 1 - term
                tl.store(vectors_ptr + 2 * j * n + nodes, y, mask=inside)
                c, at = tau / (j + 1), (2 * j + 1) * m
                Sy = _generator(
                    y, N, C, half_w, nodes, r, w_ptr, N_ptr, G_ptr, field_ptr, m, n, d,
                    coef_C_ptr + at, coef_N_ptr + at, -c, True, MESH, RESIDENT, BC,
                )  # fmt: skip
                image = c * Sy
                tl.store(vectors_ptr + (2 * order + j) * n + nodes, image, mask=inside)
                y = u + image
            grad_e += g * y
            y_r = e * g
            grad_u = y_r
            tl.debug_barrier()
            # The adjoint of y_j = u + c_j S y_{j+1}: README.md, (6), with y_r = r_j
            for j in range(order):
                tl.store(vectors_ptr + (2 * j + 1) * n + nodes, y_r, mask=inside)
                c, at = tau / (j + 1), 2 * j * m
                Sr = _generator(
                    y_r, N, C, half_w, nodes, r, w_ptr, N_ptr, G_ptr, field_ptr, m, n, d,
                    coef_C_ptr + at, coef_N_ptr + at, c, True, MESH, RESIDENT, BC,
                )  # fmt: skip
                y_next = tl.load(vectors_ptr + 2 * j * n + nodes, mask=inside, other=0.0)
                grad_tau -= Sr * y_next / (j + 1)
                image = tl.load(vectors_ptr + (2 * order + j) * n + nodes, mask=inside, other=0.0)
                series_b += y_r * image - c * Sr * y_next
                y_r = -c * Sr
                grad_u += y_r
            grad_e += grad_u * h
            g = e * grad_u
            # What delta gets, complete after the first substep: e = exp(-tau delta / 4), delta = scale div
            grad_delta = -0.25 * tau * grad_e * e
            grad_delta = tl.where(volume_preserving != 0, _without_mean(grad_delta, nodes, n), grad_delta)
            tl.store(row_ptr + nodes, tl.where(s == 0, -2 * scale * r * grad_delta, 0.0), mask=inside)
            if s == 0:
                row_b = -(0.5 * series_b + scale * grad_delta * div) / b
                tl.store(grad_h_ptr + sample * n + nodes, g, mask=inside)
                tl.store(row_b_ptr + sample * n + nodes, row_b, mask=inside)
                total = tl.sum(grad_tau - 0.25 * grad_e * e * delta, 0)
                tl.store(parts_ptr + 2 * sample, total / k)
                tl.store(parts_ptr + 2 * sample + 1, tl.sum(grad_delta * div, 0))
            tl.debug_barrier()
            is_first = ((s == k - 1) & (sample == slot)).to(tl.int32)
            _add_outer(coef_C_ptr, vectors_ptr, row_ptr, X_ptr, 2 * order, m, n, is_first, True, 32)
            if MESH:
                _add_outer(coef_N_ptr, vectors_ptr, row_ptr, Y_ptr, 2 * order, m, n, is_first, False, 32)
            tl.debug_barrier()
