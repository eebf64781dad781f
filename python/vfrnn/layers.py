"""What networks and cells share: layers whose parameters they hold and whose step rule they ask for the states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from vfrnn.mesh import LatentMesh, check_state_version
from vfrnn.passes import Remembering
from vfrnn.regularization import StateNoise, check_probability
from vfrnn.steps import Layer, StepRule
from vfrnn_kernels.activations import ACTIVATIONS, Activation
from vfrnn_kernels.autocast import autocasts
from vfrnn_kernels.checks import LARGEST_SIZE, check_dtype, check_positive_int
from vfrnn_kernels.dispatch import get_backend

#: Names in the checkpoints of expRNN's code, of its first version and of later ones.
_EXPRNN = ("log_recurrent_kernel", "recurrent_kernel.A")


def rule_argument(name: str) -> Any:
    """An argument of a module's step rule as an attribute of the module, to be read and set; setting checks it."""

    def get(module: Recurrent) -> Any:
        return getattr(module.rule, name)

    def set(module: Recurrent, value: Any) -> None:
        module.rule = replace(module.rule, **{name: value})

    return property(get, set)


class Recurrent(Remembering):
    """Recurrent layers that step by one rule.

    Attributes:
        rule: the `StepRule`. It is replaced and never changed: a copy of the module may share it.
        suffixes: of the layers' parameters, in order.
        weight_names: for every suffix, the names of the parameters.
        recurrent_dropout, zoneout: probabilities of `StateNoise`; they can be set.
    """

    _version = 1
    #: What is added to a hook that reads the layer's gradients (privacy.py): `(layer, hook, its handle) -> handle`.
    _watch: ClassVar[Callable[[Any, Any, RemovableHandle], Any] | None] = None
    rule: StepRule
    recurrent_dropout: float = 0.0  # of a module that was pickled before there was any
    zoneout: float = 0.0

    def __init__(
        self,
        rule: StepRule,
        input_size: int,
        hidden_size: int,
        *,
        nonlinearity: Activation,
        bias: bool,
        backend: str | None,
        mesh: LatentMesh | None = None,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            check_size(name, size)
        if not isinstance(nonlinearity, str) or nonlinearity not in ACTIVATIONS:
            names = [repr(activation) for activation in ACTIVATIONS]
            raise ValueError(
                f"Unknown nonlinearity '{nonlinearity}'. Select from {', '.join(names[:-1])} or {names[-1]}."
            )
        if backend is not None:
            get_backend(backend)
        self.rule = rule
        self.input_size, self.hidden_size = input_size, hidden_size
        self.nonlinearity, self.has_bias, self.backend = nonlinearity, bool(bias), backend
        self.recurrent_dropout = check_probability("recurrent_dropout", recurrent_dropout)
        self.zoneout = check_probability("zoneout", zoneout)
        self.suffixes: list[str] = []
        self.weight_names: list[list[str]] = []
        if mesh is not None:
            check_mesh_of(mesh, hidden_size)
            self.mesh = mesh

    def _add_layer(
        self, input_size: int, suffix: str, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        check_dtype("dtype", dtype)
        self.suffixes.append(suffix)
        self.weight_names.append(self.rule.add_layer(self._layer(suffix), input_size, device, dtype))

    def _layer(self, suffix: str) -> Layer:
        return Layer(self, suffix, self.hidden_size, self.has_bias, self.nonlinearity, self.backend)

    def _noise(self) -> StateNoise:
        return StateNoise(self.recurrent_dropout, self.zoneout, self.training)

    def __repr__(self) -> str:
        """The call that makes such a module, to be pasted: arguments that are not the default, but for device and
        dtype. Where a mesh was given that no call of `LatentMesh` makes, its sizes stand in its place."""
        if all(isinstance(child, LatentMesh) for child in self.children()):
            return f"{self._get_name()}({self.extra_repr()})"
        return super().__repr__()  # parametrized: what computes the weights is shown

    def register_full_backward_hook(self, hook: Any, prepend: bool = False) -> Any:
        """torch.nn.Module's. What Opacus' hooks do not see is refused as long as they are there (`vfrnn.privacy`)."""
        handle = super().register_full_backward_hook(hook, prepend)
        return handle if Recurrent._watch is None else Recurrent._watch(self, hook, handle)

    def _words(self) -> list[str]:
        """Of the repr, what all modules share."""
        named = (("recurrent_dropout", self.recurrent_dropout), ("zoneout", self.zoneout))
        words = [f"{name}={value}" for name, value in named if value]
        words += [] if self.backend is None else [f"backend={self.backend!r}"]
        mesh = self._modules.get("mesh")
        words += [f"mesh={mesh!r}"] if mesh is not None and getattr(self.rule, "shares_mesh", False) else []
        return self.rule.words(self.nonlinearity) + words

    def reset_parameters(self) -> None:
        """Gives the parameters initial values again, drawn or 0 as the class says of each.

        A mesh that a layer made for itself is complete again. A mesh that was given keeps its values: where `to_empty`
        has lost them, they come from a `state_dict`.
        """
        for suffix in self.suffixes:
            self.rule.reset_parameters(self._layer(suffix))

    def _weight(self) -> Tensor:
        """A tensor with the dtype and device of the parameters."""
        # A parametrized one is no parameter of this module, and reading it would compute it.
        for parameter in self._parameters.values():
            if parameter is not None:
                return parameter
        # A replica of torch.nn.DataParallel has tensors in the place of parameters.
        parameter = next(self.parameters(), None)
        return getattr(self, self.weight_names[0][0]) if parameter is None else parameter

    def _dtype(self) -> torch.dtype:
        """Of the parameters."""
        return self._weight().dtype

    def _check_dtype(self, name: str, value: Tensor) -> None:
        """The value is where the parameters are, and has their dtype, or autocast is on."""
        weight, dtype = self._weight(), self._dtype()
        if value.device != weight.device:
            wanted = f"{type(self).__name__} {name} must be on the device of the parameters, {weight.device}"
            raise ValueError(f"{wanted}, got {value.device}")
        if value.dtype != dtype and not autocasts(value.device.type):
            raise ValueError(
                f"{type(self).__name__} {name} dtype ({value.dtype}) does not match weight dtype ({dtype}). "
                f"Convert {name}: {name}.to({dtype}), or convert model: model.to({value.dtype})"
            )

    def _load_from_state_dict(self, state_dict: object, prefix: str, local_metadata: dict, *args: object) -> None:
        check_state_version(self, local_metadata)
        if isinstance(state_dict, dict) and any(f"{prefix}{name}" in state_dict for name in _EXPRNN):
            raise RuntimeError(
                f"state_dict of {type(self).__name__} has the parameters of expRNN's code, whose matrix acts from the "
                'right: "From expRNN" in docs/how-to/migration.md reads them'
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


def check_size(name: str, size: object, most: int = LARGEST_SIZE) -> None:
    """A size as torch.nn.RNN wants it.

    Raises:
        TypeError: it is no int.
        ValueError: it is below 1 or above `most`.
    """
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"{name} should be of type int, got: {type(size).__name__}")
    if size <= 0:
        raise ValueError(f"{name} must be greater than zero")
    check_positive_int(name, size, most)


def check_mesh_of(mesh: LatentMesh, hidden_size: int) -> None:
    """A mesh on which states of that size are functions.

    Raises:
        TypeError: it is no `LatentMesh`.
        ValueError: it has another number of nodes.
    """
    if not isinstance(mesh, LatentMesh):
        raise TypeError(f"mesh must be a LatentMesh, got {type(mesh).__name__}")
    if mesh.n != hidden_size:
        raise ValueError(f"mesh must have n = hidden_size = {hidden_size} nodes, got {mesh.n}")
