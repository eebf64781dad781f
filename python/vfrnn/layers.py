"""What networks and cells share: the parameters of a layer, its step matrix and its recurrence (model.md 2 to 4).

A layer's parameters carry a suffix: `_l0`, `_l0_reverse`, ... in a network, none in a cell.
"""

from __future__ import annotations

import math
from typing import TypeGuard

import torch
from torch import Tensor, nn

from vfrnn.init import INITS, Init, init_field_
from vfrnn.mesh import LatentMesh, check_state_version
from vfrnn.rounding import round_step
from vfrnn_kernels import field_generator, flow_recurrence, recurrence, skew_expm, spectral_recurrence, strang_step
from vfrnn_kernels.autocast import autocasts, converted
from vfrnn_kernels.checks import check_choice, check_positive_int, check_shape, check_tensor
from vfrnn_kernels.dispatch import get_backend

SIXTEEN_BITS = (torch.float16, torch.bfloat16)
FIELDS = ("static", "input")
NONLINEARITIES = ("tanh", "relu", "modrelu", "identity")


class Recurrent(nn.Module):
    """Layers `h_t = act(M h_{t-1} + U x_t + c)`; a subclass says what M and c are made of."""

    _version = 1
    orthogonal = False  # whether every step matrix is

    def __init__(
        self, input_size: int, hidden_size: int, nonlinearity: str, has_bias: bool, backend: str | None
    ) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            check_size(name, size)
        if nonlinearity not in NONLINEARITIES:
            raise ValueError(
                f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh', 'relu', 'modrelu' or 'identity'."
            )
        if backend is not None:
            get_backend(backend)
        self.input_size, self.hidden_size = input_size, hidden_size
        self.nonlinearity, self.has_bias, self.backend = nonlinearity, bool(has_bias), backend
        self.suffixes: list[str] = []
        self.weight_names: list[list[str]] = []  # of the parameters, for every suffix

    def _add_layer(
        self, input_size: int, suffix: str, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        self.suffixes.append(suffix)
        shapes = self._shapes(input_size)
        if self.nonlinearity == "modrelu":
            shapes["beta"] = (self.hidden_size,)
        for name, shape in shapes.items():
            self.register_parameter(
                name + suffix, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) if shape else None
            )
        self.weight_names.append([name + suffix for name, shape in shapes.items() if shape])

    def _shapes(self, input_size: int) -> dict[str, tuple[int, ...] | None]:
        """Names and shapes of a layer's parameters; None for one that is absent."""
        raise NotImplementedError

    def _bias(self, suffix: str) -> Tensor | None:
        raise NotImplementedError

    def _matrix(self, suffix: str, dt: float | Tensor | None) -> Tensor:
        raise NotImplementedError

    def _layer(self, x: Tensor, h0: Tensor, dt: float | Tensor | None, suffix: str, sequence: bool = True) -> Tensor:
        """All states (T, B, n) of the layer on x (T, B, i) with steps of time dt, or the last (B, n)."""
        return self._states(x, h0, self._matrix(suffix, dt), suffix, sequence)

    def _states(self, x: Tensor, h0: Tensor, M: Tensor, suffix: str, sequence: bool = True) -> Tensor:
        """All states (T, B, n) of the layer on x (T, B, i), or the last (B, n)."""
        U, beta = getattr(self, "weight_ih" + suffix), getattr(self, "beta" + suffix, None)
        c, dtype = self._bias(suffix), x.dtype
        if dtype in SIXTEEN_BITS:
            computed = torch.float32 if x.device.type in ("cpu", "meta") else dtype
            x, U, c, M, h0, beta = converted(computed, x, U, c, M, h0, beta)
        reversible = self.orthogonal and self.nonlinearity == "identity" and not sequence
        hs = recurrence(
            x, U, c, M, h0, self.nonlinearity, beta,  # type: ignore[arg-type]
            return_sequence=sequence, reversible=reversible, backend=self.backend,
        )  # fmt: skip
        return hs.to(dtype)

    def _dtype(self) -> torch.dtype:
        """Of the parameters."""
        # A parametrized one is no parameter of this module, and reading it would compute it.
        for parameter in self._parameters.values():
            if parameter is not None:
                return parameter.dtype
        return next(self.parameters()).dtype

    def _check_dtype(self, name: str, value: Tensor) -> None:
        """The value has the dtype of the parameters, or autocast is on."""
        dtype = self._dtype()
        if value.dtype != dtype and not autocasts(value.device.type):
            raise ValueError(
                f"{type(self).__name__} {name} dtype ({value.dtype}) does not match weight dtype ({dtype}). "
                f"Convert {name}: {name}.to({dtype}), or convert model: model.to({value.dtype})"
            )

    def _load_from_state_dict(self, state_dict: object, prefix: str, local_metadata: dict, *args: object) -> None:
        check_state_version(self, local_metadata)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


class PlainRecurrent(Recurrent):
    """M = weight_hh and c = bias_ih + bias_hh: the parameters of torch.nn.RNN."""

    def _shapes(self, input_size: int) -> dict[str, tuple[int, ...] | None]:
        n = self.hidden_size
        bias = (n,) if self.has_bias else None
        return {"weight_ih": (n, input_size), "weight_hh": (n, n), "bias_ih": bias, "bias_hh": bias}

    def reset_parameters(self) -> None:
        """Draws every parameter from the uniform law on [-1 / sqrt(hidden_size), 1 / sqrt(hidden_size)]; beta is 0."""
        bound = 1 / math.sqrt(self.hidden_size)
        for name, parameter in self.named_parameters(recurse=False):
            if name.startswith("beta"):
                nn.init.zeros_(parameter)
            else:
                nn.init.uniform_(parameter, -bound, bound)

    def _bias(self, suffix: str) -> Tensor | None:
        if not self.has_bias:
            return None
        biases = getattr(self, "bias_ih" + suffix), getattr(self, "bias_hh" + suffix)
        return sum(converted(torch.float32, *biases) if biases[0].dtype in SIXTEEN_BITS else biases)

    def _matrix(self, suffix: str, dt: float | Tensor | None) -> Tensor:
        return getattr(self, "weight_hh" + suffix)


class FieldRecurrent(Recurrent):
    """M is the flow, over a time dt, of a vector field on a latent mesh."""

    field_kind = "static"  # or "input": a field of its own for every step and sample

    def _set_field(
        self,
        mesh: LatentMesh | None,
        dt: float,
        substeps: int | None,
        init: Init,
        volume_preserving: bool,
        exp_dtype: torch.dtype | None,
        field: str = "static",
    ) -> None:
        if mesh is not None and not isinstance(mesh, LatentMesh):
            raise TypeError(f"mesh must be a LatentMesh, got {type(mesh).__name__}")
        if mesh is not None and mesh.n != self.hidden_size:
            raise ValueError(f"mesh must have n = hidden_size = {self.hidden_size} nodes, got {mesh.n}")
        if isinstance(dt, bool) or not isinstance(dt, (int, float)):
            raise TypeError(f"dt must be a number, got {type(dt).__name__}")
        if not math.isfinite(dt):
            raise ValueError(f"dt must be finite, got {dt}")
        if substeps is not None:
            check_positive_int("substeps", substeps)
        check_choice("init", init, INITS)
        if not isinstance(volume_preserving, bool):
            raise TypeError(f"volume_preserving must be a bool, got {type(volume_preserving).__name__}")
        if exp_dtype not in (None, torch.float32, torch.float64):
            raise ValueError(f"exp_dtype must be torch.float32, torch.float64 or None, got {exp_dtype}")
        check_choice("field", field, FIELDS)
        if field == "input":
            _check_input_field(mesh, exp_dtype)
        elif substeps is None:
            substeps = 1
        self.dt, self.substeps, self.init, self.field_kind = float(dt), substeps, init, field
        self.volume_preserving, self.exp_dtype = volume_preserving, exp_dtype
        self.shares_mesh = mesh is not None
        if mesh is not None:
            self.mesh = mesh

    def _shapes(self, input_size: int) -> dict[str, tuple[int, ...] | None]:
        n = self.hidden_size
        mesh = self._mesh(self.suffixes[-1])
        shapes: dict[str, tuple[int, ...] | None] = {
            "weight_ih": (n, input_size),
            "bias": (n,) if self.has_bias else None,
            "field": (mesh.m, mesh.d),
        }
        if self.field_kind == "input":
            shapes["field_input_weight"] = (mesh.m, mesh.d, input_size)
        return shapes if self.orthogonal else {**shapes, "divergence_scale": (1,)}

    def _add_layer(
        self, input_size: int, suffix: str, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        if not self.shares_mesh:
            mesh = LatentMesh.complete(self.hidden_size, device=device, dtype=dtype)
            self.add_module("mesh" + suffix, mesh)
        super()._add_layer(input_size, suffix, device, dtype)
        check_tensor("mesh.b", self._mesh(suffix).b, getattr(self, "field" + suffix), "the parameters")

    def _mesh(self, suffix: str) -> LatentMesh:
        return self.mesh if self.shares_mesh else getattr(self, "mesh" + suffix)

    def reset_parameters(self) -> None:
        """Draws weight_ih uniformly from [-1 / sqrt(n), 1 / sqrt(n)] and the field by `init`; the others are 0.

        Meshes of its own are complete again. A mesh that was given keeps its values: where `to_empty` has lost them,
        they come from a `state_dict`.
        """
        bound = 1 / math.sqrt(self.hidden_size)
        for suffix in self.suffixes:
            if not self.shares_mesh:
                self._mesh(suffix).reset_parameters()
            nn.init.uniform_(getattr(self, "weight_ih" + suffix), -bound, bound)
            init_field_(getattr(self, "field" + suffix), self._mesh(suffix), self.init)
            for name in ("bias", "field_input_weight", "divergence_scale", "beta"):
                parameter = getattr(self, name + suffix, None)
                if parameter is not None:
                    nn.init.zeros_(parameter)

    def _bias(self, suffix: str) -> Tensor | None:
        return getattr(self, "bias" + suffix)

    def _layer(self, x: Tensor, h0: Tensor, dt: float | Tensor | None, suffix: str, sequence: bool = True) -> Tensor:
        if self.field_kind == "static":
            if is_per_step(dt):
                return self._irregular(x, h0, dt, suffix, sequence)
            return super()._layer(x, h0, dt, suffix, sequence)
        if is_per_step(dt):
            raise ValueError(f"dt must be a number or have shape () with field='input', got {tuple(dt.shape)}")
        dtype = x.dtype
        U, v, V, scale = (
            getattr(self, name + suffix) for name in ("weight_ih", "field", "field_input_weight", "divergence_scale")
        )
        dt, c, beta = self._time(suffix, dt), self._bias(suffix), getattr(self, "beta" + suffix, None)
        mesh = self._mesh(suffix).tensors(torch.float32 if dtype in SIXTEEN_BITS else None)
        if dtype in SIXTEEN_BITS:
            # A flow in 16 bits would lose its length within some hundred steps.
            x, h0, U, c, v, V, beta, dt, scale = converted(torch.float32, x, h0, U, c, v, V, beta, dt, scale)
        hs = flow_recurrence(
            x, U, c, v, V, *mesh, h0, self.nonlinearity, beta, dt, scale,  # type: ignore[arg-type]
            volume_preserving=self.volume_preserving, substeps=self.substeps, return_sequence=sequence,
            backend=self.backend,
        )  # fmt: skip
        return hs.to(dtype)

    def _irregular(self, x: Tensor, h0: Tensor, dt: Tensor, suffix: str, sequence: bool) -> Tensor:
        """All states, or the last, with steps of the times dt (T,) or (T, B)."""
        U, c, beta = getattr(self, "weight_ih" + suffix), self._bias(suffix), getattr(self, "beta" + suffix, None)
        S, delta = self._generator(suffix, None)
        dtype = x.dtype
        if dtype in SIXTEEN_BITS:
            x, h0, U, c, beta, dt = converted(torch.float32, x, h0, U, c, beta, dt)
        assert self.substeps is not None  # only for a field that reads the input
        hs = spectral_recurrence(
            x, U, c, S, delta, dt, h0, self.nonlinearity, beta,  # type: ignore[arg-type]
            substeps=self.substeps, return_sequence=sequence, backend=self.backend,
        )  # fmt: skip
        return hs.to(dtype)

    def _time(self, suffix: str, dt: float | Tensor | None) -> float | Tensor:
        """The time of a step: that given, or the constructor's."""
        if isinstance(dt, Tensor):
            check_tensor("dt", dt, getattr(self, "field" + suffix), "the parameters")
            check_shape("dt", dt, "()", ())
        return self.dt if dt is None else dt

    def _matrix(self, suffix: str, dt: float | Tensor | None) -> Tensor:
        if self.field_kind == "input":
            raise ValueError("field must be 'static' for a step matrix, got 'input': every step has its own field")
        dt, dtype = self._time(suffix, dt), getattr(self, "field" + suffix).dtype
        S, delta = self._generator(suffix, self.exp_dtype)
        if isinstance(dt, Tensor):
            dt = dt.to(S.dtype)
        if delta is None:
            M = skew_expm(S, dt, backend=self.backend)
        else:
            assert self.substeps is not None  # only for a field that reads the input
            M = strang_step(S, delta, dt, self.substeps, backend=self.backend)
        return round_step(M, torch.float32 if dtype in SIXTEEN_BITS else dtype)

    def _generator(self, suffix: str, dtype: torch.dtype | None) -> tuple[Tensor, Tensor | None]:
        """S (n, n) and delta (n,), None where there is no divergence, in `dtype` if it is given."""
        field, mesh = getattr(self, "field" + suffix), self._mesh(suffix)
        if field.dtype in SIXTEEN_BITS:
            # A rotation in 16 bits would lose its length within some hundred steps: the generator is float32.
            field, tensors = field.float(), mesh.tensors(torch.float32)
        else:
            tensors = mesh.tensors()
        S, delta = field_generator(*tensors, field, backend=self.backend)
        if dtype is not None:
            S, delta = S.to(dtype), delta.to(dtype)
        if self.orthogonal:
            return S, None
        if self.volume_preserving:
            delta = delta - delta.mean()
        return S, delta * getattr(self, "divergence_scale" + suffix).to(S.dtype)

    def _field_repr(self) -> str:
        words = [] if self.field_kind == "static" else [f"field={self.field_kind}"]
        words += [] if self.dt == 1 else [f"dt={self.dt}"]
        default = 1 if self.field_kind == "static" else None
        words += [] if self.orthogonal or self.substeps == default else [f"substeps={self.substeps}"]
        words += [] if self.init == "henaff" else [f"init={self.init}"]
        words += ["volume_preserving=True"] if self.volume_preserving else []
        words += [] if self.exp_dtype is None else [f"exp_dtype={self.exp_dtype}"]
        return "".join(f", {word}" for word in words)


def _check_input_field(mesh: LatentMesh | None, exp_dtype: torch.dtype | None) -> None:
    """What a field that reads the input needs.

    Raises:
        ValueError: it is not there.
    """
    if mesh is None:
        raise ValueError(
            "mesh must be given with field='input', such as LatentMesh.random(hidden_size, cells=64, dim=2), got None"
        )
    if mesh.N is None:
        raise ValueError("mesh must have its N and G with field='input', got a complete mesh: pass its dense()")
    if exp_dtype is not None:
        raise ValueError(f"exp_dtype must be None with field='input', which takes no exponential, got {exp_dtype}")


def is_per_step(dt: object) -> TypeGuard[Tensor]:
    """Whether dt has a time for every step, and not one for all."""
    return isinstance(dt, Tensor) and dt.dim() > 0


def check_size(name: str, size: object) -> None:
    """A size as torch.nn.RNN wants it.

    Raises:
        TypeError: it is no int.
        ValueError: it is below 1.
    """
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"{name} should be of type int, got: {type(size).__name__}")
    if size <= 0:
        raise ValueError(f"{name} must be greater than zero")
