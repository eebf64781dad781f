"""Opacus: gradients of every sample of our layers, by `vmap(grad)` without a loop over the op.

Opacus computes those of a layer that it does not know itself, but only where a layer returns one tensor; ours return
`output, h_n`. So it is told how, as soon as it is imported. What its hooks do not see cannot count: the loss must read
`output`, and a layer is called with the input alone.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

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
        NotImplementedError: the layer got more than its input, or a mesh is learned.
    """
    if len(activations) != 1:
        raise NotImplementedError(
            f"gradients of samples need {type(layer).__name__} to be called with the input alone, got "
            f"{len(activations)} tensors"
        )
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


def _register() -> None:
    importlib.import_module("opacus.grad_sample.utils").register_grad_sampler(LAYERS)(gradients_of_samples)


when_imported("opacus.grad_sample.utils", _register)
