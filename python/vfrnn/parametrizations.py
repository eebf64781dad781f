"""Orthogonal weights of any module: torch.nn.utils.parametrizations.orthogonal on this package's exponential.

The weight is `Q = base exp(A) E`: A is the skew-symmetric matrix whose strict lower triangle is that of the parameter,
E the first k columns of the identity, base an orthogonal matrix. Moving the base along (`rebase`) is dynamic
trivialization (Lezcano-Casado 2019, arXiv 1909.09501). Where n > k nothing of size n x n is made: `thin_skew_expm`
gives exp(A) E, and of the base its first k columns are kept (frames.py).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from vfrnn.layers import Recurrent
from vfrnn.layouts import OURS, read_layouts
from vfrnn.passes import remember_passes
from vfrnn.steps import FieldStep
from vfrnn.trivializations import MAPS, Orthogonal
from vfrnn_kernels.checks import check_bool, check_module
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

    A `state_dict` does not say by which map it was made. One that torch made for a matrix that is not square is refused
    unless `orthogonal_map` says it; geotorch's are those of "matrix_exp" and, with `triv="cayley"`, of "cayley".

    Args:
        module: holds the tensor.
        name: of a parameter or buffer (..., n, k), n and k at least 1.
        orthogonal_map: None or "matrix_exp". (PyTorch's default for matrices that are not square is "householder".)
            "cayley" and "householder" compute those maps by torch.linalg, with torch's parameter and (n, n) base.
        use_trivialization: False has no base, B = I: then X starts as the given matrix, and the weight cannot be
            assigned. ("householder" can.)
        backend: of `skew_expm` and `thin_skew_expm`; None is the first that serves.

    Returns:
        The module.

    Raises:
        TypeError: the module is none, or another argument has the wrong type.
        ValueError: there is no such tensor, it is no matrix, it is complex, or the map is another one.
        RuntimeError: the backend is not known.

    Source: Lezcano-Casado, Martinez-Rubio 2019 (arXiv 1901.08428).

    Example:
        >>> layer = orthogonal(torch.nn.Linear(20, 40))
        >>> torch.allclose(layer.weight.T @ layer.weight, torch.eye(20), atol=1e-5)
        True
    """
    check_module("module", module)
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, got {type(name).__name__}")
    check_bool("use_trivialization", use_trivialization)
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if weight.ndim < 2:
        raise ValueError(f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions.")
    if orthogonal_map is not None and not (isinstance(orthogonal_map, str) and orthogonal_map in MAPS):
        maps = ", ".join(f'"{known}"' for known in MAPS)
        raise ValueError(f"orthogonal_map has to be one of None, {maps}. Got: {orthogonal_map}")
    if weight.is_complex():
        raise ValueError(
            f"{name} must be real, got {weight.dtype}; for unitary matrices use "
            "torch.nn.utils.parametrizations.orthogonal"
        )
    if backend is not None:
        get_backend(backend)
    kind = MAPS[orthogonal_map or "matrix_exp"]
    matrix = kind(weight.shape, use_trivialization=use_trivialization, backend=backend)
    matrix.map_was_named = orthogonal_map is not None
    parametrize.register_parametrization(module, name, matrix, unsafe=True)
    matrices: Any = module.parametrizations
    matrices[name]._version = OURS[orthogonal_map or "matrix_exp"]
    matrices[name].register_load_state_dict_pre_hook(read_layouts)
    # Dynamo traces no torch.nn.RNN but for strict export; other modules read their weight once.
    remember_passes(module, traced=isinstance(module, nn.RNNBase))
    return module


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
    check_module("module", module)
    found = [(matrices, matrix) for matrices, matrix in _orthogonals(module) if hasattr(matrix, "base")]
    if not found:
        raise ValueError("module must have an orthogonal parametrization with a base, got none")
    if any(matrix is not matrices[0] for matrices, matrix in found):
        raise ValueError("rebase needs the orthogonal parametrization to be the first of its tensor, got a later one")
    for matrices, matrix in found:
        matrix.rebase(matrices.original)
    return len(found)


def once_per_forward(module: nn.Module) -> nn.Module:
    """Has every `orthogonal` weight and every step matrix inside `module` computed once per forward pass of `module`,
    and returns it.

    For a model that calls a parametrized cell, a `VFRNNCell` or an `OrthogonalRNNCell` in a loop; for the parametrized
    module itself `orthogonal` has done it. Compiled and exported programs hold them once as well. As with
    `parametrize.cached()`, no part of such a model may be checkpointed: it depends on what ran before it. For the same
    reason torch.compile refuses a branch of torch.cond that is the first to read such a weight, and does not see a
    parameter change in place within a pass; strict export warns of the attribute in which it remembers.

    Raises:
        ValueError: there is no such weight.

    Example:
        >>> cell = orthogonal(torch.nn.RNNCell(3, 4), "weight_hh")
        >>> model = once_per_forward(torch.nn.Sequential(cell))
    """
    check_module("module", module)
    if not _orthogonals(module) and not any(_has_step_matrix(inner) for inner in module.modules()):
        raise ValueError("module must have an orthogonal parametrization or a step matrix, got none")
    remember_passes(module, traced=True)
    return module


def _has_step_matrix(module: nn.Module) -> bool:
    return isinstance(module, Recurrent) and isinstance(module.rule, FieldStep)


def _orthogonals(module: nn.Module) -> list[tuple[parametrize.ParametrizationList, Orthogonal]]:
    """Every `Orthogonal` in `module`, with the list of parametrizations of its tensor."""
    lists = [child for child in module.modules() if isinstance(child, parametrize.ParametrizationList)]
    return [(child, matrix) for child in lists for matrix in child if isinstance(matrix, Orthogonal)]
