"""param_groups: the generators' parameters in an optimizer group of their own."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import ParametrizationList

from vfrnn.layers import Recurrent
from vfrnn.mesh import LatentMesh
from vfrnn.parametrizations import Orthogonal
from vfrnn_kernels.checks import check_module


def param_groups(model: nn.Module, lr: float, generator_lr: float, **options: Any) -> list[dict[str, Any]]:
    """Groups for an optimizer: what generates the step matrices learns at `generator_lr`, all else at `lr`.

    Generators are the fields and divergence scales of `VFRNN`, `OrthogonalRNN`, `InputFieldRNN` and their cells,
    learned tensors of a `LatentMesh`, and the parameters behind the `orthogonal` of `vfrnn.parametrizations`, of
    torch.nn.utils.parametrizations and of geotorch. What a field gets from the input, `field_input_weight`, is an input
    weight like `weight_ih` and learns at `lr`.

    Args:
        model: any module; a parameter that occurs twice is listed once.
        lr, generator_lr: the two rates.
        options: further options of both groups, such as `weight_decay`; one that starts with `generator_` replaces that
            of the generators' group: `generator_weight_decay=0.0`.

    Returns:
        The group of the others, and then that of the generators; a group without parameters is left out.

    Example:
        >>> groups = param_groups(torch.nn.Sequential(vfrnn.OrthogonalRNN(3, 4), torch.nn.Linear(4, 2)), 1e-3, 1e-4)
        >>> [(group["lr"], len(group["params"])) for group in groups]
        [(0.001, 5), (0.0001, 1)]
    """
    check_module("model", model)
    known = _generators(model)
    parameters = list(model.parameters())
    common = {name: value for name, value in options.items() if not name.startswith("generator_")}
    special = {name.removeprefix("generator_"): value for name, value in options.items() if name not in common}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p not in known], "lr": lr, **common},
        {"params": [p for p in parameters if p in known], "lr": generator_lr, **common, **special},
    ]
    return [group for group in groups if group["params"]]


def _generators(model: nn.Module) -> set[nn.Parameter]:
    found: set[nn.Parameter] = set()
    for module in model.modules():
        if isinstance(module, LatentMesh):
            found.update(module.parameters())
        elif isinstance(module, Recurrent):
            names = [name + suffix for name in module.rule.generators for suffix in module.suffixes]
            found.update(
                getattr(module, name) for name in names if isinstance(getattr(module, name, None), nn.Parameter)
            )
        elif isinstance(module, ParametrizationList) and any(map(_is_orthogonal, module)):
            found.update(module.parameters(recurse=False))
    return found


def _is_orthogonal(matrix: nn.Module) -> bool:
    if isinstance(matrix, (Orthogonal, parametrizations._Orthogonal)):
        return True
    geotorch = sys.modules.get("geotorch")  # who has a module of it has imported it
    return geotorch is not None and isinstance(matrix, geotorch.SO)
