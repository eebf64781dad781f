"""Opacus: gradients of every sample of our layers, by `vmap(grad)` without a loop over the op.

Opacus computes those of a layer that it does not know itself, but only where a layer returns one tensor; ours return
`output, h_n`. So it is told how, as soon as it is imported. What its hooks do not see cannot count: the loss must read
`output`, and a layer is called with the input alone and draws no noise. While Opacus' hooks are on a layer, all else is
refused.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vfrnn.cells import Cell, OrthogonalRNNCell, RNNCell, VFRNNCell
from vfrnn.input_field import InputFieldRNN, InputFieldRNNCell
from vfrnn.layers import Recurrent
from vfrnn.rnn import RNN, VFRNN, OrthogonalRNN
from vfrnn_kernels.deferred import when_imported

LAYERS = (RNN, OrthogonalRNN, VFRNN, InputFieldRNN, RNNCell, OrthogonalRNNCell, VFRNNCell, InputFieldRNNCell)


class _Output(nn.Module):
    """A layer on one sample, without its hooks."""

    def __init__(self, layer: Recurrent) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        batch_dim = 0 if isinstance(self.layer, Cell) or self.layer.batch_first else 1
        found = self.layer.forward(x.unsqueeze(batch_dim))
        return (found if isinstance(found, Tensor) else found[0]).squeeze(batch_dim)


def gradients_of_samples(layer: Recurrent, activations: list[Tensor], backprops: Tensor) -> dict[nn.Parameter, Tensor]:
    """Opacus' `grad_sampler`: the gradients (B, ...) of the parameters of the layer.

    Args:
        layer: of this package.
        activations: its input, the batch in front.
        backprops: the gradient of its output, the batch in front.

    Raises:
        NotImplementedError: the layer got more than its input, or unbatched, or draws noise, or a mesh is learned.
    """
    if len(activations) != 1:
        raise NotImplementedError(
            f"gradients of samples need {type(layer).__name__} to be called with the input alone, got "
            f"{len(activations)} tensors"
        )
    _check_noise(layer)
    parameters = {name: p for name, p in layer.named_parameters() if p.requires_grad}
    learned = [name for name in parameters if "." in name]
    if learned:
        raise NotImplementedError(f"gradients of samples need a mesh that is not learned, got {', '.join(learned)}")
    output = _Output(layer)

    def loss(values: dict[str, Tensor], x: Tensor, grad: Tensor) -> Tensor:
        found = torch.func.functional_call(output, {f"layer.{name}": value for name, value in values.items()}, (x,))
        return (found * grad).sum()

    values = {name: p.detach() for name, p in parameters.items()}
    found: Any = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(values, activations[0], backprops)
    return {parameters[name]: gradients for name, gradients in found.items()}


def _check_noise(layer: Recurrent) -> None:
    names = ["recurrent_dropout", "zoneout", *(["dropout"] if getattr(layer, "num_layers", 1) > 1 else [])]
    drawn = [f"{name}={getattr(layer, name)}" for name in names if getattr(layer, name)]
    if layer.training and drawn:
        raise NotImplementedError(
            f"gradients of samples run {type(layer).__name__} once more, which would draw other noise: it needs "
            f"{drawn[0].partition('=')[0]}=0, got {drawn[0]}"
        )


class _Handles:
    """Handles of hooks that go together."""

    def __init__(self, *handles: RemovableHandle) -> None:
        self.handles = handles

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def watch(layer: Recurrent, hook: Any, handle: RemovableHandle) -> Any:
    """The handle of a hook; of one of Opacus', together with those of what refuses that which it does not see.

    Raises:
        ValueError: it takes another dimension for the batch than the layer.
        NotImplementedError: it is to find the gradients in a way that takes no layer which returns two tensors.
    """
    function, given = (hook.func, hook.keywords) if isinstance(hook, functools.partial) else (hook, {})
    if not (getattr(function, "__module__", None) or "").startswith("opacus."):
        return handle
    owner, network = getattr(function, "__self__", None), not isinstance(layer, Cell)
    if network and getattr(owner, "force_functorch", False):
        raise NotImplementedError(
            f'grad_sample_mode="functorch" (force_functorch=True) takes no layer that returns two tensors, as '
            f"{type(layer).__name__} does: leave it out, vfrnn has gradients of samples of its own"
        )
    if network and given.get("batch_first", layer.batch_first) != layer.batch_first:
        raise ValueError(
            f"batch_first must be the same in Opacus and in {type(layer).__name__}, got {given['batch_first']} and "
            f"{layer.batch_first}"
        )

    def captures() -> bool:
        return bool(getattr(owner, "hooks_enabled", True)) and layer.training and torch.is_grad_enabled()

    def check_call(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not captures():
            return
        values = {"hx": args[1], **kwargs} if len(args) > 1 else kwargs
        others = [name for name, value in values.items() if value is not (True if name == "return_sequence" else None)]
        others = [name for name in others if not (name == "return_all_layers" and values[name] is False)]
        if others or len(args) != 1:
            found = ", ".join(others) or f"{len(args)} positional arguments"
            raise NotImplementedError(
                f"gradients of samples need {type(layer).__name__} to be called with the input alone, got {found}"
            )
        rank = 3 if network else 2
        if not isinstance(args[0], Tensor) or args[0].dim() != rank:
            kind = f"{args[0].dim()}D tensor" if isinstance(args[0], Tensor) else type(args[0]).__name__
            raise NotImplementedError(f"gradients of samples need a batched {rank}D input, got a {kind}")
        _check_noise(layer)

    def check_gradients(layer: Any, gradients: Any) -> None:
        if getattr(owner, "hooks_enabled", True) and network and gradients[1] is not None:
            raise NotImplementedError(
                f"gradients of samples need a loss that reads the output of {type(layer).__name__}, got one that reads "
                "h_n, which is output[-1] in its last layer"
            )

    call = layer.register_forward_pre_hook(check_call, with_kwargs=True)
    return _Handles(handle, call, layer.register_full_backward_pre_hook(check_gradients))


def _register() -> None:
    Recurrent._watch = watch
    importlib.import_module("opacus.grad_sample.utils").register_grad_sampler(LAYERS)(gradients_of_samples)


when_imported("opacus.grad_sample.utils", _register)
