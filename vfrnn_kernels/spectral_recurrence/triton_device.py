"""spectral_recurrence on a GPU: the kernels of its two chains over time; triton_kernels.py launches them.

Rows are samples. One program takes BB of them through all steps; the planes' vectors, cosine and sine (P, N) each, stay
in its registers and shared memory. A substep is a -> (a C^T, a S^T), turned, -> x C + y S ((2) of README.md).
"""

from __future__ import annotations

import triton
import triton.language as tl

from vfrnn_kernels.triton_activations import activate, grad_z_of


@triton.jit
def _cos_sin(t):
    # Of t quarter turns: t = k + r with |r| <= 1/2, without rounding; Taylor series on |x| <= pi / 4.
    k = tl.floor(t + 0.5)
    x = (t - k) * 1.5707963267948966
    square = x * x
    s = 2.7557319e-6 * square - 1.9841270e-4
    s = s * square + 8.3333333e-3
    s = s * square - 1.6666667e-1
    s = x + x * square * s
    c = -2.7557319e-7 * square + 2.4801587e-5
    c = c * square - 1.3888889e-3
    c = c * square + 4.1666667e-2
    c = c * square - 0.5
    c = 1 + square * c
    quadrant = k - 4 * tl.floor(k * 0.25)
    odd = (quadrant == 1) | (quadrant == 3)
    first = tl.where(odd, s, c)
    second = tl.where(odd, c, s)
    cosine = tl.where((quadrant == 1) | (quadrant == 2), -first, first)
    sine = tl.where(quadrant >= 2, -second, second)
    return cosine, sine


@triton.jit
def _move(g, e, cosine, sine, C, S, substeps, DIVERGES: tl.constexpr, PRECISION: tl.constexpr):
    # (e exp(tau S) e)^substeps g
    for _ in range(substeps):
        if DIVERGES:
            g = e * g
        x = tl.dot(g, tl.trans(C), input_precision=PRECISION)
        y = tl.dot(g, tl.trans(S), input_precision=PRECISION)
        g = tl.dot(cosine * x - sine * y, C, input_precision=PRECISION)
        g = tl.dot(sine * x + cosine * y, S, acc=g, input_precision=PRECISION)
        if DIVERGES:
            g = e * g
    return g


@triton.jit(do_not_specialize=["T", "B", "p", "substeps", "dt_step", "dt_row", "activation"])
def spectral_fwd_kernel(
    hs_ptr,  # (T, B, n): U x_t + c, replaced by h_t
    dt_ptr,  # strides dt_step, dt_row
    basis_ptr,  # (2, p, n)
    quarters_ptr,  # (p,): quarter turns per unit of a substep's time
    growth_ptr,  # (n,): -delta / (4 substeps); any n numbers unless DIVERGES
    h0_ptr,  # (B, n)
    beta_ptr,  # (n,), of modrelu; for the others any n numbers
    T,
    B,
    n,
    p,
    substeps,
    dt_step,
    dt_row,
    activation,
    N: tl.constexpr,
    P: tl.constexpr,
    BB: tl.constexpr,
    DIVERGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    rows = tl.program_id(0) * BB + tl.arange(0, BB)
    units = tl.arange(0, N)
    planes = tl.arange(0, P)
    inside = (rows < B)[:, None] & (units < n)[None, :]
    tile = rows[:, None] * n + units[None, :]
    vectors = (planes < p)[:, None] & (units < n)[None, :]
    C = tl.load(basis_ptr + planes[:, None] * n + units[None, :], mask=vectors, other=0.0)
    S = tl.load(basis_ptr + p * n + planes[:, None] * n + units[None, :], mask=vectors, other=0.0)
    quarters = tl.load(quarters_ptr + planes, mask=planes < p, other=0.0)[None, :]
    growth = tl.load(growth_ptr + units, mask=units < n, other=0.0)[None, :]
    beta = tl.load(beta_ptr + units, mask=units < n, other=0.0)[None, :]
    h = tl.load(h0_ptr + tile, mask=inside, other=0.0)
    for _ in range(T):
        z = tl.load(hs_ptr + tile, mask=inside, other=0.0)
        dt = tl.load(dt_ptr + rows * dt_row, mask=rows < B, other=0.0)[:, None]
        cosine, sine = _cos_sin(dt * quarters)
        h = z + _move(h, tl.exp(dt * growth), cosine, sine, C, S, substeps, DIVERGES, PRECISION)
        h = activate(h, beta, activation)
        tl.store(hs_ptr + tile, h, mask=inside)
        hs_ptr += B * n
        dt_ptr += dt_step


# (4): grad_z_t = act'(h_t) (g_t + carried), carried = the transposed step of grad_z_t; at the end grad_h0 = carried.
@triton.jit(do_not_specialize=["T", "B", "p", "substeps", "dt_step", "dt_row", "grad_step", "grad_row", "activation"])
def spectral_bwd_kernel(
    grad_ptr,  # g (T, B, n), strides grad_step, grad_row, 1
    hs_ptr,  # (T, B, n)
    grad_z_ptr,  # (T, B, n)
    dt_ptr,
    basis_ptr,
    quarters_ptr,
    growth_ptr,
    grad_h0_ptr,  # (B, n)
    T,
    B,
    n,
    p,
    substeps,
    dt_step,
    dt_row,
    grad_step,
    grad_row,
    activation,
    N: tl.constexpr,
    P: tl.constexpr,
    BB: tl.constexpr,
    DIVERGES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    rows = tl.program_id(0) * BB + tl.arange(0, BB)
    units = tl.arange(0, N)
    planes = tl.arange(0, P)
    inside = (rows < B)[:, None] & (units < n)[None, :]
    tile = rows[:, None] * n + units[None, :]
    vectors = (planes < p)[:, None] & (units < n)[None, :]
    C = tl.load(basis_ptr + planes[:, None] * n + units[None, :], mask=vectors, other=0.0)
    S = tl.load(basis_ptr + p * n + planes[:, None] * n + units[None, :], mask=vectors, other=0.0)
    quarters = tl.load(quarters_ptr + planes, mask=planes < p, other=0.0)[None, :]
    growth = tl.load(growth_ptr + units, mask=units < n, other=0.0)[None, :]
    last = (T - 1).to(tl.int64)
    grad_ptr += last * grad_step
    hs_ptr += last * B * n
    grad_z_ptr += last * B * n
    dt_ptr += last * dt_step
    carried = tl.zeros((BB, N), tl.float32)
    for _ in range(T):
        g = tl.load(grad_ptr + rows[:, None] * grad_row + units[None, :], mask=inside, other=0.0)
        h = tl.load(hs_ptr + tile, mask=inside, other=0.0)
        dt = tl.load(dt_ptr + rows * dt_row, mask=rows < B, other=0.0)[:, None]
        grad_z = grad_z_of(g + carried, h, activation)
        tl.store(grad_z_ptr + tile, grad_z, mask=inside)
        cosine, sine = _cos_sin(dt * quarters)
        carried = _move(grad_z, tl.exp(dt * growth), cosine, -sine, C, S, substeps, DIVERGES, PRECISION)
        grad_ptr -= grad_step
        hs_ptr -= B * n
        grad_z_ptr -= B * n
        dt_ptr -= dt_step
    tl.store(grad_h0_ptr + tile, carried, mask=inside)
