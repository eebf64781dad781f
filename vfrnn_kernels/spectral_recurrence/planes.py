"""The planes that a skew-symmetric matrix turns, and how fast it turns them ((1) of README.md)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Frequencies below this part of the largest are found again, in the space that the others leave: the vectors of a
#: plane are orthogonal to roundings over the part that its frequency is of the largest.
RESOLVED = 1e-3


def planes_of(S: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The planes of S (n, n), found in float64: S = sum_j omega_j (s_j c_j^T - c_j s_j^T).

    Returns:
        basis (2, p, n) of `dtype`, p = ceil(n / 2): the vectors c_j, then s_j; orthonormal, but for the last s_j of an
        odd n, which is 0. omega (p,), not negative.

    Raises:
        RuntimeError: S is not finite or not skew-symmetric.
    """
    A = _skew(S)
    n = S.shape[0]
    space = torch.eye(n, dtype=A.dtype, device=A.device)  # its columns span what is left to resolve
    cosines, sines, omegas = [], [], []
    while space.shape[1] > 1:
        rest = space.mT @ A @ space
        rest = (rest - rest.mT) / 2
        if not bool(rest.any()):
            break
        # i S is Hermitian: its eigenvalues come in pairs, and the vectors of the positive ones span the planes
        frequencies, vectors = torch.linalg.eigh(1j * rest)
        found = frequencies > RESOLVED * frequencies[-1]
        c, s = math.sqrt(2) * vectors[:, found].real, math.sqrt(2) * vectors[:, found].imag
        cosines.append(space @ c)
        sines.append(space @ s)
        omegas.append(frequencies[found])
        complement = torch.linalg.qr(torch.cat([c, s], 1), mode="complete").Q[:, 2 * c.shape[1] :]
        space = space @ complement
    still = space.shape[1]
    cosines.append(space[:, 0::2])
    sines.append(torch.nn.functional.pad(space[:, 1::2], (0, still % 2)))
    omegas.append(A.new_zeros((still + 1) // 2))
    basis = torch.cat([*cosines, *sines], 1).mT.contiguous()  # (2 p, n)
    basis = 1.5 * basis - 0.5 * basis @ basis.mT @ basis  # orthogonal to the last digit
    return basis.to(dtype).unflatten(0, (2, -1)), torch.cat(omegas).to(dtype)


def _skew(S: Tensor) -> Tensor:
    """(S - S^T) / 2 in float64, of an S that is skew-symmetric up to the square root of its precision."""
    A = S.detach().to(torch.float64)
    if not bool(torch.isfinite(A).all()):
        raise RuntimeError("S must be finite, but it holds NaN or infinity")
    defect = float((A + A.mT).abs().max())
    if defect > math.sqrt(torch.finfo(S.dtype).eps) * float(A.abs().max()):
        raise RuntimeError(f"S must be skew-symmetric, S = -S^T, but max |S + S^T| = {defect:.3g}")
    return (A - A.mT) / 2
