"""Orthogonal weights of any module: torch.nn.utils.parametrizations.orthogonal on this package's exponential.

The weight is `Q = base exp(A) E`: A is the skew-symmetric matrix whose strict lower triangle is that of the parameter,
E the first k columns of the identity, base an orthogonal matrix. Moving the base along (`rebase`) is dynamic
trivialization (Lezcano-Casado 2019, arXiv 1909.09501). Where n > k nothing of size n x n is made: `thin_skew_expm`
gives exp(A) E, and of the base its first k columns are kept (frames.py).
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vfrnn.frames import orthonormalized, polar_factor, product, rotate, rotate_back
from vfrnn.rounding import wider
from vfrnn_kernels import skew_expm, thin_skew_expm
from vfrnn_kernels.dispatch import get_backend


def orthogonal(
    module: nn.Module,
    name: str = "weight",
    orthogonal_map: str | None = None,
    *,
    use_trivialization: bool = True,
    backend: str | None = None,
) -> nn.Module:
    r"""Makes a real matrix, or batch of matrices, of a module orthogonal: Q^T Q = I (tall), Q Q^T = I (wide).

    .. math:: Q = B \exp(A) \begin{pmatrix} I_k \\ 0 \end{pmatrix}, \quad A = L - L^T, \quad L = \mathrm{tril}(X, -1)

    for a tall X (n, k); a wide Q is the transpose of a tall one. What torch.nn.utils.parametrizations.orthogonal does
    with `orthogonal_map="matrix_exp"`, with the same parameter `parametrizations.<name>.original` and buffer
    `parametrizations.<name>.0.base`: the weight starts as the given one if that is orthogonal, else as the Q of its QR
    decomposition; assigning `module.<name> = value` does the same. Besides:

    - The weight is computed once per forward pass of the module, however often that reads it (torch.nn.RNN: four
      times). `once_per_forward` does the same for a model that calls a cell in a loop.
    - It is computed in float32 at least: 16-bit weights are rounded at the end, autocast changes nothing.
    - `rebase` moves the base to the current weight.
    - Memory and time of a matrix that is not square are those of products with n k numbers: its base is (n, k), with a
      second buffer `polar` (k, k), and its other columns follow from the two. A `state_dict` with a square base, as
      torch makes it, is converted when it is loaded: the weight is the same.

    Args:
        module: holds the tensor.
        name: of a parameter or buffer (..., n, k), n and k at least 1.
        orthogonal_map: None or "matrix_exp". (PyTorch's default for matrices that are not square is "householder".)
        use_trivialization: False has no base, B = I: then X starts as the given matrix, and the weight cannot be
            assigned.
        backend: of `skew_expm` and `thin_skew_expm`; None is the first that serves.

    Returns:
        The module.

    Raises:
        ValueError: there is no such tensor, it is no matrix, it is complex, or the map is another one.
        RuntimeError: the backend is not known.

    Source: Lezcano-Casado, Martinez-Rubio 2019 (arXiv 1901.08428).

    Example:
        >>> layer = orthogonal(torch.nn.Linear(20, 40))
        >>> torch.allclose(layer.weight.T @ layer.weight, torch.eye(20), atol=1e-5)
        True
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if weight.ndim < 2:
        raise ValueError(f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions.")
    if orthogonal_map not in (None, "matrix_exp"):
        raise ValueError(
            f'orthogonal_map has to be one of None, "matrix_exp". Got: {orthogonal_map}; for "cayley" and '
            '"householder" use torch.nn.utils.parametrizations.orthogonal'
        )
    if weight.is_complex():
        raise ValueError(
            f"{name} must be real, got {weight.dtype}; for unitary matrices use "
            "torch.nn.utils.parametrizations.orthogonal"
        )
    if backend is not None:
        get_backend(backend)
    matrix = Orthogonal(weight.shape, use_trivialization=use_trivialization, backend=backend)
    parametrize.register_parametrization(module, name, matrix, unsafe=True)
    matrices: Any = module.parametrizations
    matrices[name].register_load_state_dict_pre_hook(_convert_square_bases)
    return once_per_forward(module)


def rebase(module: nn.Module) -> int:
    """Moves the base of every `orthogonal` matrix in `module` to its current value and zeroes its generator, in place.

    The weights stay what they are up to rounding, which does not add up: the new base is made orthogonal to rounding.
    Parameters stay the same objects, so that optimizers keep them. Called every K steps of the optimizer this is
    dynamic trivialization. Moments that an optimizer keeps are not changed; they belong to the old base.

    Returns:
        How many parametrizations were moved.

    Raises:
        ValueError: there is none with a base, or one is applied to the result of another parametrization.

    Source: Lezcano-Casado 2019 (arXiv 1909.09501).

    Example:
        >>> layer = orthogonal(torch.nn.Linear(3, 3))
        >>> rebase(layer), layer.parametrizations.weight.original.abs().sum().item()
        (1, 0.0)
    """
    found = [(matrices, matrix) for matrices, matrix in _orthogonals(module) if hasattr(matrix, "base")]
    if not found:
        raise ValueError("module must have an orthogonal parametrization with a base, got none")
    if any(matrix is not matrices[0] for matrices, matrix in found):
        raise ValueError("rebase needs the orthogonal parametrization to be the first of its tensor, got a later one")
    for matrices, matrix in found:
        matrix.rebase(matrices.original)
    return len(found)


def once_per_forward(module: nn.Module) -> nn.Module:
    """Has every `orthogonal` weight inside `module` computed once per forward pass of `module`, and returns it.

    For a model that calls a parametrized cell in a loop; for the parametrized module itself `orthogonal` has done it.
    As with `parametrize.cached()`, no part of such a model may be checkpointed: it depends on what ran before it.

    Raises:
        ValueError: there is no such weight.

    Example:
        >>> cell = orthogonal(torch.nn.RNNCell(3, 4), "weight_hh")
        >>> model = once_per_forward(torch.nn.Sequential(cell))
    """
    if not _orthogonals(module):
        raise ValueError("module must have an orthogonal parametrization, got none")
    if _enter_pass not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(_enter_pass)
        module.register_forward_hook(_leave_pass, always_call=True)
    return module


class Orthogonal(nn.Module):
    """The parametrization of `orthogonal`: X (..., n, k) -> Q (..., n, k).

    Attributes:
        base: (..., n, k) for n >= k, else (..., k, n): orthonormal columns; only with `use_trivialization`.
        polar: (..., min(n, k), min(n, k)), orthogonal, completes a base that is not square.
    """

    base: Tensor
    polar: Tensor

    def __init__(self, shape: torch.Size, *, use_trivialization: bool = True, backend: str | None = None) -> None:
        super().__init__()
        self.shape, self.backend = shape, backend
        if use_trivialization:
            self.register_buffer("base", None)
            if self.is_thin:
                self.register_buffer("polar", None)

    @property
    def is_thin(self) -> bool:
        """Whether the matrix is not square."""
        return self.shape[-2] != self.shape[-1]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        base = state["_buffers"].get("base")
        if base is not None and base.shape[-1] != min(self.shape[-2:]):
            raise RuntimeError(
                f"this module was pickled by an earlier version, with a base of shape {tuple(base.shape)} where the "
                f"matrix has shape {tuple(self.shape)}; load its state_dict instead, which is converted"
            )

    def forward(self, X: Tensor) -> Tensor:
        # A compiler finds equal computations itself.
        known = None if torch.compiler.is_compiling() else _passes.known(self)
        if known is None:
            return self._matrix(X)
        # What the result depends on: the parameter as it is now, and whether there is a graph to record.
        version = None if X.is_inference() else X._version
        key = (id(X), version, torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        if key not in known:
            known[key] = self._matrix(X), X  # X is kept, so that no other tensor can get its id
        return known[key][0]

    def _matrix(self, X: Tensor) -> Tensor:
        tall = _tall(X)
        Q = self._rotated(tall).to(X.dtype)
        return Q if tall is X else Q.mT

    def _rotated(self, tall: Tensor) -> Tensor:
        """base exp(A) E (..., n, k) of the generator whose strict lower triangle is that of `tall`, 16 bits in 32."""
        n, k = tall.shape[-2:]
        square, lower = tall.to(_wide(tall.dtype)).split([k, n - k], -2)
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
        self.base = _orthonormal(_tall(Q))
        if self.is_thin:
            self.polar = polar_factor(self.base)
        return torch.zeros_like(Q)

    @torch.no_grad()
    def rebase(self, X: Tensor) -> None:
        """Moves the base to its product with the rotation of the parameter X, and zeroes X."""
        # Without the step back to orthonormal columns the rounding of the products would add up.
        self.base.copy_(orthonormalized(self._rotated(_tall(X))))
        if self.is_thin:
            self.polar.copy_(polar_factor(self.base))
        X.zero_()

    def extra_repr(self) -> str:
        base = "" if hasattr(self, "base") else ", use_trivialization=False"
        backend = "" if self.backend is None else f", backend={self.backend}"
        return f"{tuple(self.shape)}{base}{backend}"


class _Passes(threading.local):
    """The forward passes under way in this thread: of each parametrization by its id, the modules whose passes these
    are, outermost first, and what was computed in them."""

    def __init__(self) -> None:
        self.open: dict[int, tuple[list[int], dict[Any, Any]]] = {}

    def enter(self, module: nn.Module, matrix: Orthogonal) -> None:
        modules, known = self.open.get(id(matrix), ([], {}))
        if id(module) in modules:  # its pass was interrupted: no hook runs after a KeyboardInterrupt
            modules, known = modules[: modules.index(id(module))], {}
        self.open[id(matrix)] = [*modules, id(module)], known

    def leave(self, module: nn.Module, matrix: Orthogonal) -> None:
        modules, known = self.open.pop(id(matrix), ([], {}))
        outer = modules[: modules.index(id(module))] if id(module) in modules else modules
        if outer:
            self.open[id(matrix)] = outer, known

    def known(self, matrix: Orthogonal) -> dict[Any, Any] | None:
        """What the passes under way have computed; None where there is none."""
        return self.open[id(matrix)][1] if id(matrix) in self.open else None


_passes = _Passes()


def _enter_pass(module: nn.Module, args: Any) -> None:
    if not torch.compiler.is_compiling():
        for _, matrix in _orthogonals(module):
            _passes.enter(module, matrix)


def _leave_pass(module: nn.Module, args: Any, output: Any) -> None:
    if not torch.compiler.is_compiling():
        for _, matrix in _orthogonals(module):
            _passes.leave(module, matrix)


#: The hooks of `once_per_forward`. A module keeps them when its parametrizations are removed; they then do nothing.
PASS_HOOKS = (_enter_pass, _leave_pass)


def _orthogonals(module: nn.Module) -> list[tuple[parametrize.ParametrizationList, Orthogonal]]:
    """Every `Orthogonal` in `module`, with the list of parametrizations of its tensor."""
    lists = [child for child in module.modules() if isinstance(child, parametrize.ParametrizationList)]
    return [(child, matrix) for child in lists for matrix in child if isinstance(matrix, Orthogonal)]


def _tall(X: Tensor) -> Tensor:
    return X.mT if X.shape[-2] < X.shape[-1] else X


def _wide(dtype: torch.dtype) -> torch.dtype:
    return wider(dtype) or dtype


def _orthonormal(tall: Tensor) -> Tensor:
    """`tall` (..., n, k) itself if its columns are orthonormal, else the Q of its QR decomposition with a positive
    diagonal of R."""
    n, k = tall.shape[-2:]
    eps = torch.finfo(tall.dtype).eps
    # As PyTorch; in 16 bits that would accept everything. Rounding unit columns changes their products by eps at most.
    tolerance = 10 * n * eps if tall.dtype == _wide(tall.dtype) else 2 * eps
    wide = tall.to(_wide(tall.dtype))
    if torch.allclose(wide.mT @ wide, torch.eye(k, dtype=wide.dtype, device=wide.device), atol=tolerance):
        return tall.clone(memory_format=torch.contiguous_format)
    Q, R = torch.linalg.qr(wide)
    return (Q * R.diagonal(dim1=-2, dim2=-1).sgn().unsqueeze(-2)).to(tall.dtype)


def _convert_square_bases(
    matrices: nn.Module, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool,
    missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
) -> None:  # fmt: skip
    """Replaces a square base (n, n) of a matrix that is not square by its first k columns, and turns the parameter
    with the others: they complete the frame in another way than `polar` does."""
    for number, matrix in enumerate(matrices.children()):
        key, original = f"{prefix}{number}.base", f"{prefix}original"
        base = state_dict.get(key)
        if not isinstance(matrix, Orthogonal) or not matrix.is_thin or base is None:
            continue
        n, k = max(matrix.shape[-2:]), min(matrix.shape[-2:])
        if base.shape != (*matrix.shape[:-2], n, n):
            continue
        X = state_dict.get(original)
        if number > 0 or X is None or X.shape != matrix.shape:
            error_msgs.append(
                f"{key} has shape {tuple(base.shape)}, of an earlier version or of torch: it can be converted only "
                f"together with its parameter {original}, of shape {tuple(matrix.shape)}"
            )
            continue
        wide, tall = base.to(_wide(base.dtype)), _tall(X)
        F = wide[..., :k].contiguous()
        U = polar_factor(F)
        lower = rotate_back(F, U, product(wide[..., k:], tall[..., k:, :].to(wide.dtype)))
        converted = torch.cat([tall[..., :k, :], lower.to(tall.dtype)], -2)
        state_dict[original] = converted if tall is X else converted.mT.contiguous()
        state_dict[key], state_dict[f"{prefix}{number}.polar"] = F.to(base.dtype), U.to(base.dtype)
