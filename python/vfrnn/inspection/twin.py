"""A recurrent module's float64 twin on the CPU, and what is computed from it: generator, divergence, step matrix."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from vfrnn.layers import Recurrent
from vfrnn.steps import FieldRule, FieldStep, InputFieldStep, Layer
from vfrnn_kernels import field_flow, field_generator, strang_step


def float64_twin(module: Recurrent) -> Recurrent:
    """A copy of the module in float64 on the CPU, in evaluation, without gradients, computed by the reference.

    Raises:
        ValueError: a parameter has no value, or one that is not finite.
    """
    for name, parameter in module.named_parameters():
        if parameter.is_meta:
            raise ValueError(f"module must have parameters with values, got {name!r} on the meta device")
        if not bool(parameter.isfinite().all()):
            raise ValueError(f"module must have finite parameters, got {name!r} with NaN or infinity")
    twin = copy.deepcopy(module).to(device="cpu", dtype=torch.float64).eval().requires_grad_(False)
    twin.backend = "reference"
    if isinstance(twin.rule, FieldStep):
        twin.rule = replace(twin.rule, exp_dtype=None)
    return twin


def layers_of(twin: Recurrent) -> dict[str, Layer]:
    """The layers and directions of a module, by the suffix of their parameters, in order."""
    return {suffix: twin._layer(suffix) for suffix in twin.suffixes}


def generator(rule: FieldRule, layer: Layer) -> tuple[Tensor, Tensor]:
    """S (n, n) and the divergence delta (n,) that acts on the state, per unit of time (model.md 2 and 3).

    delta is 0 where the divergence does not act; otherwise it is `divergence_scale` times that of the field, its mean
    taken away where volumes are preserved. Of a field that reads the input it is the field at input 0.
    """
    S, delta = field_generator(*rule.mesh(layer).tensors(), layer.read("field"), backend=layer.backend)
    scale = layer.find("divergence_scale")
    if scale is None:
        return S, torch.zeros_like(delta)
    if rule.volume_preserving:
        delta = delta - delta.mean()
    return S, scale * delta


def step_matrix(layer: Layer, twin: Recurrent, dt: float | None) -> Tensor:
    """M (n, n), by the library's own step: the flow for the time dt (None: the module's), or the recurrent weight.

    Of a field that reads the input it is the flow at input 0, in the module's substeps; where it plans them, in as many
    as `field_flow` plans in float64, which moves the columns of the unit matrix.
    """
    rule = twin.rule
    if isinstance(rule, FieldStep):
        return rule.matrix(layer, dt)
    if not isinstance(rule, InputFieldStep):
        return layer.read("weight_hh")
    v = layer.read("field")
    time = rule.time(dt, v)
    if rule.substeps is not None:
        return strang_step(*generator(rule, layer), time, rule.substeps, backend=layer.backend)
    return field_flow(
        torch.eye(layer.hidden_size, dtype=v.dtype), v, *rule.mesh(layer).dense_tensors(), time,
        layer.read("divergence_scale"), volume_preserving=rule.volume_preserving, backend=layer.backend,
    ).mT  # fmt: skip


def check_steps(twin: Recurrent, name: str, dt: float | None) -> None:
    """
    Raises:
        ValueError: a step matrix of the module of that name is not finite.
    """
    for suffix, layer in layers_of(twin).items():
        wanted = f"module must have finite step matrices, got that of {name + suffix!r}"
        try:
            matrix = step_matrix(layer, twin, dt)
        except RuntimeError as error:
            raise ValueError(f"{wanted}: {error}") from error
        if not bool(matrix.isfinite().all()):
            raise ValueError(f"{wanted} with NaN or infinity: its divergence times dt is too large")
