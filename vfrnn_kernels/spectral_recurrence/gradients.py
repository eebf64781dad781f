"""What the gradients of the pre-activations give every argument, over all steps and samples ((4) to (7) of README.md).

The same for all backends: products of matrices and sums, on blocks of steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: Rows (steps times samples) of a block: what is computed again for them stays small.
BLOCK_ROWS = 8192
#: Differences of frequencies, times the longest step, up to which the series replaces the divided difference.
NEAR = 0.5
#: Terms of the series, after which its rest is below the rounding for all that is NEAR.
TERMS = {torch.float32: 3, torch.float64: 6}


def gradients(
    grad_z: Tensor,
    grad_h0: Tensor,
    *,
    x: Tensor,
    U: Tensor,
    c: Tensor | None,
    S: Tensor,
    delta: Tensor | None,
    dt: Tensor,
    h0: Tensor,
    beta: Tensor | None,
    hs: Tensor,
    basis: Tensor,
    omega: Tensor,
    substeps: int,
    wanted: frozenset[str],
) -> dict[str, Tensor]:
    """The gradients that are wanted, by name, from those of the pre-activations, grad_z (T, B, n), and of h0."""
    rows, found = grad_z.flatten(0, 1), {}
    if "x" in wanted:
        found["x"] = grad_z @ U
    if "U" in wanted:
        found["U"] = rows.mT @ x.flatten(0, 1)
    if "c" in wanted:
        found["c"] = rows.sum(0)
    if wanted & {"S", "delta", "dt"}:
        if rows.numel():
            found |= _of_the_flow(grad_z, delta, dt, h0, hs, basis, omega, substeps)
        else:  # whatever the planes are: without a step no state moved along them
            flow = {"S": S, "delta": delta, "dt": dt}
            found |= {name: torch.zeros_like(tensor) for name, tensor in flow.items() if tensor is not None}
    if "h0" in wanted:
        found["h0"] = grad_h0
    if "beta" in wanted:
        found["beta"] = (hs.sign() * grad_z).sum((0, 1))
    return found


def _of_the_flow(
    grad_z: Tensor,
    delta: Tensor | None,
    dt: Tensor,
    h0: Tensor,
    hs: Tensor,
    basis: Tensor,
    omega: Tensor,
    substeps: int,
) -> dict[str, Tensor]:
    T, B, n = hs.shape
    grad_dt = torch.empty_like(dt, memory_format=torch.contiguous_format)
    flow = _Flow(basis, omega, delta, substeps)
    largest = dt.abs().amax() / substeps if dt.numel() else dt.new_zeros(())
    steps = max(1, BLOCK_ROWS // max(B, 1))
    for first in range(0, T, steps):
        last = min(first + steps, T)
        before = hs[first - 1 : last - 1] if first else torch.cat([h0.unsqueeze(0), hs[: last - 1]])
        part = flow.add(before.reshape(-1, n), grad_z[first:last].reshape(-1, n), dt[first:last].reshape(-1, 1))
        grad_dt[first:last] = part.unflatten(0, (last - first, B))
    return {"S": flow.grad_S(largest), "delta": flow.grad_delta, "dt": grad_dt}


@dataclass(frozen=True)
class _Planes:
    """Coordinates of rows in the planes, (rows, 2 p): along the cosine vectors, then along the sine vectors."""

    p: int
    cosine: Tensor
    sine: Tensor

    def turned(self, a: Tensor, direction: int) -> Tensor:
        x, y = a[:, : self.p], a[:, self.p :]
        sine = direction * self.sine
        return torch.cat([self.cosine * x - sine * y, sine * x + self.cosine * y], 1)


class _Flow:
    """The sums over all rows, added block by block."""

    def __init__(self, basis: Tensor, omega: Tensor, delta: Tensor | None, substeps: int) -> None:
        self.vectors, self.omega, self.p = basis.flatten(0, 1), omega, omega.shape[0]
        self.delta, self.substeps = delta, substeps
        size = 2 * self.p
        self.differences = omega.new_zeros(size, size)
        self.moments = omega.new_zeros(TERMS[omega.dtype], size, size)
        self.grad_delta = omega.new_zeros(basis.shape[2])

    def add(self, h: Tensor, grad: Tensor, dt: Tensor) -> Tensor:
        """Rows h (rows, n) before the flow, the gradients after it, their times (rows, 1) -> the times' gradient."""
        tau = dt / self.substeps
        angle = tau * self.omega
        planes = _Planes(self.p, angle.cos(), angle.sin())
        halfway = _Planes(self.p, (angle / 2).cos(), (angle / 2).sin())
        e = None if self.delta is None else torch.exp(tau * self.delta / -4)
        scaled, before, after = [], [], []
        for _ in range(self.substeps):
            scaled.append(h if e is None else e * h)
            before.append(scaled[-1] @ self.vectors.mT)
            after.append(planes.turned(before[-1], 1))
            if e is not None:
                h = e * (after[-1] @ self.vectors)
        grad_tau = torch.zeros_like(dt)
        for k in reversed(range(self.substeps)):
            grad_moved = grad if e is None else e * grad
            grad_after = grad_moved @ self.vectors.mT
            grad_before = planes.turned(grad_after, -1)
            self._add_products(tau, halfway, before[k], after[k], grad_before, grad_after)
            # d after / d tau turns by a right angle more, at the planes' rates
            x, y = after[k][:, : self.p], after[k][:, self.p :]
            rate = grad_after[:, self.p :] * x - grad_after[:, : self.p] * y
            grad_tau += (rate @ self.omega).unsqueeze(1)
            if e is not None:
                assert self.delta is not None
                grad_scaled = grad_before @ self.vectors
                moved = after[k] @ self.vectors
                log_e = grad_moved * moved + grad_scaled * scaled[k]  # e times the gradient of e
                self.grad_delta -= (tau * log_e).sum(0) / 4
                grad_tau -= (log_e @ self.delta).unsqueeze(1) / 4
                grad = e * grad_scaled
        return grad_tau.squeeze(1) / self.substeps

    def _add_products(
        self, tau: Tensor, halfway: _Planes, before: Tensor, after: Tensor, grad_before: Tensor, grad_after: Tensor
    ) -> None:
        self.differences.addmm_(grad_after.mT, after).addmm_(grad_before.mT, before, alpha=-1)
        left, right = tau * halfway.turned(grad_before, 1), halfway.turned(before, 1)
        for moment in self.moments:
            moment.addmm_(left.mT, right)
            left = tau * tau * left

    def grad_S(self, largest: Tensor) -> Tensor:
        """The gradient of S, skew-symmetric, after all rows; `largest` is the longest |tau|."""
        p, omega = self.p, self.omega
        integrals = []
        for sign in (-1, 1):
            gap = omega.unsqueeze(1) + sign * omega
            far = _complex(self.differences, p, sign) / torch.where(gap == 0, 1, 1j * gap)
            series = torch.zeros_like(far)
            for k, moment in enumerate(self.moments):
                weight = (-1) ** k / math.factorial(2 * k + 1)
                series += weight * (gap / 2) ** (2 * k) * _complex(moment, p, sign)
            integrals.append(torch.where(gap.abs() * largest <= NEAR, series, far))
        less, more = integrals
        real, imaginary = (less.real + more.real, more.real - less.real), (less.imag + more.imag, more.imag - less.imag)
        W = torch.cat([torch.cat([real[0], imaginary[1]], 1), torch.cat([imaginary[0], -real[1]], 1)]) / 2
        gradient = self.vectors.mT @ W @ self.vectors
        return (gradient - gradient.mT) / 2


def _complex(Z: Tensor, p: int, sign: int) -> Tensor:
    """sum_rows l_j conj(r_k) (sign -1) or l_j r_k (sign 1) from Z = sum_rows of the products of l's and r's parts."""
    cc, cs, sc, ss = Z[:p, :p], Z[:p, p:], Z[p:, :p], Z[p:, p:]
    return torch.complex(cc - sign * ss, sc + sign * cs)
