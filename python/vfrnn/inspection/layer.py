"""LayerInspection: all that is told of one layer and direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vfrnn.inspection.grid import GridField, grid_field
from vfrnn.inspection.records import layer_title
from vfrnn.inspection.spectrum import (
    departure_from_normality,
    generator_angles,
    half_lives,
    orthogonal_angles,
    orthogonal_part,
    plane_eigenvalues,
    power_norms,
)
from vfrnn.inspection.twin import generator, step_matrix
from vfrnn.layers import Recurrent
from vfrnn.steps import FieldRule, FieldStep, InputFieldStep, Layer

READS_INPUT = (
    "The field reads the input, v + V x: matrix, angles, singular values and half-lives are those at input 0. "
    "At another input they are others; only the gradient over the lag of an example follows them, "
    "in as many substeps as float64 needs."
)
OWN_TIMES = (
    "A call may bring times of its own (dt=...). The angles of a step, and the logarithms of its moduli, grow in "
    "proportion to its time; what is told here is a step of the time {dt:g}."
)
ANY_MATRIX = "The recurrent weight is any matrix: its rotation angles are those of the orthogonal matrix next to it."


@dataclass(frozen=True)
class LayerInspection:
    r"""One layer and direction: `h_t = act(M h_{t-1} + U x_t + c)`. All tensors are in float64 on the CPU.

    What depends on the module alone: all but `gradient`. What depends on data: `gradient`, and where a field reads the
    input or times come with it, `M` of each step, of which the one given here is that at input 0 and for the time `dt`.

    Attributes:
        title: the layer in words: "encoder.rnn (VFRNN), layer 1, backwards".
        name: of the module in the model; "" is the model itself.
        kind: its class.
        suffix: of the layer's parameters: "_l0", "_l0_reverse", ...; "" in a cell.
        nonlinearity: act.
        dt: the time of a step; None of an `RNN`, which has no time.
        M: (n, n), the step matrix, made by the library's own step: `exp(dt S)` of an orthogonal layer, the Strang step
            of a general field, `weight_hh` of an `RNN`.
        angles: in radians, ascending: by how much the orthogonal part of a step turns its planes
            (`spectrum.generator_angles` of `dt S`; of an `RNN` `spectrum.orthogonal_angles` of the polar factor).
        eigenvalues: of M, one for each plane or axis, the longest first (`spectrum.plane_eigenvalues`).
        half_lives: of those, in steps, without the nonlinearity (`spectrum.half_lives`).
        singular_values: of M, descending: (n,).
        departure: Henrici's departure from normality of M (`spectrum.departure_from_normality`).
        divergence: delta (n,), per unit of time, as it acts on the state: a node with a positive one forgets
            (:math:`e^{-dt\,\delta/2}` a step), with a negative one it amplifies; 0 of an orthogonal layer, None of an
            `RNN`.
        divergence_scale: the learned factor in it; None where there is none.
        lags: numbers of steps k, ascending.
        linear_gradient: :math:`\|M^k\|_2` for each lag.
        gradient: :math:`\|\partial h_T / \partial h_{T-k}\|_2` of the example, (len(lags), B); None without one. NaN
            where the states are not finite.
        grid: the field's velocities where the mesh is a `LatentMesh.grid` of two axes, else None.
        notes: sentences on what the numbers mean here.
    """

    title: str
    name: str
    kind: str
    suffix: str
    nonlinearity: str
    dt: float | None
    M: Tensor
    angles: Tensor
    eigenvalues: Tensor
    half_lives: Tensor
    singular_values: Tensor
    departure: float
    divergence: Tensor | None
    divergence_scale: float | None
    lags: tuple[int, ...]
    linear_gradient: Tensor
    gradient: Tensor | None
    grid: GridField | None
    notes: tuple[str, ...]

    @property
    def hidden_size(self) -> int:
        """n."""
        return self.M.shape[0]


def inspect_layer(
    name: str, twin: Recurrent, layer: Layer, dt: float | None, lags: Sequence[int], gradient: Tensor | None,
    told: Sequence[str],
) -> LayerInspection:  # fmt: skip
    """What is told of a layer of the float64 twin of the module of that name. dt replaces the module's time of a step.

    `gradient` and the sentences `told` come from an example, where there is one.
    """
    rule = twin.rule
    M = step_matrix(layer, twin, dt)
    every = torch.linalg.eigvals(M)
    eigenvalues = plane_eigenvalues(every)
    singular_values = torch.linalg.svdvals(M)
    # An eigenvalue is known to about n roundings of a matrix of that size.
    tolerance = 4 * len(M) * torch.finfo(M.dtype).eps * max(1.0, float(singular_values[0]))
    time, divergence, grid = None, None, None
    if isinstance(rule, FieldRule):
        time = rule.dt if dt is None else float(dt)
        S, divergence = generator(rule, layer)
        angles = generator_angles(S, time)
        grid = grid_field(rule.mesh(layer), layer.read("field"), time)
    else:
        angles = orthogonal_angles(orthogonal_part(M))
    scale = layer.find("divergence_scale")
    return LayerInspection(
        title=layer_title(name, twin, layer.suffix),
        name=name,
        kind=type(twin).__name__,
        suffix=layer.suffix,
        nonlinearity=layer.nonlinearity,
        dt=time,
        M=M,
        angles=angles,
        eigenvalues=eigenvalues,
        half_lives=half_lives(eigenvalues, tolerance),
        singular_values=singular_values,
        departure=departure_from_normality(M, every),
        divergence=divergence,
        divergence_scale=None if scale is None else float(scale),
        lags=tuple(lags),
        linear_gradient=power_norms(M, lags),
        gradient=gradient,
        grid=grid,
        notes=(*_notes(rule, time), *told),
    )


def _notes(rule: object, dt: float | None) -> list[str]:
    if isinstance(rule, InputFieldStep):
        return [READS_INPUT]
    return [OWN_TIMES.format(dt=dt)] if isinstance(rule, FieldStep) else [ANY_MATRIX]
