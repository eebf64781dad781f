"""Inputs, oracles and error measures shared by the tests. Oracles are float64 and independent of the package."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.oracles import takes_beta
from vfrnn_kernels.activations import ACTIVATIONS as ACTIVATIONS

#: Sizes that are not multiples of anything: vectors, tiles and panels all end in a remainder.
SIZES = (1, 2, 3, 17, 190, 257)
DTYPES = (torch.float32, torch.float64)

#: Derivatives against differences: along random directions in `make test`, entry by entry too in `make test-all`.
fast_and_thorough = pytest.mark.parametrize(
    "fast", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["directions", "entries"]
)


def quick(values: Iterable[Any], *chosen: Any) -> list[Any]:
    """Parameters of a test, of which `make test` runs the chosen ones and `make test-all` the others too."""
    values = list(values)
    assert set(chosen) <= set(values), f"{set(chosen) - set(values)} are not among the parameters"
    return [value if value in chosen else _slow(value) for value in values]


def _slow(value: Any) -> Any:
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)


def beta_for(activation: str, n: int, scale: float = 0.3, dtype: torch.dtype = torch.float64) -> Tensor | None:
    """A random beta (n,) where the activation takes one, else None."""
    return (scale * torch.randn(n, dtype=torch.float64)).to(dtype) if takes_beta(activation) else None


def skew_matrix(n: int, norm: float, spectrum: str = "gaussian", dtype: torch.dtype = torch.float64) -> Tensor:
    """A random skew-symmetric matrix of that spectral norm; "flat" has all rotation angles equal to it."""
    A = torch.randn(n, n, dtype=torch.float64)
    if n == 1:
        return torch.zeros(1, 1, dtype=dtype)
    if spectrum == "flat":
        angles = torch.zeros(n - 1, dtype=torch.float64)
        angles[::2] = norm
        U = torch.linalg.qr(A).Q
        S = U @ (torch.diag(angles, 1) - torch.diag(angles, -1)) @ U.mT
    else:
        S = A - A.mT
        S = S * (norm / torch.linalg.matrix_norm(S, 2))
    S = S.to(dtype)
    return (S - S.mT) / 2


def exact_exponential(S: Tensor) -> Tensor:
    """exp(S) in float64 from the eigenvalues of the Hermitian matrix i S."""
    angles, U = torch.linalg.eigh(1j * S.to(torch.complex128))
    return ((U * torch.exp(-1j * angles)[..., None, :]) @ U.mH).real


def exact_exponential_gradient(S: Tensor, grad_Q: Tensor) -> Tensor:
    """The skew-symmetric gradient of <grad_Q, exp(S)> in float64, by divided differences (Daleckii and Krein)."""
    angles, U = torch.linalg.eigh(1j * S.to(torch.complex128))
    mean = (angles[..., :, None] + angles[..., None, :]) / 2
    half_gap = (angles[..., :, None] - angles[..., None, :]) / 2
    quotients = torch.exp(-1j * mean) * torch.sinc(half_gap / math.pi)
    inner = quotients.conj() * (U.mH @ grad_Q.to(torch.complex128) @ U)
    gradient = (U @ inner @ U.mH).real
    return (gradient - gradient.mT) / 2


def random_mesh(n: int, m: int, d: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """b, w, N, G of a dense mesh with varying weights; rows of N sum to 1 and G 1 = 0."""
    N = torch.rand(m, n, dtype=torch.float64) + 0.1
    G = torch.randn(m, d, n, dtype=torch.float64)
    b, w = torch.rand(n, dtype=torch.float64) + 0.5, torch.rand(m, dtype=torch.float64) + 0.5
    return tuple(t.to(dtype) for t in (b, w, N / N.sum(-1, keepdim=True), G - G.mean(-1, keepdim=True)))


def generator(b: Tensor, w: Tensor, N: Tensor, G: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """S (K, n, n) and delta (K, n) of fields v (K, m, d), in dense matrices."""
    flux = torch.einsum("c,kcd,cdj->kcj", w, v, G)
    H = N.mT @ flux
    root = b.sqrt()
    return (H - H.mT) / 2 / (root[:, None] * root), -flux.sum(1) / b


def dense_flow(h, v, b, w, N, G, dt, divergence_scale, *, volume_preserving=False, substeps=1, exponential=None):
    """field_flow by matrices: h' (B, n) from h along v, one field or one per sample."""
    S, delta = generator(b, w, N, G, v if v.dim() == 3 else v.unsqueeze(0))
    delta = divergence_scale * delta
    if volume_preserving:
        delta = delta - delta.mean(-1, keepdim=True)
    tau = dt / substeps
    e = torch.exp(-tau * delta / 4)
    Q = (exponential or exact_exponential)(tau * S)
    for _ in range(substeps):
        h = e * torch.einsum("kij,kj->ki", Q.expand(h.shape[0], -1, -1), e * h)
    return h


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Frobenius norm of the difference over that of the expected value (over 1 where that is 0)."""
    actual, expected = actual.detach(), expected.detach().double()
    return float((actual.double() - expected).norm() / (expected.norm() or 1))


def orthogonality_error(Q: Tensor) -> float:
    """max |Q^T Q - I|, evaluated in float64."""
    Q = Q.double()
    return float((Q.mT @ Q - torch.eye(Q.shape[-1], dtype=torch.float64)).abs().max())


def non_contiguous(t: Tensor) -> Tensor:
    """The same values in a layout with other strides, as a leaf that keeps requires_grad."""
    if t.dim() == 0:
        return t
    wide = t.detach().new_empty(*t.shape[:-1], 2 * t.shape[-1])
    wide[..., ::2] = t.detach()
    return wide[..., ::2].requires_grad_(t.requires_grad)


def heeds_ctrl_c() -> None:
    """In a process that is about to start: what a shell starts in the background ignores SIGINT, and hands that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
