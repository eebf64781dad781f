"""The way out: our layers as torch.nn.RNN and RNNCell, with step matrices and orthogonal weights computed once and
folded into plain parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vfrnn.cells import OrthogonalRNNCell, RNNCell, VFRNNCell
from vfrnn.layers import Recurrent
from vfrnn.passes import PASS_HOOKS, forget_passes
from vfrnn.rnn import RNN, VFRNN, OrthogonalRNN
from vfrnn.steps import FieldStep, InputFieldStep
from vfrnn.trivializations import Orthogonal

NETWORKS, CELLS = (RNN, OrthogonalRNN, VFRNN), (RNNCell, OrthogonalRNNCell, VFRNNCell)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_ours(module: nn.Module) -> bool:
    """Whether `as_torch` has something to do: a layer of ours, or a module with an orthogonal weight of ours."""
    return isinstance(module, Recurrent) or bool(_folded_names(module))


def why_not_as_torch(module: nn.Module) -> str | None:
    """Why torch has no module with the same outputs, None if it has."""
    if not isinstance(module, Recurrent):
        return None
    kind = parametrize.type_before_parametrizations(module)
    if kind not in (*NETWORKS, *CELLS):
        if isinstance(module.rule, InputFieldStep):
            return "its field reads the input, so that every step has a matrix of its own"
        return f"it is no layer of this package but a {kind.__name__}, which may compute something else"
    if module.nonlinearity not in ("tanh", "relu"):
        return f"torch.nn.{'RNN' if kind in NETWORKS else 'RNNCell'} has no nonlinearity {module.nonlinearity!r}"
    own = {name for names in module.weight_names for name in names}
    further = [name for name in _parameter_names(module) if name not in own]
    if further:
        return f"it has parameters that torch's layers lack: {', '.join(further)}"
    if getattr(module, "learn_h0", False):
        return "it has learn_h0=True, and torch.nn.RNN has no parameter for the state before the first step"
    if getattr(module, "zoneout", 0):
        return "it has zoneout, which acts in evaluation too"
    if any(hook not in PASS_HOOKS for kind_of in _HOOKS for hook in getattr(module, kind_of).values()):
        return "it has hooks"
    return None


@torch.no_grad()
def as_torch(module: nn.Module) -> nn.Module:
    """The module as torch's: a new layer in the place of ours, and otherwise the same with plain weights.

    Weights that mean the same stay the same parameters.
    """
    if isinstance(module, Recurrent):
        return _layer(module)
    for name in _folded_names(module):
        parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    forget_passes(module)
    if isinstance(module, nn.RNNBase):
        module.flatten_parameters()
    return module


def _layer(old: Any) -> nn.Module:
    cell = parametrize.type_before_parametrizations(old) in CELLS
    bias, size = old.has_bias, old.input_size
    new: Any
    if cell:
        new = nn.RNNCell(size, old.hidden_size, bias, old.nonlinearity, device="meta")
    else:
        same = ("num_layers", "nonlinearity", "batch_first", "bidirectional")
        options = {name: getattr(old, name) for name in same}
        new = nn.RNN(size, old.hidden_size, bias=bias, device="meta", **options)
        new.dropout = old.dropout  # of a single layer it has warned already
    for suffix in old.suffixes:
        layer = old._layer(suffix)
        _set(new, f"weight_ih{suffix}", *_parameter(old, f"weight_ih{suffix}"))
        if isinstance(old.rule, FieldStep):
            learned = layer.read("field").requires_grad
            _set(new, f"weight_hh{suffix}", old.rule.matrix(layer).to(layer.read("weight_ih").dtype), learned)
            if bias:
                given, learned = _parameter(old, f"bias{suffix}")
                _set(new, f"bias_ih{suffix}", given, learned)
                _set(new, f"bias_hh{suffix}", torch.zeros_like(given), learned)
        else:
            for name in ("weight_hh", "bias_ih", "bias_hh")[: 3 if bias else 1]:
                _set(new, f"{name}{suffix}", *_parameter(old, f"{name}{suffix}"))
    new.train(old.training)
    if not cell:
        new.flatten_parameters()
    return new


def _parameter(module: nn.Module, name: str) -> tuple[Tensor, bool]:
    """A weight, and whether it is learned: the parameter itself, or what its parametrization makes of one."""
    weight = getattr(module, name)
    if parametrize.is_parametrized(module, name):
        matrices: Any = module.parametrizations
        return weight, any(parameter.requires_grad for parameter in matrices[name].parameters())
    return weight, weight.requires_grad


def _set(module: nn.Module, name: str, value: Tensor, requires_grad: bool) -> None:
    kept = isinstance(value, nn.Parameter)
    setattr(module, name, value if kept else nn.Parameter(value.detach().clone(), requires_grad))


def _parameter_names(module: nn.Module) -> list[str]:
    names = [name for name, _ in module.named_parameters(recurse=False)]
    return names + (list(module.parametrizations) if parametrize.is_parametrized(module) else [])  # type: ignore[arg-type]


def _folded_names(module: nn.Module) -> list[str]:
    """The weights of the module that a parametrization of ours makes."""
    if not parametrize.is_parametrized(module):
        return []
    lists: Any = module.parametrizations
    return [name for name, matrices in lists.items() if any(isinstance(matrix, Orthogonal) for matrix in matrices)]
