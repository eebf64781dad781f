"""Models of the training command by name: ours and the peers, each with a linear readout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import vfrnn
from vfrnn.init import Init
from vfrnn.tasks.task import Task
from vfrnn_kernels.activations import ACTIVATIONS


@dataclass(frozen=True)
class ModelOptions:
    """Options of every model; each reads its own. A nonlinearity of None is the model's default."""

    hidden_size: int
    layers: int = 1
    init: Init = "henaff"
    mesh: str = "complete"
    cells: int = 0
    dim: int = 8
    dt: float = 1.0
    substeps: int = 1
    volume_preserving: bool = False
    backend: str | None = None
    nonlinearity: str | None = None

    def chosen(self) -> dict[str, Any]:
        """The arguments that are passed on only if they are given."""
        return {} if self.nonlinearity is None else {"nonlinearity": self.nonlinearity}


class SequenceModel(nn.Module):
    """A recurrent layer and a linear readout of every state, or of the last one.

    Where the inputs are timed, ours take steps as long as the last channel says; to the others it is one more input.
    """

    def __init__(self, layer: nn.Module, hidden_size: int, task: Task) -> None:
        super().__init__()
        self.layer = layer
        self.readout = nn.Linear(hidden_size, task.output_size)
        self.every_step = task.every_step
        self.by_time = task.timed and isinstance(layer, (vfrnn.VFRNN, vfrnn.OrthogonalRNN))

    def forward(self, x: Tensor) -> Tensor:
        output = self.layer(x[..., :-1], dt=x[..., -1])[0] if self.by_time else self.layer(x)[0]  # (T, B, n)
        return self.readout(output if self.every_step else output[-1])


def _mesh(options: ModelOptions) -> vfrnn.LatentMesh | None:
    if options.mesh == "complete":
        return None
    cells = options.cells or 2 * options.hidden_size
    return vfrnn.LatentMesh.random(options.hidden_size, cells=cells, dim=options.dim)


def _vfrnn(task: Task, o: ModelOptions) -> nn.Module:
    return vfrnn.VFRNN(
        task.input_size - task.timed, o.hidden_size, o.layers, mesh=_mesh(o), dt=o.dt, substeps=o.substeps, init=o.init,
        volume_preserving=o.volume_preserving, backend=o.backend, **o.chosen(),
    )  # fmt: skip


def _orthogonal(task: Task, o: ModelOptions) -> nn.Module:
    return vfrnn.OrthogonalRNN(
        task.input_size - task.timed, o.hidden_size, o.layers, mesh=_mesh(o), dt=o.dt, init=o.init, backend=o.backend,
        **o.chosen(),
    )  # fmt: skip


def _rnn(task: Task, o: ModelOptions) -> nn.Module:
    return vfrnn.RNN(task.input_size, o.hidden_size, o.layers, backend=o.backend, **o.chosen())


def _lstm(task: Task, o: ModelOptions) -> nn.Module:
    return nn.LSTM(task.input_size, o.hidden_size, o.layers)


def _gru(task: Task, o: ModelOptions) -> nn.Module:
    return nn.GRU(task.input_size, o.hidden_size, o.layers)


def _torch_orthogonal(task: Task, o: ModelOptions) -> nn.Module:
    layer = nn.RNN(task.input_size, o.hidden_size, o.layers, **o.chosen())
    for k in range(o.layers):
        nn.utils.parametrizations.orthogonal(layer, f"weight_hh_l{k}")
    return layer


MODELS: dict[str, Callable[[Task, ModelOptions], nn.Module]] = {
    "vfrnn": _vfrnn,
    "orthogonal": _orthogonal,
    "rnn": _rnn,
    "lstm": _lstm,
    "gru": _gru,
    "torch-orthogonal": _torch_orthogonal,
}

#: The nonlinearities that each takes.
NONLINEARITIES: dict[str, tuple[str, ...]] = {
    "vfrnn": ACTIVATIONS,
    "orthogonal": ACTIVATIONS,
    "rnn": ACTIVATIONS,
    "lstm": (),
    "gru": (),
    "torch-orthogonal": ("tanh", "relu"),
}

#: How each is called beside the others.
TITLES = {
    "vfrnn": "vfrnn.VFRNN",
    "orthogonal": "vfrnn.OrthogonalRNN",
    "rnn": "vfrnn.RNN",
    "lstm": "torch.nn.LSTM",
    "gru": "torch.nn.GRU",
    "torch-orthogonal": "orthogonal(torch.nn.RNN)",
}


def check_nonlinearity(name: str, nonlinearity: str | None, *, argument: str = "nonlinearity") -> None:
    """
    Raises:
        ValueError: the model of that name does not take the nonlinearity.
    """
    known = NONLINEARITIES[name]
    if nonlinearity is not None and nonlinearity not in known:
        choices = f"must be one of {', '.join(map(repr, known))} for" if known else "cannot be chosen for"
        raise ValueError(f"{argument} {choices} the model {name!r}, got {nonlinearity!r}")


def make_model(name: str, task: Task, options: ModelOptions, seed: int) -> SequenceModel:
    """The model of that name, the same for the same seed.

    Raises:
        ValueError: it does not take the nonlinearity.
    """
    check_nonlinearity(name, options.nonlinearity)
    torch.manual_seed(seed)
    return SequenceModel(MODELS[name](task, options), options.hidden_size, task)
