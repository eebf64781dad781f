"""LatentMesh: the nodes and cells on which hidden states are functions and generators are vector fields."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vfrnn_kernels.checks import (
    check_dense,
    check_dtype,
    check_entries,
    check_mesh,
    check_positive_int,
    check_shape,
    check_tensor,
)

TENSORS = ("b", "w", "N", "G")


class LatentMesh(nn.Module):
    r"""n latent nodes and m cells with a d-dimensional tangent space each, and the calculus on them.

    Functions have values f (n,) on the nodes, fields have values v (m, d) on the cells. With B = diag(b), W = diag(w):

    .. math:: \langle f, g \rangle = \sum_i b_i f_i g_i, \quad \langle u, v \rangle = \sum_c w_c u_c \cdot v_c, \quad
        \operatorname{div} v = -B^{-1} G^T W v, \quad D_v f = B^{-1} N^T W ([v] G f)

    Args:
        b: (n,), positive: inner product of functions.
        w: (m,), positive: inner product of fields.
        N: (m, n), rows sum to 1: average from nodes to cells. None, with G None, is the complete mesh: one cell for
            every pair i < j in the order of ``torch.triu_indices``, m = n (n - 1) / 2, d = 1.
        G: (m, d, n): gradient, `G 1 = 0`.
        learn: which of "b", "w", "N", "G" are learned. What they must satisfy then holds by construction: b and w are
            exponentials of the parameters `log_b`, `log_w`; N and G are the parameters `free_N`, `free_G` minus what
            violates their row sums. N and G of the complete mesh cannot be learned; those of its `dense()` form can.

    Attributes:
        n, m, d: the sizes.
        b, w, N, G: the tensors; buffers, or computed from the parameters where learned. N and G are None on the
            complete mesh.
        learn: the learned names.

    Raises:
        TypeError, ValueError: the tensors do not fit each other, violate the conditions above (values are checked on
            the CPU), or `learn` is wrong.

    Example:
        >>> LatentMesh.complete(190)
        LatentMesh.complete(190)
    """

    _version = 1
    standard = False  # made by `complete`: its values are known
    made: str | None = None  # the call that made it, without `learn`

    def __init__(
        self, b: Tensor, w: Tensor, N: Tensor | None = None, G: Tensor | None = None, *, learn: Sequence[str] = ()
    ) -> None:
        super().__init__()
        check_mesh(b, w, N, G)
        _check_values(b, w, N, G)
        self._hold(b, w, N, G, learn)

    def _hold(self, b: Tensor, w: Tensor, N: Tensor | None, G: Tensor | None, learn: Sequence[str]) -> None:
        self.learn = _check_learn(learn, complete=N is None)
        self.n, self.m, self.d = b.shape[0], w.shape[0], 1 if G is None else G.shape[1]
        if self.d < 1:
            raise ValueError(f"G must have shape (m, d, n) with d at least 1, got {tuple(G.shape)}")  # type: ignore
        for name, value in zip(TENSORS, (b, w, N, G), strict=True):
            if name in self.learn and value is not None:
                stored = value.detach().log() if name in ("b", "w") else value.detach().clone()
                self.register_parameter(_parameter_name(name), nn.Parameter(stored))
            else:
                self.register_buffer(name, None if value is None else value.detach().clone())

    @classmethod
    def complete(
        cls,
        n: int,
        *,
        learn: Sequence[str] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> LatentMesh:
        """One cell for every pair of n nodes, b = 1 and w = 2: v is the strict upper triangle of S.

        Example:
            >>> LatentMesh.complete(3, learn=("b",))
            LatentMesh.complete(3, learn=('b',))
        """
        check_positive_int("n", n, most=2**32)  # as many cells as can be counted
        check_dtype("dtype", dtype)
        kwargs: dict[str, Any] = {"device": device, "dtype": dtype}
        mesh = cls(torch.ones(n, **kwargs), torch.full((n * (n - 1) // 2,), 2.0, **kwargs), learn=learn)
        mesh.standard = True
        mesh.made = f"complete({n}"
        return mesh

    @classmethod
    def random(
        cls,
        n: int,
        cells: int,
        dim: int = 1,
        *,
        generator: torch.Generator | None = None,
        learn: Sequence[str] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> LatentMesh:
        """Random averages and gradients, b = w = 1, scaled so that S is about as large as v.

        Rows of N are uniform on the simplex, entries of G Gaussian. `cells * dim >= n (n - 1) / 2` with enough cells
        reaches every skew-symmetric matrix; fewer give a cheaper, structured family.

        Args:
            n: number of nodes.
            cells: number of cells, m.
            dim: dimension of the arrows, d.
            generator: of the random numbers; PyTorch's own if not given.
            learn, device, dtype: as in the other constructors.

        Example:
            >>> LatentMesh.random(64, cells=32, dim=2)
            LatentMesh.random(64, cells=32, dim=2)
        """
        for name, value in (("n", n), ("cells", cells), ("dim", dim)):
            check_positive_int(name, value)
        check_dtype("dtype", dtype)
        N = torch.empty(cells, n, device=device, dtype=dtype)
        generator = None if N.is_meta else generator  # where nothing is drawn
        kwargs: dict[str, Any] = {"device": device, "dtype": dtype, "generator": generator}
        N.exponential_(generator=generator)
        G = torch.randn(cells, dim, n, **kwargs)
        # S_ij sums cells * dim terms N_ci G_cj v / 2 twice, of standard deviation about 1 / (sqrt(2) n) each.
        for _ in range(2):  # the second time what the first one rounded: rows of almost equal entries sum to 0 too
            G = G - G.mean(-1, keepdim=True)
        G = G * (n * (2 / (cells * dim)) ** 0.5)
        mesh = cls(N.new_ones(n), N.new_ones(cells), N / N.sum(-1, keepdim=True), G, learn=learn)
        mesh.made = f"random({n}, cells={cells}, dim={dim}"
        return mesh

    @classmethod
    def from_edges(
        cls,
        n: int,
        edges: Sequence[tuple[int, int]] | Tensor,
        w: Tensor | None = None,
        *,
        learn: Sequence[str] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> LatentMesh:
        """A graph: the cell of edge (i, j) averages f at its midpoint and has the gradient f_j - f_i; b = 1.

        Args:
            n: number of nodes.
            edges: m pairs of different nodes, or an integer tensor (m, 2).
            w: (m,), positive; 2 if not given, as on the complete mesh: then v is the entry (i, j) of S.

        Example:
            >>> ring = LatentMesh.from_edges(4, [(0, 1), (1, 2), (2, 3), (3, 0)])
            >>> vfrnn.gradient(ring, torch.tensor([1.0, 2.0, 4.0, 8.0])).flatten().tolist()
            [1.0, 2.0, 4.0, -7.0]
        """
        check_positive_int("n", n)
        check_dtype("dtype", dtype)
        pairs = _check_edges(n, edges)
        m = pairs.shape[0]
        cell = torch.arange(m, device="cpu")
        N, G = (torch.zeros(*shape, device="cpu", dtype=dtype) for shape in ((m, n), (m, 1, n)))
        N[cell, pairs[:, 0]] = N[cell, pairs[:, 1]] = 0.5
        G[cell, 0, pairs[:, 0]], G[cell, 0, pairs[:, 1]] = -1.0, 1.0
        if w is None:
            w = torch.full((m,), 2.0, device="cpu", dtype=N.dtype)
        check_tensor("w", w)
        check_shape("w", w, "(m,)", (m,), m=m)
        device = device or torch.get_default_device()
        return cls(N.new_ones(n).to(device), w.to(device), N.to(device), G.to(device), learn=learn)

    @classmethod
    def grid(
        cls,
        *shape: int,
        learn: Sequence[str] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> LatentMesh:
        """A regular grid with `shape` nodes along its axes and spacing 1; a cell for every square (cube, ...).

        N averages a cell's 2^d vertices, G the 2^(d-1) differences along each axis; w = 1, and b = N^T w is the share
        of the cells that belongs to a node. Nodes and cells are numbered in row-major order.

        Args:
            shape: numbers of nodes along the axes, each at least 2.
            learn, device, dtype: as in the other constructors.

        Example:
            >>> LatentMesh.grid(4, 3)
            LatentMesh.grid(4, 3)
        """
        if not shape:
            raise ValueError("shape must name at least one axis, got none")
        for axis, size in enumerate(shape):
            check_positive_int(f"shape[{axis}]", size)
            if size < 2:
                raise ValueError(f"shape[{axis}] must be at least 2, got {size}")
        check_entries("shape", *shape)
        check_dtype("dtype", dtype)
        d = len(shape)
        nodes = torch.arange(torch.Size(shape).numel()).reshape(shape)
        m = nodes[tuple(slice(size - 1) for size in shape)].numel()
        N, G = torch.zeros(m, nodes.numel(), dtype=dtype), torch.zeros(m, d, nodes.numel(), dtype=dtype)
        cell = torch.arange(m)
        for corner in itertools.product((0, 1), repeat=d):
            vertex = nodes[tuple(slice(k, size - 1 + k) for k, size in zip(corner, shape, strict=True))].flatten()
            N[cell, vertex] = 0.5**d
            for axis, k in enumerate(corner):
                G[cell, axis, vertex] = (2 * k - 1) * 0.5 ** (d - 1)
        mesh = cls(N.sum(0).to(device), N.new_ones(m).to(device), N.to(device), G.to(device), learn=learn)
        mesh.made = f"grid({', '.join(map(str, shape))}"
        return mesh

    def dense(self, *, learn: Sequence[str] = ()) -> LatentMesh:
        """The same mesh with N and G as tensors, also where they are implicit; its N and G can be learned.

        Example:
            >>> LatentMesh.complete(3).dense(learn=("G",))
            LatentMesh(n=3, m=3, d=1, learn=('G',))
        """
        mesh = LatentMesh.__new__(LatentMesh)
        nn.Module.__init__(mesh)
        # Not checked anew: after `double()` the row sums are as exact as float32 has them.
        mesh._hold(*self.dense_tensors(), learn)
        return mesh

    def tensors(self, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """b, w, N, G as the ops of `vfrnn_kernels` take them: N and G are None on the complete mesh.

        With `dtype` they are computed in it, from parameters and buffers in another.

        Example:
            >>> b, w, N, G = LatentMesh.complete(3).tensors()
            >>> tuple(b.shape), tuple(w.shape), N, G
            ((3,), (3,), None, None)
        """
        check_dtype("dtype", dtype)
        return self._tensor("b", dtype), self._tensor("w", dtype), self._tensor("N", dtype), self._tensor("G", dtype)

    def dense_tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """b, w, N, G, formed also on the complete mesh.

        Example:
            >>> [tuple(tensor.shape) for tensor in LatentMesh.complete(3).dense_tensors()]
            [(3,), (3,), (3, 3), (3, 1, 3)]
        """
        b, w, N, G = self.tensors()
        if N is None or G is None:
            i, j = torch.triu_indices(self.n, self.n, 1, device=b.device)
            at_i, at_j = (torch.nn.functional.one_hot(k, self.n).to(b.dtype) for k in (i, j))
            N, G = (at_i + at_j) / 2, (at_j - at_i).unsqueeze(1)
        return b, w, N, G

    @property
    def b(self) -> Tensor:
        return self._tensor("b")

    @property
    def w(self) -> Tensor:
        return self._tensor("w")

    @property
    def N(self) -> Tensor | None:
        return self._tensor("N")

    @property
    def G(self) -> Tensor | None:
        return self._tensor("G")

    def _tensor(self, name: str, dtype: torch.dtype | None = None) -> Any:
        if name not in self.learn and name not in self._buffers:
            raise AttributeError(name)  # asked by register_buffer: the name is still free
        stored = self._stored(name)
        if dtype is not None and stored is not None:
            stored = stored.to(dtype)
        if name not in self.learn:
            return stored
        if name == "N":
            return stored + (1 - stored.sum(-1, keepdim=True)) / self.n
        return stored - stored.mean(-1, keepdim=True) if name == "G" else stored.exp()

    def _stored(self, name: str) -> Any:
        return getattr(self, _parameter_name(name)) if name in self.learn else self._buffers[name]

    def reset_parameters(self) -> None:
        """On a mesh made by `complete`, b = 1 and w = 2 again (after `to_empty`, say); others keep their values."""
        if self.standard:
            with torch.no_grad():
                for name, value in (("b", 1.0), ("w", 2.0)):
                    self._stored(name).fill_(math.log(value) if name in self.learn else value)

    def __repr__(self) -> str:
        """The call that makes such a mesh, to be pasted (a random one draws anew); the sizes of one made of tensors."""
        learn = f", learn={self.learn}" if self.learn else ""
        if self.made is None:
            return f"{self._get_name()}(n={self.n}, m={self.m}, d={self.d}{learn})"
        return f"{self._get_name()}.{self.made}{learn})"

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *args: Any) -> None:
        check_state_version(self, local_metadata)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


def check_latent_mesh(mesh: object) -> None:
    """
    Raises:
        TypeError: it is no mesh.
    """
    if not isinstance(mesh, LatentMesh):
        raise TypeError(f"mesh must be a LatentMesh, got {type(mesh).__name__}")


def check_state_version(module: nn.Module, metadata: dict[str, Any]) -> None:
    """The state to be loaded was not written by a later version of this package.

    Raises:
        RuntimeError: it was.
    """
    found, known = metadata.get("version", module._version), module._version
    if found > known:
        raise RuntimeError(
            f"state_dict of {type(module).__name__} must have version {known} or older, got {found}: "
            "it was written by a newer vfrnn-kernels"
        )


def _parameter_name(name: str) -> str:
    return f"log_{name}" if name in ("b", "w") else f"free_{name}"


def _check_learn(learn: Sequence[str], *, complete: bool) -> tuple[str, ...]:
    if isinstance(learn, str) or not isinstance(learn, Sequence) or not all(isinstance(name, str) for name in learn):
        raise TypeError(f"learn must be a sequence of names, such as ('b', 'w'), got {learn!r}")
    for name in learn:
        if name not in TENSORS:
            raise ValueError(f"learn must name some of 'b', 'w', 'N', 'G', got {name!r}")
        if complete and name in ("N", "G"):
            raise ValueError(
                f"learn must not name {name!r} on the complete mesh, whose N and G are implicit; "
                f"use dense(learn=...) of that mesh"
            )
    return tuple(name for name in TENSORS if name in learn)


def _check_values(b: Tensor, w: Tensor, N: Tensor | None, G: Tensor | None) -> None:
    if b.device.type != "cpu":
        return
    for name, value in (("b", b), ("w", w)):
        least = torch.finfo(torch.promote_types(value.dtype, torch.float32)).tiny  # 16 bits are computed in 32
        wrong = value[~((value >= least) & value.isfinite())]
        if wrong.numel():
            raise ValueError(f"{name} must be positive and finite, and no subnormal number, got {wrong[0].item()}")
    for name, rows, total in (("N", N, 1.0), ("G", G, 0.0)):
        if rows is None or rows.numel() == 0:
            continue
        # Sums of n rounded terms: n eps times their size bounds the error, whoever summed them.
        exact = rows.detach().double()
        allowed = rows.shape[-1] * torch.finfo(rows.dtype).eps * (exact.abs().sum(-1) + total)
        sums = exact.sum(-1)
        wrong = sums[~((sums - total).abs() <= allowed)]
        if wrong.numel():
            raise ValueError(f"the rows of {name} must sum to {total:g}, got a sum of {wrong[0].item()}")


def _check_edges(n: int, edges: Sequence[tuple[int, int]] | Tensor) -> Tensor:
    try:
        pairs = torch.as_tensor(edges, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"edges must be pairs of ints, got {type(edges).__name__}: {error}") from error
    check_dense("edges", pairs)
    if pairs.numel() == 0:
        pairs = pairs.reshape(0, 2).long()
    if pairs.is_floating_point() or pairs.is_complex() or pairs.dtype == torch.bool:
        raise TypeError(f"edges must be pairs of ints, got {pairs.dtype}")
    if pairs.dim() != 2 or pairs.shape[1] != 2:
        raise ValueError(f"edges must have shape (m, 2), got {tuple(pairs.shape)}")
    outside = pairs[(pairs < 0) | (pairs >= n)]
    if outside.numel():
        raise ValueError(f"edges must name nodes from 0 to n - 1 = {n - 1}, got {outside[0].item()}")
    loops = pairs[pairs[:, 0] == pairs[:, 1]]
    if loops.numel():
        raise ValueError(f"edges must join two different nodes, got {tuple(loops[0].tolist())}")
    return pairs.long()
