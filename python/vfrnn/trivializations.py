"""The parametrizations behind `vfrnn.parametrizations.orthogonal`: Q = base R(X), a trivialization of the orthogonal
matrices or frames, with R the exponential, Cayley's map or a product of Householder reflections.

`Orthogonal` has the exponential, and of a matrix that is not square keeps nothing of size n x n. `Cayley` and
`Householder` compute what torch's `orthogonal` does for `orthogonal_map="cayley"` and "householder", with the same
parameter and base, so that a `state_dict` goes either way.

Source: Lezcano-Casado 2019 (arXiv 1909.09501).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vfrnn.frames import orthonormalized, polar_factor, product, rotate
from vfrnn.passes import Remembering, remembered
from vfrnn.rounding import wider
from vfrnn_kernels import skew_expm, thin_skew_expm


class Orthogonal(Remembering):
    """The exponential: X (..., n, k) -> Q (..., n, k).

    Attributes:
        map_was_named: whether the caller named the map, and so says by which one a checkpoint of torch was made.
        base: (..., n, k) for n >= k, else (..., k, n): orthonormal columns; only with `use_trivialization`.
        polar: (..., min(n, k), min(n, k)), orthogonal, completes a base that is not square.
    """

    base: Tensor
    polar: Tensor
    map_was_named = False

    def __init__(self, shape: torch.Size, *, use_trivialization: bool = True, backend: str | None = None) -> None:
        super().__init__()
        self.shape, self.backend = shape, backend
        if use_trivialization:
            self.register_buffer("base", None)
            if self.is_thin:
                self.register_buffer("polar", None)

    @property
    def is_thin(self) -> bool:
        """Whether it is not square and its base is a frame."""
        return self.shape[-2] != self.shape[-1]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        base = state["_buffers"].get("base")
        if self.is_thin and base is not None and base.shape[-1] != min(self.shape[-2:]):
            raise RuntimeError(
                f"this module was pickled by an earlier version, with a base of shape {tuple(base.shape)} where the "
                f"matrix has shape {tuple(self.shape)}; load its state_dict instead, which is converted"
            )

    def forward(self, X: Tensor) -> Tensor:
        return remembered(self, (), lambda: (X,), lambda: self._matrix(X))

    def _matrix(self, X: Tensor) -> Tensor:
        tall = tall_of(X)
        Q = self._rotated(tall).to(X.dtype)
        return Q if tall is X else Q.mT

    def _rotated(self, tall: Tensor) -> Tensor:
        """base exp(A) E (..., n, k) of the generator whose strict lower triangle is that of `tall`, 16 bits in 32."""
        n, k = tall.shape[-2:]
        square, lower = tall.to(computed_in(tall.dtype)).split([k, n - k], -2)
        square = square.tril(-1)
        square = square - square.mT
        if not self.is_thin:
            Q = skew_expm(square, backend=self.backend)
            return product(self.base.to(Q.dtype), Q) if hasattr(self, "base") else Q
        Q = thin_skew_expm(torch.cat([square, lower], -2), backend=self.backend)
        return rotate(self.base.to(Q.dtype), self.polar.to(Q.dtype), Q) if hasattr(self, "base") else Q

    @torch.no_grad()
    def right_inverse(self, Q: Tensor) -> Tensor:
        """Zero, the parameter of the new base: Q if that is orthogonal, else the Q of its QR decomposition."""
        if Q.shape != self.shape:
            raise ValueError(
                f"Expected a matrix or batch of matrices of shape {self.shape}. Got a tensor of shape {Q.shape}."
            )
        if not hasattr(self, "base"):
            raise NotImplementedError(
                "It is not possible to assign to the matrix exponential or the Cayley parametrizations when "
                "use_trivialization=False."
            )
        self.base = _orthonormal(tall_of(Q))
        if self.is_thin:
            self.polar = polar_factor(self.base)
        return torch.zeros_like(Q)

    @torch.no_grad()
    def rebase(self, X: Tensor) -> None:
        """Moves the base to its product with the rotation of the parameter X, and zeroes X."""
        # Without the step back to orthonormal columns the rounding of the products would add up.
        self.base.copy_(orthonormalized(self._rotated(tall_of(X))))
        if self.is_thin:
            self.polar.copy_(polar_factor(self.base))
        X.zero_()

    def extra_repr(self) -> str:
        base = "" if hasattr(self, "base") else ", use_trivialization=False"
        backend = "" if self.backend is None else f", backend={self.backend}"
        return f"{tuple(self.shape)}{base}{backend}"


class _InTorchsLayout(Orthogonal):
    """What torch computes, with its base (..., n, n) and its parameter, which starts at -E."""

    is_thin = False

    def _retracted(self, tall: Tensor) -> Tensor:
        """R(X), a frame (..., n, k), of the tall parameter."""
        raise NotImplementedError

    def _completed(self, tall: Tensor) -> Tensor:
        """An orthogonal matrix (..., n, n) whose first k columns are R(X)."""
        raise NotImplementedError

    def _rotated(self, tall: Tensor) -> Tensor:
        R = self._retracted(tall.to(computed_in(tall.dtype)))
        return product(self.base.to(R.dtype), R) if hasattr(self, "base") else R

    @torch.no_grad()
    def right_inverse(self, Q: Tensor) -> Tensor:
        zero = super().right_inverse(Q)
        F = self.base
        n, k = F.shape[-2:]
        if n > k:  # F, completed by columns that are orthogonal to it
            wide = F.to(computed_in(F.dtype))
            self.base = torch.cat([F, torch.linalg.qr(wide, mode="complete").Q[..., k:].to(F.dtype)], -1)
        zero.diagonal(dim1=-2, dim2=-1).fill_(-1)
        return zero

    @torch.no_grad()
    def rebase(self, X: Tensor) -> None:
        tall = tall_of(X)
        R = self._completed(tall.to(computed_in(tall.dtype)))
        self.base.copy_(orthonormalized(product(self.base.to(R.dtype), R)))
        X.zero_().diagonal(dim1=-2, dim2=-1).fill_(-1)


class Cayley(_InTorchsLayout):
    """(I + A / 2) (I - A / 2)^-1 of the skew-symmetric A with the strict lower triangle of X in its first k columns.

    Without a base nothing can be assigned, as with the exponential.
    """

    def _retracted(self, tall: Tensor) -> Tensor:
        return self._completed(tall)[..., : tall.shape[-1]]

    def _completed(self, tall: Tensor) -> Tensor:
        n, k = tall.shape[-2:]
        lower = torch.nn.functional.pad(tall.tril(-1), (0, n - k))
        half, eye = (lower - lower.mT) / 2, torch.eye(n, dtype=tall.dtype, device=tall.device)
        return torch.linalg.solve(eye - half, eye + half)


class Householder(_InTorchsLayout):
    """H_1 ... H_k E D: reflections along the columns of the strict lower triangle of X with a diagonal of 1, and D, the
    signs of the diagonal of X, which are not learned."""

    def _retracted(self, tall: Tensor) -> Tensor:
        k = tall.shape[-1]
        lower = tall.tril(-1)
        return torch.linalg.householder_product(lower, _scales(lower)) * _signs(tall, k).unsqueeze(-2)

    def _completed(self, tall: Tensor) -> Tensor:
        n, k = tall.shape[-2:]
        lower = tall.tril(-1)
        Q = torch.linalg.householder_product(torch.nn.functional.pad(lower, (0, n - k)), _scales(lower))
        return Q * _signs(tall, n).unsqueeze(-2)

    @torch.no_grad()
    def right_inverse(self, Q: Tensor) -> Tensor:
        """Without a base: the reflections of the QR decomposition of Q."""
        if hasattr(self, "base") or Q.shape != self.shape:
            return super().right_inverse(Q)
        tall = tall_of(Q)
        packed, scales = torch.geqrf(tall.to(computed_in(Q.dtype)))
        diagonal = packed.diagonal(dim1=-2, dim2=-1)
        # D is the signs of R, so that the result is Q; LAPACK's scale is 0 where it has no reflection, which here is
        # one along e_j.
        diagonal.copy_(torch.where(diagonal < 0, -1.0, 1.0) * torch.where(scales == 0, -1.0, 1.0))
        packed = packed.to(Q.dtype)
        return packed if tall is Q else packed.mT.contiguous()


def _scales(lower: Tensor) -> Tensor:
    return 2 / (1 + lower.square().sum(-2))


def _signs(tall: Tensor, count: int) -> Tensor:
    """(..., count): those of the diagonal, then 1."""
    signs = tall.detach().diagonal(dim1=-2, dim2=-1).sign()
    return torch.nn.functional.pad(signs, (0, count - signs.shape[-1]), value=1.0)


#: By the name of the map in `orthogonal`.
MAPS = {"matrix_exp": Orthogonal, "cayley": Cayley, "householder": Householder}


def tall_of(X: Tensor) -> Tensor:
    return X.mT if X.shape[-2] < X.shape[-1] else X


def computed_in(dtype: torch.dtype) -> torch.dtype:
    return wider(dtype) or dtype


def _orthonormal(tall: Tensor) -> Tensor:
    """`tall` (..., n, k) itself if its columns are orthonormal, else the Q of its QR decomposition with a positive
    diagonal of R."""
    n, k = tall.shape[-2:]
    eps = torch.finfo(tall.dtype).eps
    # As PyTorch; in 16 bits that would accept everything. Rounding unit columns changes their products by eps at most.
    tolerance = 10 * n * eps if tall.dtype == computed_in(tall.dtype) else 2 * eps
    wide = tall.to(computed_in(tall.dtype))
    if torch.allclose(product(wide.mT, wide), torch.eye(k, dtype=wide.dtype, device=wide.device), atol=tolerance):
        return tall.clone(memory_format=torch.contiguous_format)
    Q, R = torch.linalg.qr(wide)
    return (Q * R.diagonal(dim1=-2, dim2=-1).sgn().unsqueeze(-2)).to(tall.dtype)
