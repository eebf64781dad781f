"""inspect: what every recurrent layer of a model does to its state, as numbers, and drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vfrnn.inspection.field_picture import field_pictures
from vfrnn.inspection.grid import GridField
from vfrnn.inspection.layer import LayerInspection, inspect_layer
from vfrnn.inspection.memory import Sequences, gradients_over_lags, recorded_calls
from vfrnn.inspection.page import Picture, write_page
from vfrnn.inspection.pictures import layer_facts, layer_pictures
from vfrnn.inspection.records import recurrent_modules
from vfrnn.inspection.twin import check_steps, float64_twin, layers_of
from vfrnn.network import Network
from vfrnn.steps import is_per_step
from vfrnn_kernels.checks import check_finite, check_module

LONGEST_LAG = 1000
ABOUT = (
    "A hidden state of size n moves in planes. One step h = act(M h + U x + c) turns each plane by an angle and scales "
    "it by a modulus: planes of modulus 1 remember for ever, smaller ones forget, larger ones grow. Everything but the "
    "gradient over the lag of an example follows from the trained parameters alone."
)


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found: one entry for every layer and direction, in the order of the model. Printed, a table.

    Attributes:
        layers: the entries.
    """

    layers: tuple[LayerInspection, ...]

    def draw(
        self,
        folder: str | Path,
        *,
        title: str = "vfrnn inspect",
        truth: GridField | None = None,
        more: Sequence[Picture] = (),
        told: Sequence[str] = (),
    ) -> Path:
        """Writes the pictures, as PNG, and one page, `index.html`, that has them inside and opens with no network.

        Args:
            folder: where to; it is made if it is missing.
            title: heading of the page.
            truth: velocities to be drawn beside those of a layer on the same grid.
            more: pictures that come after the fields (`vfrnn inspect RUN` has those of the task and the training).
            told: sentences at the head of the page.

        Returns:
            The path of the page.

        Raises:
            RuntimeError: matplotlib is missing.
        """
        pictures = [*field_pictures(self.layers, truth), *more, *layer_pictures(self.layers)]
        sentences = [ABOUT, *told, *dict.fromkeys(note for layer in self.layers for note in layer.notes)]
        return write_page(Path(folder), title, sentences, layer_facts(self.layers), pictures)

    def __str__(self) -> str:
        rows = layer_facts(self.layers)
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        return "\n".join(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )


@torch.no_grad()
def inspect(
    module: nn.Module, x: Any = None, *, lags: Sequence[int] | None = None, dt: float | None = None
) -> Inspection:
    r"""What the recurrent layers of a model do to their states: rotations, memory, divergence, gradients over the lag.

    Finds every `RNN`, `OrthogonalRNN`, `VFRNN`, `InputFieldRNN` and cell in the model and computes, in float64 on the
    CPU, from the step matrix M of each layer and direction: its rotation angles, its eigenvalues and the half-lives
    :math:`\ln 2 / (-\ln |\lambda|)` of its planes, its singular values and departure from normality, and
    :math:`\|M^k\|_2` for each lag k; the divergence of its field; on a grid mesh the velocities of the field. These
    follow from the parameters alone. With an example also :math:`\|\partial h_T / \partial h_{T-k}\|_2` of the true,
    nonlinear recurrence, which depends on the data (`LayerInspection` has every definition).

    Args:
        module: any torch.nn.Module. It is left as it is: copies are computed with.
        x: an example of the model's input, in its own dtype and device: a tensor, a PackedSequence, or a tuple of
            arguments. The model is called with it once, in evaluation; of a network that it calls several times the
            first call counts. Times of steps (`dt`) that the model gives its networks are followed, and so is a
            field that reads the input. Cost: one backward pass of n rows per sample and lag.
        lags: numbers of steps k, at least 1, and at most the length of the sequences where there is an example. About
            thirty up to 1000, or up to that length, if not given.
        dt: the time of a step, in place of the modules' own, where the example does not bring one.

    Returns:
        An `Inspection`, one entry per layer and direction. `print` shows it; `draw(folder)` writes pictures and a page.

    Raises:
        TypeError: the module is none, dt or a lag is no number, or x has too few or too many arguments.
        ValueError: the module has none of our layers, or parameters without values, or values or step matrices that
            are not finite; a lag is too small or too large.

    Example:
        >>> found = inspect(vfrnn.OrthogonalRNN(3, 8, num_layers=2, bidirectional=True))
        >>> len(found.layers), found.layers[0].angles.shape, found.layers[0].departure
        (4, torch.Size([4]), 0.0)
    """
    check_module("module", module)
    if dt is not None and (isinstance(dt, bool) or not isinstance(dt, int | float)):
        raise TypeError(f"dt must be a number, got {type(dt).__name__}")
    if dt is not None:
        check_finite("dt", dt)
    asked = None if lags is None else _checked(lags)
    ours = recurrent_modules(module)
    if not ours:
        raise ValueError(
            "module must be or contain an RNN, OrthogonalRNN, VFRNN, InputFieldRNN or a cell of vfrnn, "
            f"got a {type(module).__name__} without one"
        )
    networks = {name: part for name, part in ours.items() if isinstance(part, Network)}
    twins = {name: float64_twin(recurrent) for name, recurrent in ours.items()}
    for name, twin in twins.items():
        check_steps(twin, name, dt)
    calls = {} if x is None else recorded_calls(module, networks, x)
    found: list[LayerInspection] = []
    for name, recurrent in ours.items():
        twin, sequences = twins[name], calls.get(name, [])
        shortest = min((len(one.x) for one in sequences), default=LONGEST_LAG)
        if asked is not None and sequences and asked[-1] > shortest:
            raise ValueError(
                f"lags must be at most {shortest}, the length of the shortest sequence that {name or 'module'!r} "
                f"reads, got {asked[-1]}"
            )
        of_module = asked or _spread(shortest)
        told = [] if x is None else [_about_example(name, recurrent, sequences)]
        gradients = _gradients(twin, sequences, of_module, dt)
        for layer in layers_of(twin).values():
            found.append(inspect_layer(name, twin, layer, dt, of_module, next(gradients, None), told))
    return Inspection(tuple(found))


def _gradients(
    twin: nn.Module, sequences: list[Sequences], lags: tuple[int, ...], dt: float | None
) -> Iterator[Tensor]:
    """For each layer and direction the norms (len(lags), B) of all sequences; nothing where there is none."""
    if not sequences or not isinstance(twin, Network):
        return iter(())
    timed = [Sequences(one.x, one.h0, dt if one.dt is None else one.dt) for one in sequences]
    every = [gradients_over_lags(twin, one, lags) for one in timed]
    return (torch.cat(of_layer, 1) for of_layer in zip(*every, strict=True))


def _about_example(name: str, recurrent: nn.Module, sequences: list[Sequences]) -> str:
    title = name or "module"
    if not isinstance(recurrent, Network):
        return f"{title}: a cell is called step by step; the gradient over the lag of an example is told of networks."
    if not sequences:
        return f"{title}: the model did not call this network with the example."
    samples = sum(one.x.shape[1] for one in sequences)
    sentence = f"{title}: the gradient over the lag is that of {samples} example sequence{'s' * (samples != 1)}"
    times = [one.dt.flatten() for one in sequences if is_per_step(one.dt)]
    if times:
        every = torch.cat(times)
        sentence += f", whose steps last {every.min():.3g} to {every.max():.3g} (median {every.median():.3g})"
    return sentence + "."


def _checked(lags: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(lags, Sequence) or isinstance(lags, str):
        raise TypeError(f"lags must be a sequence of ints, got {type(lags).__name__}")
    for lag in lags:
        if isinstance(lag, bool) or not isinstance(lag, int):
            raise TypeError(f"lags must be ints, got {type(lag).__name__}")
        if lag < 1:
            raise ValueError(f"lags must be at least 1, got {lag}")
    if not lags:
        raise ValueError("lags must name at least one number of steps, got none")
    return tuple(sorted(set(lags)))


def _spread(longest: int) -> tuple[int, ...]:
    """About thirty lags from 1 to `longest`, in even ratios."""
    return tuple(sorted({round(longest ** (k / 30)) for k in range(31)}))
