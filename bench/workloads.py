"""The registry of workloads: what is measured, with its sizes. Peers and ours get the same tensors.

`flops` counts the arithmetic that the workload needs (exponential: that our scheme makes), forward and backward;
`minimal_bytes` what must move between memory and chip if nothing moves twice, in float32: every tensor once per pass.
"""

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
    def forward_flops(self) -> float:
        return 2 * self.T * self.B * self.n * (self.n + self.i)

    @property
    def flops(self) -> float:
        """Beside the forward's two products per step: grad_z M, and grad_z^T [h, x]; the input needs no gradient."""
        return 2 * self.forward_flops + 2 * self.T * self.B * self.n**2

    @property
    def forward_bytes(self) -> float:
        """x and the weights read, the states written."""
        return 4 * (self.T * self.B * (self.i + self.n) + self.n * (self.n + self.i))

    @property
    def minimal_bytes(self) -> float:
        """The backward reads the states, their gradient, x and the weights, and writes the weights' gradients."""
        return self.forward_bytes + 4 * (self.T * self.B * (self.i + 2 * self.n) + 2 * self.n * (self.n + self.i))

    @property
    def state_bytes(self) -> int:
        """Of one float32 copy of all hidden states."""
        return 4 * self.T * self.B * self.n

    def inputs(self) -> tuple[Tensor, Tensor]:
        """x (T, B, i) and an incoming gradient (T, B, n)."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.T, self.B, self.i, generator=generator)
        return x, torch.randn(self.T, self.B, self.n, generator=generator) / math.sqrt(self.T * self.B)


@dataclass(frozen=True)
class Symbols(Sequence):
    """The same over symbols, one-hot, as language models and the copying tasks read them."""

    def inputs(self) -> tuple[Tensor, Tensor]:
        x, grad = super().inputs()
        return torch.nn.functional.one_hot(x.argmax(-1), self.i).to(x.dtype), grad


def spectral_norms(S: Tensor) -> Tensor:
    """Of each skew-symmetric matrix, to a percent, (batch, 1, 1): by powers, as singular values of a large batch would
    take longer than what is measured."""
    v = torch.ones_like(S[..., :1])
    for _ in range(100):
        v = S @ v
        size = torch.linalg.vector_norm(v, dim=(-2, -1), keepdim=True)
        v = v / size
    return size


#: Of the closed forms of csrc/skew_expm/rotations.h, forward and backward, by n; a root or a division counts as one.
CLOSED_FORM_FLOPS = {1: (0, 0), 2: (48, 57), 3: (104, 171)}


@dataclass(frozen=True)
class Exponential:
    """exp(S) of a batch of skew-symmetric n x n matrices of the given spectral norm."""

    n: int
    norm: float
    batch: int = 1

    @property
    def name(self) -> str:
        return f"E({self.n}){'' if self.batch == 1 else f' x {self.batch}'} norm {self.norm:.3g}"

    @property
    def forward_flops(self) -> float:
        """4 products, 1 for a squaring, 2 for the polishing of two or more of them; the closed forms to n = 3."""
        if self.n <= 3:
            return self.batch * CLOSED_FORM_FLOPS[self.n][0]
        squarings = self._squarings
        return self.batch * 2 * self.n**3 * (4 + squarings + (2 if squarings >= 2 else 0))

    @property
    def flops(self) -> float:
        """In the backward 7 products more, 2 for a squaring."""
        if self.n <= 3:
            return self.batch * sum(CLOSED_FORM_FLOPS[self.n])
        return self.forward_flops + self.batch * 2 * self.n**3 * (7 + 2 * self._squarings)

    @property
    def _squarings(self) -> int:
        return max(0, math.ceil(math.log2(self.norm / 2.5)))

    @property
    def forward_bytes(self) -> float:
        """S read and Q written."""
        return 2 * 4 * self.batch * self.n**2

    @property
    def minimal_bytes(self) -> float:
        """grad Q read and grad S written too."""
        return 2 * self.forward_bytes

    def inputs(self, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """S (batch, n, n) and an incoming gradient of unit scale, made on the device: a large batch takes a while."""
        generator = torch.Generator(device).manual_seed(0)
        A = torch.randn(self.batch, self.n, self.n, generator=generator, device=device)
        S = A - A.mT
        norms = torch.linalg.matrix_norm(S, 2)[:, None, None] if self.batch == 1 else spectral_norms(S)
        return {"S": S * (self.norm / norms)}, {"Q": torch.randn(S.shape, generator=generator, device=device)}


@dataclass(frozen=True)
class Frame:
    """An orthogonal matrix n x k, k much smaller than n, of n k numbers, and its gradient."""

    n: int
    k: int

    @property
    def name(self) -> str:
        return f"frame {self.n} x {self.k}"

    @property
    def flops(self) -> float:
        """Five products n x k x k and half a one for a triangle; 4 of 2 k rows, 11 of 3 k rows."""
        return 2 * (5.5 * self.n * self.k**2 + 4 * (2 * self.k) ** 3 + 11 * (3 * self.k) ** 3)

    @property
    def minimal_bytes(self) -> float:
        """The parameter read and the matrix written, its gradient read and that of the parameter written."""
        return 4 * 4 * self.n * self.k

    def inputs(self, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """X (n, k) and the gradient of the matrix. The diagonal is 1: torch's Householder map has signs there, ours
        nothing."""
        generator = torch.Generator(device).manual_seed(0)
        X, grad = (torch.randn(self.n, self.k, generator=generator, device=device) for _ in range(2))
        X = X / math.sqrt(self.n)
        X.diagonal().fill_(1)
        return {"X": X}, {"weight": grad}


@dataclass(frozen=True)
class Mesh:
    """A dense random mesh of m cells of dimension d on n nodes, with a field; B = 0: the generator of one field, else
    the flow of B states, each along a field of its own. `learned` names the tensors whose gradients are taken."""

    name: str
    n: int
    m: int
    d: int
    learned: str
    B: int = 0
    order: int = 8
    dt: float = 0.5

    @property
    def flops(self) -> float:
        contractions = 2 * 2 * self.m * self.d * self.n
        if self.B == 0:
            return contractions + 2 * self.n**2 * self.m * (3 if "N" in self.learned else 2)
        terms = 3 * self.order * 2 * 4 * self.m * self.n  # forward, again in the backward, and its reverse
        return self.B * (terms + 2 * contractions)

    @property
    def minimal_bytes(self) -> float:
        """The mesh read by both passes and its gradients written if it is learned; the fields; the results."""
        mesh = self.m * self.n * (1 + self.d)
        passes = 3 if "N" in self.learned else 2
        if self.B == 0:
            return 4 * (passes * mesh + 2 * self.n**2 + 2 * self.m * self.d)
        return 4 * (passes * mesh + self.B * (4 * self.n + 3 * self.m * self.d))

    def inputs(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """b, w, N, G, v (and h), and the incoming gradients of the results."""
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        b, w, N = (torch.rand(*shape, generator=generator) + 0.5 for shape in ((self.n,), (self.m,), (self.m, self.n)))
        G = normal(self.m, self.d, self.n)
        G = (G - G.mean(-1, keepdim=True)) / math.sqrt(self.n)
        tensors = {"b": b, "w": w, "N": N / N.sum(-1, keepdim=True), "G": G}
        if self.B == 0:
            return tensors | {"v": 0.1 * normal(self.m, self.d)}, {
                "S": normal(self.n, self.n),
                "delta": normal(self.n),
            }
        flow = {"v": 0.05 * normal(self.B, self.m, self.d), "h": normal(self.B, self.n)}
        return tensors | flow, {"h": normal(self.B, self.n)}


@dataclass(frozen=True)
class InputField:
    """T steps of B samples, each along a field of its own that reads the input (size i), on a dense random mesh of m
    cells of dimension d and n nodes; one substep. `learned` names the tensors whose gradients are taken."""

    name: str
    T: int
    B: int
    n: int
    m: int
    d: int
    i: int
    learned: str = "UcvV"
    order: int = 8
    dt: float = 0.5

    @property
    def flops(self) -> float:
        """As field_flow's, and v + V x and its two adjoints, for every step and sample."""
        terms = 3 * self.order * 2 * 4 * self.m * self.n
        contractions = 2 * 2 * self.m * self.d * (self.n + self.i)
        return self.T * self.B * (terms + 2 * contractions)

    @property
    def minimal_bytes(self) -> float:
        """x read and the states written; the states, their gradient and x read by the backward; the mesh by both."""
        return 4 * (self.T * self.B * (2 * self.i + 3 * self.n) + 2 * self.m * self.n * (1 + self.d))

    @property
    def state_bytes(self) -> int:
        """Of one float32 copy of all hidden states."""
        return 4 * self.T * self.B * self.n

    def inputs(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """x, U, c, v, V, b, w, N, G, and the incoming gradient of the states."""
        tensors, _ = Mesh(self.name, self.n, self.m, self.d, "").inputs()
        generator = torch.Generator().manual_seed(1)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        layer = {"U": normal(self.n, self.i) / math.sqrt(self.i), "c": 0.1 * normal(self.n)}
        V = 0.05 * normal(self.m, self.d, self.i) / math.sqrt(self.i)
        x, grad = normal(self.T, self.B, self.i), normal(self.T, self.B, self.n) / math.sqrt(self.T * self.B)
        return tensors | layer | {"x": x, "V": V}, {"hs": grad}


@dataclass(frozen=True)
class Irregular:
    """T steps of B samples, each of a time of its own, of a layer of n units with a divergence and inputs of size i."""

    name: str
    T: int
    B: int
    n: int
    i: int
    learned: tuple[str, ...] = ("U", "c", "S", "delta", "dt")

    @property
    def flops(self) -> float:
        """Two products with the planes in the forward, and in the backward; there also four to compute the step and its
        adjoint for all steps again, and two whose sums give the generator's gradient; and those of the input."""
        return 2 * self.T * self.B * self.n * (10 * self.n + 2 * self.i)

    @property
    def minimal_bytes(self) -> float:
        """x and dt read and the states written; the states, their gradient, x and dt read by the backward."""
        return 4 * self.T * self.B * (2 * (self.i + 1) + 3 * self.n)

    def inputs(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """x, U, c, S, delta, dt, and the incoming gradient of the states."""
        generator = torch.Generator().manual_seed(1)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        S = normal(self.n, self.n) * math.pi / 2 / math.sqrt(2 * self.n)
        tensors = {
            "x": normal(self.T, self.B, self.i),
            "U": normal(self.n, self.i) / math.sqrt(self.i),
            "c": 0.1 * normal(self.n),
            "S": S - S.mT,
            "delta": 0.1 * normal(self.n),
            "dt": 2 * torch.rand(self.T, self.B, generator=generator),
        }
        return tensors, {"hs": normal(self.T, self.B, self.n) / math.sqrt(self.T * self.B)}


SEQUENCES = (
    Sequence("R1", "copying memory", T=300, B=128, n=190, i=10),
    Sequence("R2", "pixel-by-pixel digits", T=784, B=128, n=170, i=1),
    Sequence("R3", "wide", T=100, B=32, n=512, i=10),
    Sequence("R4", "one stream", T=784, B=1, n=256, i=10),
    Sequence("R5", "small work", T=100, B=16, n=190, i=10),
)
#: The denoise task's.
SYMBOLS = Symbols("R8", "symbols", T=61, B=64, n=128, i=10)
SMALL_STATE = Sequence("R7", "small state", T=200, B=64, n=64, i=10)
# Where a GPU has work; an input of 128, which cuDNN's persistent kernels want to be a multiple of.
LONG_SEQUENCES = tuple(Sequence("R6", "long", T=4096, B=64, n=n, i=128) for n in (512, 128, 256, 768, 960))
EXPONENTIALS = (
    *(Exponential(n, norm) for n in (32, 64, 128, 190, 256, 512) for norm in (1.0, math.pi, 10.0, 50.0)),
    Exponential(64, 1.0, batch=64),
)
# Many at a time; MAPPED is mapped over by torch.vmap.
SMALL_EXPONENTIALS = tuple(
    Exponential(n, math.pi, batch) for n, batch in ((3, 100000), (2, 50000), (4, 20000), (13, 4000), (16, 4000))
)
MAPPED = Exponential(5, math.pi, batch=2000)
FRAMES = (Frame(600, 50), Frame(6000, 50), Frame(20000, 20))
# The field alone is learned by default; the mesh may be.
MESHES = (
    Mesh("F1", n=256, m=512, d=8, learned="v"),
    Mesh("F1 mesh learned", n=256, m=512, d=8, learned="bwNGv"),
    Mesh("F2", n=256, m=64, d=8, learned="hv", B=128),
    Mesh("F2 mesh learned", n=256, m=64, d=8, learned="hvbwNG", B=128),
)
INPUT_FIELDS = (InputField("I1", T=200, B=32, n=64, m=64, d=2, i=8),)
IRREGULAR = (Irregular("I2", T=200, B=32, n=64, i=8),)
