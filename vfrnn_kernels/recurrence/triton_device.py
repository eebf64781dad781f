"""recurrence on a GPU: the kernels h_t = act(M h_{t-1} + U x_t + c) and its adjoint; triton_kernels.py launches them.

Rows are samples, so a step is z = h M^T (README.md, equation 1) and its adjoint carried = grad_z M (2). Two dtypes:
that of x, U and M, in which products are made (with float32 sums), and that of the state h, c, beta and hs, which is
the same or float32. A float32 state beside 16-bit products is split, h = high + low, into two products.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vfrnn_kernels.triton_activations import activate, grad_z_of

RUN_TIME = tl.constexpr(-1)


@triton.jit
def _times(h, matrix, z, SPLIT: tl.constexpr, PRECISION: tl.constexpr):
    # z + h matrix, with h (float32) rounded to the dtype of the matrix, or split into two such numbers.
    high = h.to(matrix.dtype)
    z = tl.dot(high, matrix, acc=z, input_precision=PRECISION)
    if SPLIT:
        low = (h - high.to(tl.float32)).to(matrix.dtype)
        z = tl.dot(low, matrix, acc=z, input_precision=PRECISION)
    return z


@triton.jit(do_not_specialize=["T", "B", "i", "x_step", "x_row", "activation"])
def recurrence_fwd_kernel(
    x_ptr,  # (T, B, i), strides x_step, x_row, 1; not read if I == 0
    U_ptr,  # (n, i)
    c_ptr,  # (n,)
    M_ptr,  # (n, n)
    h0_ptr,  # (B, n)
    beta_ptr,  # (n,), of modrelu; for the others any n numbers
    hs_ptr,  # (T, B, n); if I == 0 it holds U x_t + c
    T,
    B,
    n,
    i,
    x_step,
    x_row,
    activation,
    N: tl.constexpr,
    I: tl.constexpr,
    BB: tl.constexpr,
    ACTIVATION: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    kind = activation if ACTIVATION == RUN_TIME else ACTIVATION
    rows = tl.program_id(0) * BB + tl.arange(0, BB)
    units = tl.arange(0, N)
    inside = (rows < B)[:, None] & (units < n)[None, :]
    tile = rows[:, None] * n + units[None, :]
    square = (units < n)[:, None] & (units < n)[None, :]
    Mt = tl.load(M_ptr + units[None, :] * n + units[:, None], mask=square, other=0.0)  # (k, j) = M[j, k]
    h = tl.load(h0_ptr + tile, mask=inside, other=0.0).to(tl.float32)
    beta = tl.load(beta_ptr + units, mask=units < n, other=0.0).to(tl.float32)[None, :]
    # What step t + 1 starts from is loaded during step t: its way from memory is off the chain of products.
    # Step by step a scalar moves on; the offsets within a step are 32-bit, which saves registers.
    if I > 0:
        inputs = tl.arange(0, I)
        weights = (inputs < i)[:, None] & (units < n)[None, :]
        Ut = tl.load(U_ptr + units[None, :] * i + inputs[:, None], mask=weights, other=0.0)  # (I, N)
        c = tl.load(c_ptr + units, mask=units < n, other=0.0).to(tl.float32)[None, :]
        offsets = rows[:, None] * x_row + inputs[None, :]
        present = (rows < B)[:, None] & (inputs < i)[None, :]
        source_ptr = x_ptr
        step = x_step
    else:
        offsets = tile
        present = inside
        source_ptr = hs_ptr
        step = B * n
    ahead = tl.load(source_ptr + offsets, mask=present, other=0.0)
    for t in range(T):
        more = tl.full((1, 1), t, tl.int32) + 1 < T
        now = ahead
        source_ptr += step
        ahead = tl.load(source_ptr + offsets, mask=present & more, other=0.0)
        z = now.to(tl.float32)
        if I > 0:
            z = tl.dot(now, Ut, acc=tl.broadcast_to(c, (BB, N)), input_precision=PRECISION)
        h = activate(_times(h, Mt, z, SPLIT, PRECISION), beta, kind)
        tl.store(hs_ptr + tile, h.to(hs_ptr.dtype.element_ty), mask=inside)
        hs_ptr += B * n


# (2): grad_z_t = act'(h_t) (g_t + M^T grad_z_{t+1}), t = T .. 1; at the end grad_h0 = M^T grad_z_1, in rows grad_z_1 M.
@triton.jit(do_not_specialize=["T", "B", "grad_step", "grad_row", "activation"])
def recurrence_bwd_kernel(
    grad_ptr,  # g (T, B, n), strides grad_step, grad_row, 1
    M_ptr,  # (n, n)
    hs_ptr,  # (T, B, n)
    grad_z_ptr,  # (T, B, n), of the dtype of M
    grad_h0_ptr,  # (B, n)
    T,
    B,
    n,
    grad_step,
    grad_row,
    activation,
    N: tl.constexpr,
    BB: tl.constexpr,
    ACTIVATION: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    kind = activation if ACTIVATION == RUN_TIME else ACTIVATION
    rows = tl.program_id(0) * BB + tl.arange(0, BB)
    units = tl.arange(0, N)
    inside = (rows < B)[:, None] & (units < n)[None, :]
    tile = rows[:, None] * n + units[None, :]
    square = (units < n)[:, None] & (units < n)[None, :]
    M = tl.load(M_ptr + units[:, None] * n + units[None, :], mask=square, other=0.0)
    step = B * n
    last = (T - 1).to(tl.int64)
    grad_ptr += last * grad_step
    hs_ptr += last * step
    grad_z_ptr += last * step
    offsets = rows[:, None] * grad_row + units[None, :]
    grad_ahead = tl.load(grad_ptr + offsets, mask=inside, other=0.0)
    h_ahead = tl.load(hs_ptr + tile, mask=inside, other=0.0)
    carried = tl.zeros((BB, N), tl.float32)
    for t in range(T):
        more = tl.full((1, 1), t, tl.int32) + 1 < T
        a = grad_ahead.to(tl.float32) + carried
        h = h_ahead.to(tl.float32)
        grad_ptr -= grad_step
        hs_ptr -= step
        grad_ahead = tl.load(grad_ptr + offsets, mask=inside & more, other=0.0)
        h_ahead = tl.load(hs_ptr + tile, mask=inside & more, other=0.0)
        grad_z = grad_z_of(a, h, kind)
        tl.store(grad_z_ptr + tile, grad_z.to(grad_z_ptr.dtype.element_ty), mask=inside)
        grad_z_ptr -= step
        carried = _times(grad_z, M, tl.zeros((BB, N), tl.float32), SPLIT, PRECISION)
    tl.store(grad_h0_ptr + tile, carried.to(grad_h0_ptr.dtype.element_ty), mask=inside)


# One step of all samples, forward: h_t = act(h_{t-1} M^T + z), z = U x_t + c found in h_t's place. The adjoint, with
# BACKWARD: grad_z_t = act'(h_t) (grad_z_{t+1} M + g_t).
def recurrence_step_kernel(
    from_ptr,  # (B, n): h_{t-1}, or grad_z_{t+1}
    M_ptr,  # (n, n)
    start_ptr,  # (B, n): z, or g_t
    h_ptr,  # (B, n): h_t, read by the adjoint
    beta_ptr,  # (n,), of modrelu; for the others any n numbers
    to_ptr,  # (B, n): h_t, or grad_z_t
    B,
    n,
    activation,
    BB: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BACKWARD: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    rows = (tl.program_id(1) * BB + tl.arange(0, BB)).to(tl.int64)
    units = tl.program_id(0) * BN + tl.arange(0, BN)
    inside = (rows < B)[:, None] & (units < n)[None, :]
    tile = rows[:, None] * n + units[None, :]
    z = tl.load(start_ptr + tile, mask=inside, other=0.0).to(tl.float32)
    for first in range(0, n, BK):
        k = first + tl.arange(0, BK)
        state = tl.load(
            from_ptr + rows[:, None] * n + k[None, :], mask=(rows < B)[:, None] & (k < n)[None, :], other=0.0
        ).to(tl.float32)
        weights = (k < n)[:, None] & (units < n)[None, :]
        if BACKWARD:
            matrix = tl.load(M_ptr + k[:, None] * n + units[None, :], mask=weights, other=0.0)
        else:
            matrix = tl.load(M_ptr + units[None, :] * n + k[:, None], mask=weights, other=0.0)
        z = _times(state, matrix, z, SPLIT, PRECISION)
    if BACKWARD:
        h = tl.load(h_ptr + tile, mask=inside, other=0.0).to(tl.float32)
        result = grad_z_of(z, h, activation)
    else:
        beta = tl.load(beta_ptr + units, mask=units < n, other=0.0).to(tl.float32)[None, :]
        result = activate(z, beta, activation)
    tl.store(to_ptr + tile, result.to(to_ptr.dtype.element_ty), mask=inside)


# Whether 16 divides the address of step t of (T, B, n) depends on t and B, unless it divides n. Where it does not, no
# row but the first is known to be aligned either: nothing is lost by one kernel for all addresses.
_RUN_TIME = ["B", "activation"]
aligned_step_kernel = triton.jit(recurrence_step_kernel, do_not_specialize=_RUN_TIME)
unaligned_step_kernel = triton.jit(
    recurrence_step_kernel,
    do_not_specialize=_RUN_TIME,
    do_not_specialize_on_alignment=["from_ptr", "start_ptr", "h_ptr", "to_ptr"],
)


# (3), (4): the sums over steps and samples of grad_z and of sign(h) grad_z, each program over ROWS rows; the programs'
# sums are added in their order by the caller, so that the bits are the same on every run.
@triton.jit(do_not_specialize=["rows"])
def recurrence_sums_kernel(
    grad_z_ptr,  # (rows, n)
    hs_ptr,  # (rows, n)
    sums_ptr,  # (programs, 2, n) float32
    rows,
    n,
    ROWS: tl.constexpr,
    BR: tl.constexpr,
    BN: tl.constexpr,
):
    units = tl.program_id(0) * BN + tl.arange(0, BN)
    first = tl.program_id(1).to(tl.int64) * ROWS
    sum_c = tl.zeros((BR, BN), tl.float32)
    sum_beta = tl.zeros((BR, BN), tl.float32)
    for offset in range(0, ROWS, BR):
        row = first + offset + tl.arange(0, BR)
        inside = (row < rows)[:, None] & (units < n)[None, :]
        grad_z = tl.load(grad_z_ptr + row[:, None] * n + units[None, :], mask=inside, other=0.0).to(tl.float32)
        h = tl.load(hs_ptr + row[:, None] * n + units[None, :], mask=inside, other=0.0).to(tl.float32)
        sum_c += grad_z
        sum_beta += tl.where(h > 0, grad_z, tl.where(h < 0, -grad_z, 0.0))
    to = sums_ptr + tl.program_id(1).to(tl.int64) * 2 * n + units
    tl.store(to, tl.sum(sum_c, 0), mask=units < n)
    tl.store(to + n, tl.sum(sum_beta, 0), mask=units < n)
