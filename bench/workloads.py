"""The registry of workloads: what is measured, with its sizes. Peers and ours get the same tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sequence:
    """A recurrence over T steps of B samples, input size i, hidden size n."""

    name: str
    what: str
    T: int
    B: int
    n: int
    i: int

    @property
    def flops(self) -> float:
        """Of forward and backward: three products per step (h M, delta M, delta^T h)."""
        return 3 * 2 * self.T * self.B * self.n * (self.n + self.i)

    def inputs(self) -> tuple[Tensor, Tensor]:
        """x (T, B, i) and an incoming gradient (T, B, n)."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.T, self.B, self.i, generator=generator)
        return x, torch.randn(self.T, self.B, self.n, generator=generator) / math.sqrt(self.T * self.B)


@dataclass(frozen=True)
class Exponential:
    """exp(S) of a batch of skew-symmetric n x n matrices of the given spectral norm."""

    n: int
    norm: float
    batch: int = 1

    @property
    def name(self) -> str:
        return f"E({self.n}){'' if self.batch == 1 else f' x {self.batch}'} norm {self.norm:.3g}"

    def inputs(self) -> tuple[Tensor, Tensor]:
        """S (batch, n, n) and an incoming gradient of unit scale."""
        generator = torch.Generator().manual_seed(0)
        A = torch.randn(self.batch, self.n, self.n, generator=generator)
        S = A - A.mT
        return S * (self.norm / torch.linalg.matrix_norm(S, 2)[:, None, None]), torch.randn(
            S.shape, generator=generator
        )


SEQUENCES = (
    Sequence("R1", "copying memory", T=300, B=128, n=190, i=10),
    Sequence("R2", "pixel-by-pixel digits", T=784, B=128, n=170, i=1),
    Sequence("R3", "wide", T=100, B=32, n=512, i=10),
    Sequence("R4", "one stream", T=784, B=1, n=256, i=10),
    Sequence("R5", "small work", T=100, B=16, n=190, i=10),
)
EXPONENTIALS = (
    *(Exponential(n, norm) for n in (32, 64, 128, 190, 256, 512) for norm in (1.0, math.pi, 10.0, 50.0)),
    Exponential(64, 1.0, batch=64),
)
