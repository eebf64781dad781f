"""Checkpoints of orthogonal weights that others wrote: read where what they say is known, refused where it is not.

torch, geotorch and expRNN keep the same names and shapes for different maps, or the same map in other places.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from vfrnn.frames import polar_factor, product, rotate_back
from vfrnn.trivializations import MAPS, Cayley, Householder, Orthogonal, computed_in, tall_of

StateDict = dict[str, Any]
#: Version of a list of parametrizations in the metadata of a `state_dict`: it is ours, of this map.
OURS = {"matrix_exp": 2, "cayley": 3, "householder": 4}
TORCHS = 1  # and geotorch's


def read_layouts(
    matrices: nn.Module, state_dict: StateDict, prefix: str, local_metadata: Any, strict: bool,
    missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
) -> None:  # fmt: skip
    """Before the state of a list of parametrizations is loaded: converts square bases of frames, and reports what
    would be read as another matrix."""
    for number, matrix in enumerate(matrices.children()):
        if not isinstance(matrix, Orthogonal):
            continue
        reason = _another_layout(matrix, state_dict, prefix, number, local_metadata.get("version"))
        reason = reason or _converted(matrix, state_dict, prefix, number)
        if reason is not None:
            error_msgs.append(reason)


def _another_layout(
    matrix: Orthogonal, state_dict: StateDict, prefix: str, number: int, version: int | None
) -> str | None:
    """Why the parameter does not mean here what it meant where it was written, None if it does."""
    original, base = f"{prefix}original", state_dict.get(f"{prefix}{number}.base")
    factors = [key for key in state_dict if key.startswith(f"{prefix}{number}.") and key.endswith(".base")]
    if base is None and any(key != f"{prefix}{number}.base" for key in factors):
        return (
            f"{factors[0]} belongs to a product of several matrices, as geotorch keeps those that are only almost "
            "orthogonal: assign the weight that it computes, as module.weight = weight"
        )
    written = next((name for name, number in OURS.items() if number == version), None)
    if number == 0 and written is not None and MAPS[written] is not type(matrix):
        return f'{original} was made by orthogonal_map="{written}": name it, as in orthogonal(..., "{written}")'
    X = state_dict.get(original)
    if number > 0 or not isinstance(X, Tensor) or X.shape != matrix.shape or X.is_meta or isinstance(X, FakeTensor):
        return None
    tall = tall_of(X)
    diagonal = tall.diagonal(dim1=-2, dim2=-1)
    if isinstance(matrix, Householder):
        if bool(diagonal.all()):
            return None
        return f'{original} must have signs on its diagonal for orthogonal_map="householder", got 0, as of other maps'
    if written is not None:
        return None
    if base is not None and bool(tall.triu(1).any()) and not bool(tall.tril(-1).any()):
        return (
            f"{original} has its numbers above the diagonal, as expRNN keeps them, and geotorch with lower=False; here "
            "they are below it: load -original.mT in its place"
        )
    if isinstance(matrix, Cayley) or matrix.map_was_named:
        return None
    # torch leaves -1 on the diagonal beside a base, and Householder's signs without one; ours is 0 beside a base. With
    # torch's metadata and no base a frame may be of any map: its default is another one than ours.
    square = base is not None and base.shape[-2] == base.shape[-1]
    signs = base is None and bool((diagonal.abs() == 1).all())
    if signs or (matrix.is_thin and (bool(diagonal.any()) if square else base is None and version == TORCHS)):
        return (
            f"{original}, of shape {tuple(X.shape)}, is from torch.nn.utils.parametrizations.orthogonal, and does not "
            'say by which map: "householder", torch\'s default for a matrix that is not square, "cayley" or '
            '"matrix_exp". Name it, as in vfrnn.parametrizations.orthogonal(module, orthogonal_map="householder")'
        )
    return None


def _converted(matrix: Orthogonal, state_dict: StateDict, prefix: str, number: int) -> str | None:
    """Replaces a square base (n, n) of a matrix that is not square by its first k columns, and turns the parameter
    with the others: they complete the frame in another way than `polar` does. What keeps it from it, or None."""
    key, original = f"{prefix}{number}.base", f"{prefix}original"
    base = state_dict.get(key)
    if not matrix.is_thin or base is None:
        return None
    n, k = max(matrix.shape[-2:]), min(matrix.shape[-2:])
    if base.shape != (*matrix.shape[:-2], n, n):
        return None
    X = state_dict.get(original)
    if number > 0 or X is None or X.shape != matrix.shape:
        return (
            f"{key} has shape {tuple(base.shape)}, of an earlier version or of torch: it can be converted only "
            f"together with its parameter {original}, of shape {tuple(matrix.shape)}"
        )
    wide, tall = base.to(computed_in(base.dtype)), tall_of(X)
    F = wide[..., :k].contiguous()
    U = polar_factor(F)
    lower = rotate_back(F, U, product(wide[..., k:], tall[..., k:, :].to(wide.dtype)))
    converted = torch.cat([tall[..., :k, :], lower.to(tall.dtype)], -2)
    state_dict[original] = converted if tall is X else converted.mT.contiguous()
    state_dict[key], state_dict[f"{prefix}{number}.polar"] = F.to(base.dtype), U.to(base.dtype)
    return None
