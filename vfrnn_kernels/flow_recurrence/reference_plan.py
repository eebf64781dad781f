"""The substeps of flow_recurrence, planned from an upper bound on |dt| ||S(v + V x)|| over all steps and samples.

S is linear in the field and there are few fields to begin with, v and the i columns of V, but many steps; so their
matrices are formed once, for a bound that is within some ten percent where field_flow's, which forms none, loses a
factor of 10 and more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vfrnn_kernels.field_flow.reference_plan import check_plannable, substeps_within


def planned_substeps(
    x: Tensor, v: Tensor, V: Tensor, b: Tensor, w: Tensor, N: Tensor, G: Tensor, dt: Tensor, order: int
) -> int:
    """Substeps that certainly suffice for the fields v + V x_t, v (m, d), V (m, d, i), x (T, B, i).

    Raises:
        ValueError: the tensors are not on the CPU, or are being traced (their values would be needed).
        RuntimeError: the bound is not finite, or so large that more than 10 000 substeps are needed.
    """
    check_plannable(v)
    x, v, V, b, w, N, G = (t.detach() for t in (x, v, V, b, w, N, G))
    largest = float(x.norm(dim=-1).max()) if x.numel() else 0.0
    bound = generators_bound(v.unsqueeze(0), b, w, N, G) + largest * generators_bound(V.movedim(-1, 0), b, w, N, G)
    return substeps_within(abs(float(dt)) * bound, order, v.dtype)


def generators_bound(fields: Tensor, b: Tensor, w: Tensor, N: Tensor, G: Tensor) -> float:
    """An upper bound on ||S(sum_i x_i v_i)||_2 over the unit vectors x, for the fields v_i (i, m, d): with
    P = sum_i S_i S_i^T it is at most ||P||_2^1/2 <= ||P^4||_F^1/8."""
    root = b.rsqrt()
    averages, gradients = (N * root * w[:, None]).mT, G * root
    P = b.new_zeros(b.shape[0], b.shape[0])
    for v in fields:
        H = averages @ torch.einsum("cd,cdj->cj", v, gradients)
        S = (H - H.mT) / 2
        P = P + S @ S.mT
    size = P.norm()  # so that no power overflows
    if float(size) == 0:
        return 0.0
    P = P / size
    P = P @ P
    return float(size.sqrt()) * float((P @ P).norm()) ** 0.125
