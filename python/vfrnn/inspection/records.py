"""What training keeps of a model's dynamics after every epoch: the distribution of its rotation angles."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vfrnn.inspection.spectrum import generator_angles, orthogonal_angles, orthogonal_part
from vfrnn.inspection.twin import float64_twin, generator, layers_of, step_matrix
from vfrnn.layers import Recurrent
from vfrnn.steps import FieldRule

#: Which quantiles of the angles a record has.
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class LayerRecord:
    """One layer and direction at one time of its training; numbers alone, for a log.

    Attributes:
        name: of the layer, as `LayerInspection.title` has it.
        angles: the `QUANTILES` of the rotation angles of a step, in radians; empty where n = 1 has no plane.
        divergence: the root of the mean square of the divergence that acts on the state, per unit of time; None of a
            layer without a field.
        divergence_scale: None of a layer without one.
    """

    name: str
    angles: list[float]
    divergence: float | None
    divergence_scale: float | None


def layer_title(name: str, twin: Recurrent, suffix: str) -> str:
    """How a layer and direction of the module of that name is called: "encoder.rnn (VFRNN), layer 1, backwards"; what
    says nothing, as the number of an only layer, is left out."""
    kind = type(twin).__name__
    words = [f"{name} ({kind})" if name else kind]
    if len(twin.suffixes) > 1:
        number, _, reverse = suffix.removeprefix("_l").partition("_")
        words += [f"layer {number}", *(["backwards"] if reverse else [])]
    return ", ".join(words)


def recurrent_modules(module: nn.Module) -> dict[str, Recurrent]:
    """Our recurrent modules in a model, by name; one that it holds twice comes once."""
    return {name: part for name, part in module.named_modules() if isinstance(part, Recurrent)}


@torch.no_grad()
def layer_records(module: nn.Module) -> list[LayerRecord]:
    """A record of every layer and direction of our recurrent modules in a model, which may have none."""
    found = []
    for name, recurrent in recurrent_modules(module).items():
        twin = float64_twin(recurrent)
        for suffix, layer in layers_of(twin).items():
            if isinstance(twin.rule, FieldRule):
                S, delta = generator(twin.rule, layer)
                angles, divergence = generator_angles(S, twin.rule.dt), float(delta.square().mean().sqrt())
            else:
                angles, divergence = orthogonal_angles(orthogonal_part(step_matrix(layer, twin, None))), None
            scale = layer.find("divergence_scale")
            found.append(
                LayerRecord(
                    name=layer_title(name, twin, suffix),
                    angles=_quantiles(angles),
                    divergence=divergence,
                    divergence_scale=None if scale is None else float(scale),
                )
            )
    return found


def _quantiles(angles: Tensor) -> list[float]:
    return angles.quantile(angles.new_tensor(QUANTILES)).tolist() if angles.numel() else []
