"""Models of the training command by name: ours and the peers, each with a linear readout."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import vfrnn
from vfrnn.init import Init
from vfrnn.tasks.exprnn import ExpRNN
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

    def chosen(self, task: Task) -> dict[str, Any]:
        """The arguments of our layers that are passed on only if they are given, or if the states are the answer."""
        found: dict[str, Any] = {} if self.nonlinearity is None else {"nonlinearity": self.nonlinearity}
        return {"nonlinearity": "identity", "bias": False, **found} if task.initial else found


class SequenceModel(nn.Module):
    """A recurrent layer and a linear readout of every state, or of the last one.

    Where the inputs are timed, ours take steps as long as the last channel says; to the others it is one more input.
    Where they are ragged, the last state is that of each sequence.
    """

    def __init__(self, layer: nn.Module, hidden_size: int, task: Task) -> None:
        super().__init__()
        self.layer = layer
        self.readout = nn.Linear(hidden_size, task.output_size)
        self.every_step, self.ragged = task.every_step, task.ragged
        self.by_time = task.timed and isinstance(layer, (vfrnn.VFRNN, vfrnn.OrthogonalRNN))

    def forward(self, x: Tensor) -> Tensor:
        if self.ragged:
            return self.readout(self._last_states(x[..., 1:], x[..., 0].sum(0)))
        output = self.layer(x[..., :-1], dt=x[..., -1])[0] if self.by_time else self.layer(x)[0]  # (T, B, n)
        return self.readout(output if self.every_step else output[-1])

    def _last_states(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Those of the last layer (B, n), from packed sequences: no layer reads the padding."""

        def packed(part: Tensor) -> PackedSequence:
            return pack_padded_sequence(part, lengths.cpu(), enforce_sorted=False)

        if self.by_time:
            _, state = self.layer(packed(x[..., :-1]), dt=packed(x[..., -1]))
        else:
            _, state = self.layer(packed(x))
        return (state[0] if isinstance(state, tuple) else state)[-1]


class Rollout(nn.Module):
    """A recurrent layer without input, from a first state that is given: frames f_0 (1, B, n) to the T frames after it,
    of a task with `initial`.

    On a mesh with node weights b the state, of every layer, is B^{1/2} f, in which orthogonal matrices keep the norm of
    f. A layer whose states are not the answer, because they are squashed, has a linear readout.
    """

    root: Tensor

    def __init__(self, layer: nn.Module, hidden_size: int, task: Task) -> None:
        super().__init__()
        self.layer, self.steps, self.layers = layer, task.horizon, int(getattr(layer, "num_layers", 1))
        mesh = getattr(layer, "mesh", None)
        self.register_buffer("root", torch.ones(hidden_size) if mesh is None else mesh.b.detach().sqrt())
        free = getattr(layer, "nonlinearity", None) == "identity"
        self.readout = nn.Identity() if free else nn.Linear(hidden_size, hidden_size)

    def forward(self, frames: Tensor, steps: int | None = None) -> Tensor:
        x = frames.new_zeros(steps or self.steps, frames.shape[1], 1)
        state = (frames * self.root).repeat(self.layers, 1, 1)
        hx = (state, torch.zeros_like(state)) if isinstance(self.layer, nn.LSTM) else state
        return self.readout(self.layer(x, hx)[0] / self.root)


def _mesh(options: ModelOptions) -> vfrnn.LatentMesh | None:
    if options.mesh == "complete":
        return None
    if options.mesh == "grid":
        side = math.isqrt(options.hidden_size)
        if side**2 != options.hidden_size:
            raise ValueError(f"the mesh 'grid' needs a hidden size that is a square, got {options.hidden_size}")
        return vfrnn.LatentMesh.grid(side, side)
    cells = options.cells or 2 * options.hidden_size
    return vfrnn.LatentMesh.random(options.hidden_size, cells=cells, dim=options.dim)


def _vfrnn(task: Task, o: ModelOptions) -> nn.Module:
    return vfrnn.VFRNN(
        task.input_size - task.timed, o.hidden_size, o.layers, mesh=_mesh(o), dt=o.dt, substeps=o.substeps, init=o.init,
        volume_preserving=o.volume_preserving, backend=o.backend, **o.chosen(task),
    )  # fmt: skip


def _orthogonal(task: Task, o: ModelOptions) -> nn.Module:
    return vfrnn.OrthogonalRNN(
        task.input_size - task.timed, o.hidden_size, o.layers, mesh=_mesh(o), dt=o.dt, init=o.init, backend=o.backend,
        **o.chosen(task),
    )  # fmt: skip


def _rnn(task: Task, o: ModelOptions) -> nn.Module:
    layer = vfrnn.RNN(task.input_size, o.hidden_size, o.layers, backend=o.backend, **o.chosen(task))
    if task.initial and layer.nonlinearity == "identity":
        nn.init.eye_(layer.get_parameter("weight_hh_l0"))  # frames that stay, as those of the others at first
    return layer


def _lstm(task: Task, o: ModelOptions) -> nn.Module:
    return nn.LSTM(task.input_size, o.hidden_size, o.layers)


def _gru(task: Task, o: ModelOptions) -> nn.Module:
    return nn.GRU(task.input_size, o.hidden_size, o.layers)


def _torch_orthogonal(task: Task, o: ModelOptions) -> nn.Module:
    named = {} if o.nonlinearity is None else {"nonlinearity": o.nonlinearity}
    layer = nn.RNN(task.input_size, o.hidden_size, o.layers, **named)
    for k in range(o.layers):
        nn.utils.parametrizations.orthogonal(layer, f"weight_hh_l{k}")
    return layer


def _identity_rnn(task: Task, o: ModelOptions) -> nn.Module:
    """The IRNN of Le, Jaitly and Hinton 2015 (arXiv 1504.00941): rectified, a small normal start of the input weights.

    In upper layers, whose inputs are states, the input weights start so too.
    """
    layer = nn.RNN(task.input_size, o.hidden_size, o.layers, nonlinearity=o.nonlinearity or "relu")
    for name, parameter in layer.named_parameters():
        if name.startswith("weight_hh"):
            nn.init.eye_(parameter)
        elif name.startswith("weight_ih"):
            nn.init.normal_(parameter, std=0.001)
        else:
            nn.init.zeros_(parameter)
    return layer


def _geotorch(task: Task, o: ModelOptions) -> nn.Module:
    if o.layers != 1:
        raise ValueError(f"layers must be 1 for the model 'geotorch', got {o.layers}")
    return ExpRNN(task.input_size, o.hidden_size, o.init, **o.chosen(task))


MODELS: dict[str, Callable[[Task, ModelOptions], nn.Module]] = {
    "vfrnn": _vfrnn,
    "orthogonal": _orthogonal,
    "rnn": _rnn,
    "lstm": _lstm,
    "gru": _gru,
    "torch-orthogonal": _torch_orthogonal,
    "identity-rnn": _identity_rnn,
    "geotorch": _geotorch,
}

#: Whose parameters are not all alike to the optimizer: generators have a rate of their own.
WITH_GENERATORS = frozenset({"vfrnn", "orthogonal", "torch-orthogonal", "geotorch"})

#: The nonlinearities that each takes.
NONLINEARITIES: dict[str, tuple[str, ...]] = {
    "vfrnn": ACTIVATIONS,
    "orthogonal": ACTIVATIONS,
    "rnn": ACTIVATIONS,
    "lstm": (),
    "gru": (),
    "torch-orthogonal": ("tanh", "relu"),
    "identity-rnn": ("tanh", "relu"),
    "geotorch": ACTIVATIONS,
}

#: How each is called beside the others.
TITLES = {
    "vfrnn": "vfrnn.VFRNN",
    "orthogonal": "vfrnn.OrthogonalRNN",
    "rnn": "vfrnn.RNN",
    "lstm": "torch.nn.LSTM",
    "gru": "torch.nn.GRU",
    "torch-orthogonal": "orthogonal(torch.nn.RNN)",
    "identity-rnn": "torch.nn.RNN from the identity",
    "geotorch": "expRNN in geotorch",
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


def make_model(name: str, task: Task, options: ModelOptions, seed: int) -> SequenceModel | Rollout:
    """The model of that name, the same for the same seed.

    Raises:
        ValueError: it does not take the nonlinearity, or as many layers.
        RuntimeError: it needs a package that is not installed.
    """
    check_nonlinearity(name, options.nonlinearity)
    torch.manual_seed(seed)
    kind = Rollout if task.initial else SequenceModel
    return kind(MODELS[name](task, options), options.hidden_size, task)
