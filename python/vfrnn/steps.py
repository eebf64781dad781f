"""Step rules: what takes a recurrent layer from one state to the next (model.md 2 to 5).

A rule knows the names, shapes and initial values of a layer's parameters, and computes its states from them. It holds
numbers alone: parameters and meshes stay with the network or cell, which calls the rule with a `Layer`, and are read by
attribute at every call. So a rule can be copied, pickled and compiled like a number.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import ClassVar, Protocol, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from vfrnn.init import INITS, Init, init_field_
from vfrnn.mesh import LatentMesh
from vfrnn.passes import Remembering, remembered
from vfrnn.rounding import round_step, rounded_once, wider
from vfrnn.streaming import kept_matrix, tensors_of
from vfrnn_kernels import field_generator, flow_recurrence, recurrence, skew_expm, spectral_recurrence, strang_step
from vfrnn_kernels.activations import Activation, has_beta
from vfrnn_kernels.checks import check_choice, check_finite, check_positive_int, check_shape, check_tensor

Shapes = dict[str, tuple[int, ...] | None]  # of a layer's parameters by name; None for one that is absent


class Steps(Protocol):
    """The steps of a layer, with what all sequences share computed once."""

    def __call__(self, x: Tensor, h0: Tensor, dt: Tensor | None = None, sequence: bool = True) -> Tensor:
        """All states (T, B, n) on x (T, B, i) from h0 (B, n), or the last (B, n), in the dtype of x.

        dt, (T,) or (T, B), is given where the steps have times of their own.
        """


@dataclass(frozen=True)
class Layer:
    """One layer and direction of a module, as its step rule sees it.

    Attributes:
        module: holds the parameters.
        suffix: ends their names: "_l0", "_l0_reverse", ... in a network, "" in a cell.
        hidden_size, has_bias, nonlinearity, backend: of the module.
    """

    module: Remembering
    suffix: str
    hidden_size: int
    has_bias: bool
    nonlinearity: Activation
    backend: str | None

    def read(self, name: str) -> Tensor:
        """The parameter of that name."""
        return getattr(self.module, name + self.suffix)

    def find(self, name: str) -> Tensor | None:
        """The parameter of that name, None where the layer has none."""
        return getattr(self.module, name + self.suffix, None)

    def own(self, name: str) -> Tensor | None:
        """The parameter of that name where it is the module's own, and not computed by a parametrization."""
        return self.module._parameters.get(name + self.suffix)


@dataclass(frozen=True)
class StepRule(ABC):
    """How a layer steps.

    Attributes:
        default_nonlinearity: that of the modules with this rule.
        generators: the parameters that generate the movement of the state (`vfrnn.param_groups`).
    """

    default_nonlinearity: ClassVar[Activation]
    generators: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def shapes(self, layer: Layer, input_size: int) -> Shapes:
        """The layer's parameters, without that of its nonlinearity."""

    @abstractmethod
    def reset_parameters(self, layer: Layer) -> None:
        """Gives the layer's parameters their initial values."""

    @abstractmethod
    def steps(self, layer: Layer, dt: float | Tensor | None = None) -> Steps:
        """The layer's steps of the time dt, None for that of the rule; of a dt for every step, its values are read when
        they are called."""

    def states(
        self, layer: Layer, x: Tensor, h0: Tensor, dt: float | Tensor | None = None, sequence: bool = True
    ) -> Tensor:
        """All states (T, B, n) of the layer on x (T, B, i) from h0 (B, n), or the last (B, n), in the dtype of x."""
        return self.steps(layer, dt)(x, h0, dt if is_per_step(dt) else None, sequence)

    def stream(self, layer: Layer, x: Tensor, h0: Tensor, dt: float | Tensor | None) -> Tensor:
        """`states` on one step (1, B, i) of a stream."""
        return self.states(layer, x, h0, dt)

    def add_layer(
        self, layer: Layer, input_size: int, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> list[str]:
        """Registers the layer's parameters with its module, without values, and returns their names.

        Raises:
            TypeError, ValueError: they do not fit what was given to the module.
        """
        shapes = self.shapes(layer, input_size)
        if has_beta(layer.nonlinearity):
            shapes["beta"] = (layer.hidden_size,)
        for name, shape in shapes.items():
            parameter = nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) if shape else None
            layer.module.register_parameter(name + layer.suffix, parameter)
        return [name + layer.suffix for name, shape in shapes.items() if shape]

    def words(self, nonlinearity: Activation) -> list[str]:
        """What is not the default among the nonlinearity and the rule's own arguments, for the repr of a module."""
        return [] if nonlinearity == self.default_nonlinearity else [f"nonlinearity={nonlinearity!r}"]


def matrix_steps(layer: Layer, M: Tensor, c: Tensor | None, *, orthogonal: bool = False) -> Steps:
    """The steps `h_t = act(M h_{t-1} + U x_t + c)`."""
    U, beta = layer.read("weight_ih"), layer.find("beta")

    def states(x: Tensor, h0: Tensor, dt: Tensor | None = None, sequence: bool = True) -> Tensor:
        reversible = orthogonal and layer.nonlinearity == "identity" and not sequence
        return rounded_once(
            recurrence, x, U, c, M, h0, layer.nonlinearity, beta,
            return_sequence=sequence, reversible=reversible, backend=layer.backend,
        )  # fmt: skip

    return states


@dataclass(frozen=True)
class PlainStep(StepRule):
    """M = weight_hh and c = bias_ih + bias_hh: the parameters of torch.nn.RNN."""

    default_nonlinearity = "tanh"

    def shapes(self, layer: Layer, input_size: int) -> Shapes:
        n = layer.hidden_size
        bias = (n,) if layer.has_bias else None
        return {"weight_ih": (n, input_size), "weight_hh": (n, n), "bias_ih": bias, "bias_hh": bias}

    def reset_parameters(self, layer: Layer) -> None:
        """Draws all from the uniform law on [-1 / sqrt(n), 1 / sqrt(n)]; beta is 0."""
        bound = 1 / math.sqrt(layer.hidden_size)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            parameter = layer.own(name)
            if parameter is not None:
                nn.init.uniform_(parameter, -bound, bound)
        _zero(layer, "beta")

    def steps(self, layer: Layer, dt: float | Tensor | None = None) -> Steps:
        return matrix_steps(layer, layer.read("weight_hh"), self._bias(layer))

    def _bias(self, layer: Layer) -> Tensor | None:
        ih, hh = layer.find("bias_ih"), layer.find("bias_hh")
        if ih is None or hh is None:
            return None
        wide = wider(ih.dtype)
        return ih + hh if wide is None else ih.to(wide) + hh.to(wide)


@dataclass(frozen=True, kw_only=True)
class FieldRule(StepRule):
    """The state flows for a time dt along a vector field on a latent mesh: what both kinds of field share.

    Attributes:
        dt, substeps, init, volume_preserving: as in `vfrnn.VFRNN` and `vfrnn.InputFieldRNN`.
        shares_mesh: whether all layers share the module's `mesh`; otherwise each has a complete one of its own.
    """

    default_nonlinearity = "modrelu"
    generators = ("field", "divergence_scale")

    dt: float = 1.0
    substeps: int | None = None
    init: Init = "henaff"
    volume_preserving: bool = False
    shares_mesh: bool = field(default=True, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.dt, bool) or not isinstance(self.dt, (int, float)):
            raise TypeError(f"dt must be a number, got {type(self.dt).__name__}")
        check_finite("dt", self.dt)
        object.__setattr__(self, "dt", float(self.dt))
        if self.substeps is not None:
            check_positive_int("substeps", self.substeps)
        check_choice("init", self.init, INITS)
        if not isinstance(self.volume_preserving, bool):
            raise TypeError(f"volume_preserving must be a bool, got {type(self.volume_preserving).__name__}")

    def shapes(self, layer: Layer, input_size: int) -> Shapes:
        n, mesh = layer.hidden_size, self.mesh(layer)
        bias = (n,) if layer.has_bias else None
        return {"weight_ih": (n, input_size), "bias": bias, "field": (mesh.m, mesh.d)}

    def reset_parameters(self, layer: Layer) -> None:
        """Draws weight_ih uniformly from [-1 / sqrt(n), 1 / sqrt(n)] and the field by `init`; the others are 0.

        A mesh of the layer's own is complete again. A mesh that was given keeps its values: where `to_empty` has lost
        them, they come from a `state_dict`.
        """
        if not self.shares_mesh:
            self.mesh(layer).reset_parameters()
        bound, U, v = 1 / math.sqrt(layer.hidden_size), layer.own("weight_ih"), layer.own("field")
        if U is not None:
            nn.init.uniform_(U, -bound, bound)
        if v is not None:
            init_field_(v, self.mesh(layer), self.init)
        for name in ("bias", "field_input_weight", "divergence_scale", "beta"):
            _zero(layer, name)

    def add_layer(
        self, layer: Layer, input_size: int, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> list[str]:
        if not self.shares_mesh:
            mesh = LatentMesh.complete(layer.hidden_size, device=device, dtype=dtype)
            layer.module.add_module("mesh" + layer.suffix, mesh)
        names = super().add_layer(layer, input_size, device, dtype)
        check_tensor("mesh.b", self.mesh(layer).b, layer.read("field"), "the parameters")
        return names

    def mesh(self, layer: Layer) -> LatentMesh:
        """The mesh of the layer."""
        return getattr(layer.module, "mesh" if self.shares_mesh else "mesh" + layer.suffix)

    def time(self, dt: float | Tensor | None, v: Tensor) -> float | Tensor:
        """The time of a step: dt if it is given, or the rule's.

        Raises:
            TypeError, ValueError: a tensor that is no number of the dtype and device of the field v.
        """
        if isinstance(dt, Tensor):
            check_tensor("dt", dt, v, "the parameters")
            check_shape("dt", dt, "()", ())
        return self.dt if dt is None else dt

    def words(self, nonlinearity: Activation) -> list[str]:
        values = ((argument, getattr(self, argument.name)) for argument in fields(self) if argument.repr)
        chosen = [f"{argument.name}={value!r}" for argument, value in values if value != argument.default]
        return super().words(nonlinearity) + chosen


@dataclass(frozen=True, kw_only=True)
class FieldStep(FieldRule):
    """A field that is the same in every step: its flow is a matrix M, which all steps of one time share.

    Attributes:
        exp_dtype: as in `vfrnn.VFRNN`.
        divergence: whether the field's divergence acts, times `divergence_scale`; without it M is orthogonal.
    """

    substeps: int = 1
    exp_dtype: torch.dtype | None = None
    divergence: bool = field(default=True, repr=False)

    def __post_init__(self) -> None:
        check_positive_int("substeps", self.substeps)
        super().__post_init__()
        if not any(self.exp_dtype is dtype for dtype in (None, torch.float32, torch.float64)):
            raise ValueError(f"exp_dtype must be torch.float32, torch.float64 or None, got {self.exp_dtype}")

    def shapes(self, layer: Layer, input_size: int) -> Shapes:
        shapes = super().shapes(layer, input_size)
        return {**shapes, "divergence_scale": (1,)} if self.divergence else shapes

    def steps(self, layer: Layer, dt: float | Tensor | None = None) -> Steps:
        """`StepRule.steps`; dt may also be one time for every step, (T,), or every step and sample, (T, B)."""
        if not is_per_step(dt):
            return self.with_matrix(layer, self.matrix(layer, dt))
        S, delta = self._generator(layer, layer.read("field"), None)
        U, c, beta = layer.read("weight_ih"), layer.find("bias"), layer.find("beta")

        def states(x: Tensor, h0: Tensor, dt: Tensor | None = None, sequence: bool = True) -> Tensor:
            return rounded_once(
                spectral_recurrence, x, U, c, S, delta, dt, h0, layer.nonlinearity, beta,
                substeps=self.substeps, return_sequence=sequence, backend=layer.backend,
            )  # fmt: skip

        return states

    def stream(self, layer: Layer, x: Tensor, h0: Tensor, dt: float | Tensor | None) -> Tensor:
        if isinstance(dt, Tensor):
            return self.states(layer, x, h0, dt)
        key = (layer.suffix, self.dt if dt is None else dt, self, layer.backend)
        M = kept_matrix(layer.module, key, lambda: self.matrix(layer, dt))
        return self.with_matrix(layer, M)(x, h0)

    def with_matrix(self, layer: Layer, M: Tensor) -> Steps:
        """`steps` with the step matrix M (n, n)."""
        return matrix_steps(layer, M, layer.find("bias"), orthogonal=not self.divergence)

    def matrix(self, layer: Layer, dt: float | Tensor | None = None) -> Tensor:
        """M (n, n), the flow along the field for a time dt, None for that of the rule; float32 from 16 bits."""
        if isinstance(dt, Tensor):
            return self._matrix(layer, dt)
        time = self.dt if dt is None else dt
        key = (layer.suffix, time, self.substeps, self.volume_preserving, self.exp_dtype, layer.backend)
        return remembered(layer.module, key, lambda: tensors_of(layer.module), lambda: self._matrix(layer, dt))

    def _matrix(self, layer: Layer, dt: float | Tensor | None) -> Tensor:
        v = layer.read("field")
        time = self.time(dt, v)
        S, delta = self._generator(layer, v, self.exp_dtype)
        if isinstance(time, Tensor):
            time = time.to(S.dtype)
        if delta is None:
            M = skew_expm(S, time, backend=layer.backend)
        else:
            M = strang_step(S, delta, time, self.substeps, backend=layer.backend)
        return round_step(M, wider(v.dtype) or v.dtype)

    def _generator(self, layer: Layer, v: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, Tensor | None]:
        """S (n, n) and the scaled delta (n,), None where the divergence does not act; in `dtype` if it is given."""
        wide = wider(v.dtype)
        mesh, v = self.mesh(layer).tensors(wide), v if wide is None else v.to(wide)
        S, delta = field_generator(*mesh, v, backend=layer.backend)
        if dtype is not None:
            S, delta = S.to(dtype), delta.to(dtype)
        if not self.divergence:
            return S, None
        if self.volume_preserving:
            delta = delta - delta.mean()
        return S, delta * layer.read("divergence_scale").to(S.dtype)


@dataclass(frozen=True, kw_only=True)
class InputFieldStep(FieldRule):
    """A field that reads the input, `v_t = v + V x_t`: every step of every sample has its own, and no matrix.

    Attributes:
        substeps: of the flow in every step; None plans them from a bound on v_t.
    """

    def shapes(self, layer: Layer, input_size: int) -> Shapes:
        mesh = self.mesh(layer)
        if mesh.N is None:
            raise ValueError(
                "mesh must have its N and G for a field that reads the input, got a complete mesh: pass its dense()"
            )
        shapes = super().shapes(layer, input_size)
        return {**shapes, "field_input_weight": (mesh.m, mesh.d, input_size), "divergence_scale": (1,)}

    def steps(self, layer: Layer, dt: float | Tensor | None = None) -> Steps:
        U, c, v, V = layer.read("weight_ih"), layer.find("bias"), layer.read("field"), layer.read("field_input_weight")
        beta, scale, time = layer.find("beta"), layer.read("divergence_scale"), self.time(dt, v)
        mesh = self.mesh(layer).tensors(wider(v.dtype))

        def states(x: Tensor, h0: Tensor, dt: Tensor | None = None, sequence: bool = True) -> Tensor:
            return rounded_once(
                flow_recurrence, x, U, c, v, V, *mesh, h0, layer.nonlinearity, beta, time, scale,
                volume_preserving=self.volume_preserving, substeps=self.substeps, return_sequence=sequence,
                backend=layer.backend,
            )  # fmt: skip

        return states


def is_per_step(dt: object) -> TypeGuard[Tensor]:
    """Whether dt has a time for every step, and not one for all."""
    return isinstance(dt, Tensor) and dt.dim() > 0


def check_one_time(dt: object) -> None:
    """dt is one time for all steps, as a field that reads the input needs it.

    Raises:
        ValueError: it has more.
    """
    if isinstance(dt, PackedSequence) or is_per_step(dt):
        shape = tuple((dt.data if isinstance(dt, PackedSequence) else dt).shape)
        raise ValueError(
            "dt must be a number or have shape () where the field reads the input and all steps take the same time, "
            f"got {shape}"
        )


def _zero(layer: Layer, name: str) -> None:
    parameter = layer.own(name)
    if parameter is not None:
        nn.init.zeros_(parameter)
