"""RNN, VFRNN and OrthogonalRNN: whole sequences, several layers, one or two directions, as torch.nn.RNN."""

from __future__ import annotations

import numbers
import warnings
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from vfrnn.init import Init
from vfrnn.layers import FieldRecurrent, PlainRecurrent, Recurrent, check_size
from vfrnn.mesh import LatentMesh

Nonlinearity = Literal["tanh", "relu", "modrelu", "identity"]


class Network(Recurrent):
    """Recurrent layers over sequences: shapes, directions, dropout and messages are those of torch.nn.RNN."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        nonlinearity: str,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        backend: str | None,
    ) -> None:
        if isinstance(dropout, bool) or not isinstance(dropout, numbers.Real) or not 0 <= dropout <= 1:
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an element being zeroed"
            )
        if not isinstance(batch_first, bool):
            raise TypeError(f"batch_first should be of type bool, got: {type(batch_first).__name__}")
        if not isinstance(bidirectional, bool):
            raise TypeError(f"bidirectional should be of type bool, got: {type(bidirectional).__name__}")
        check_size("num_layers", num_layers)
        super().__init__(input_size, hidden_size, nonlinearity, bias, backend)
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
                stacklevel=3,
            )
        self.num_layers, self.bias, self.batch_first = num_layers, bias, batch_first
        self.dropout, self.bidirectional = float(dropout), bidirectional

    def _add_layers(self, device: object, dtype: torch.dtype | None) -> None:
        for layer in range(self.num_layers):
            for reverse in range(1 + self.bidirectional):
                input_size = self.input_size if layer == 0 else self.hidden_size * (1 + self.bidirectional)
                self._add_layer(input_size, _suffix(layer, bool(reverse)), device, dtype)

    def forward(
        self, input: Tensor, hx: Tensor | None = None, *, dt: float | Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Runs the layers over the sequence.

        Args:
            input: (T, B, input_size), (B, T, input_size) with `batch_first`, or unbatched (T, input_size).
            hx: (num_layers * directions, B, hidden_size), unbatched without B: the first states; zero if not given.
            dt: of the fields' flows (a number or a zero-dimensional tensor); replaces the constructor's.

        Returns:
            output, shaped as the input with directions * hidden_size features: the last layer's states; and h_n,
            shaped as hx: every layer's last state.

        Raises:
            TypeError, ValueError, RuntimeError: an argument has the wrong type, dtype or shape, in torch.nn.RNN's words.
        """
        x, h0, batched = self._checked(input, hx)
        last = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = F.dropout(x, self.dropout, self.training)
            directions = []
            for reverse in (False, True)[: 1 + self.bidirectional]:
                suffix = _suffix(layer, reverse)
                M = self._matrix(suffix, dt)
                hs = self._states(x.flip(0) if reverse else x, h0[len(last)], M, suffix)
                last.append(hs[-1])
                directions.append(hs.flip(0) if reverse else hs)
            x = torch.cat(directions, -1) if self.bidirectional else directions[0]
        h_n = torch.stack(last)
        if not batched:
            return x.squeeze(1), h_n.squeeze(1)
        return (x.transpose(0, 1) if self.batch_first else x), h_n

    def _checked(self, input: Tensor, hx: Tensor | None) -> tuple[Tensor, Tensor, bool]:
        """Input (T, B, i), first states (layers * directions, B, n), and whether there was a batch."""
        name = type(self).__name__
        if isinstance(input, PackedSequence):
            raise TypeError(
                f"{name}: input must be a tensor, got a PackedSequence; pad it with torch.nn.utils.rnn.pad_packed_sequence"
            )
        for argument, value in (("input", input), ("hx", hx)):
            if not isinstance(value, Tensor) and not (argument == "hx" and value is None):
                raise TypeError(f"{name}: {argument} must be a tensor, got {type(value).__name__}")
        if input.dim() not in (2, 3):
            raise ValueError(f"{name}: Expected input to be 2D or 3D, got {input.dim()}D tensor instead")
        batched = input.dim() == 3
        if hx is not None and hx.dim() != input.dim():
            kind, rank = ("batched", 3) if batched else ("unbatched", 2)
            raise RuntimeError(f"For {kind} {rank}-D input, hx should also be {rank}-D but got {hx.dim()}-D tensor")
        input = self._as_weights(input)
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.shape[-1]}"
            )
        x = input.unsqueeze(1) if not batched else input.transpose(0, 1) if self.batch_first else input
        expected = (self.num_layers * (1 + self.bidirectional), x.shape[1], self.hidden_size)
        if hx is None:
            hx = x.new_zeros(expected)
        elif not batched:
            hx = hx.unsqueeze(1)
        if tuple(hx.shape) != expected:
            raise RuntimeError(f"Expected hidden size {expected}, got {list(hx.shape)}")
        if x.shape[0] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        return x, hx.to(x.dtype) if torch.is_autocast_enabled(x.device.type) else hx, batched

    def extra_repr(self) -> str:
        words = [f"{self.input_size}, {self.hidden_size}"]
        words += [] if self.num_layers == 1 else [f"num_layers={self.num_layers}"]
        words += [f"bias={self.bias}"] if not self.bias else []
        words += ["batch_first=True"] if self.batch_first else []
        words += [] if self.dropout == 0 else [f"dropout={self.dropout}"]
        words += ["bidirectional=True"] if self.bidirectional else []
        words += [f"backend={self.backend}"] if self.backend is not None else []
        return ", ".join(words)


class FieldNetwork(FieldRecurrent, Network):
    """A network whose step matrices are flows of vector fields."""

    def step_matrix(self, layer: int = 0, reverse: bool = False, *, dt: float | Tensor | None = None) -> Tensor:
        """M (n, n) of a layer and direction, differentiable; `dt` replaces the constructor's.

        Raises:
            ValueError: there is no such layer or direction.
        """
        suffix = _suffix(layer, reverse)
        if suffix not in self.suffixes:
            raise ValueError(
                f"layer must be below num_layers = {self.num_layers} and reverse needs bidirectional=True, "
                f"got layer={layer}, reverse={reverse}"
            )
        return self._matrix(suffix, dt)

    def extra_repr(self) -> str:
        nonlinearity = "" if self.nonlinearity == "modrelu" else f", nonlinearity={self.nonlinearity}"
        return super().extra_repr() + nonlinearity + self._field_repr()


class RNN(PlainRecurrent, Network):
    r"""An Elman RNN: torch.nn.RNN on this package's recurrence.

    .. math:: h_t = \mathrm{act}(W_{hh} h_{t-1} + b_{hh} + W_{ih} x_t + b_{ih})

    Constructor, parameter names and their random initialisation, shapes and results are those of torch.nn.RNN; a
    `state_dict` of one loads into the other. Double backward is correct, not optimised.

    Args:
        input_size, hidden_size: numbers of features of x and h.
        num_layers: layers; each reads the states of the one before.
        nonlinearity: "tanh", "relu", and beyond torch.nn.RNN "modrelu" (with a learned `beta_l0` (n,), first 0) and
            "identity".
        bias: whether there are biases.
        batch_first: sequences are (B, T, features) instead of (T, B, features).
        dropout: probability of zeroing a state between layers, in training.
        bidirectional: a second set of layers reads the sequence backwards.
        device, dtype: of the parameters.
        backend: of the ops, see `vfrnn_kernels`; None is the first that serves.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Example:
        >>> output, h_n = RNN(10, 20, 2)(torch.randn(5, 3, 10))
        >>> tuple(output.shape), tuple(h_n.shape)
        ((5, 3, 20), (2, 3, 20))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Nonlinearity = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional, backend
        )
        self._add_layers(device, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(input, hx)

    forward.__doc__ = Network.forward.__doc__


class VFRNN(FieldNetwork):
    r"""A vector-field RNN: the hidden state flows along a learned vector field on a latent mesh.

    .. math:: h_t = \mathrm{act}(M h_{t-1} + U x_t + c), \quad
        M = (e\, \exp(dt\, S / k)\, e)^k, \quad e = \exp(-dt\, \delta / (4 k))

    S, skew-symmetric, and delta are the generator and the divergence of the field (`field_generator`), delta times
    `divergence_scale`. At divergence_scale 0, where it starts, M is orthogonal; at 1 it is the flow of the field. M is
    computed once per forward pass, layer and direction. Inside the network h is `B^1/2 f` for a function f on the mesh.

    M is orthogonal up to rounding only, and the error of a rotation's modulus compounds: over 10^5 and more steps in
    float32 the norm of h drifts, by up to some percent. `exp_dtype=torch.float64` computes the exponential in float64
    and rounds M once: the drift over 10^5 steps stays below 10^-3, for the price of one float64 exponential per
    forward pass. The recurrence itself keeps the dtype of the weights.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype, backend: as `RNN`.
        nonlinearity: "modrelu" (`sign(z) relu(|z| + beta)`), "tanh", "relu" or "identity".
        mesh: a `LatentMesh` with hidden_size nodes, shared by all layers and directions. None gives each one a
            complete mesh of its own, whose fields reach every skew-symmetric S.
        dt: duration of a step.
        substeps: k.
        init: of the rotation angles per unit of time: "henaff" (uniform in [-pi, pi]), "cayley" (as in scoRNN) or
            "zero" (`vfrnn.init`); on a general mesh the field that fits them best.
        volume_preserving: removes the mean of delta, so that det M = 1.
        exp_dtype: torch.float64 computes M in float64 and rounds it; None computes it in `dtype`.

    Attributes:
        weight_ih_l[k], with `_reverse` for the second direction: (n, input size of the layer), uniform in
            [-1 / sqrt(n), 1 / sqrt(n)] at first.
        bias_l[k]: (n,), first 0.
        field_l[k]: (m, d), by `init`.
        divergence_scale_l[k]: (1,), first 0.
        beta_l[k]: (n,), only for "modrelu", first 0.
        mesh, or mesh_l[k]: the meshes.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Source: Azencot et al. 2021 (arXiv 2102.09589); the discrete form is this project's. Double backward is correct,
    not optimised.

    Example:
        >>> output, h_n = VFRNN(10, 20)(torch.randn(5, 3, 10))
        >>> tuple(output.shape), tuple(h_n.shape)
        ((5, 3, 20), (1, 3, 20))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Nonlinearity = "modrelu",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        mesh: LatentMesh | None = None,
        dt: float = 1.0,
        substeps: int = 1,
        init: Init = "henaff",
        volume_preserving: bool = False,
        exp_dtype: torch.dtype | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional, backend
        )
        self._set_field(mesh, dt, substeps, init, volume_preserving, exp_dtype)
        self._add_layers(device, dtype)
        self.reset_parameters()


class OrthogonalRNN(FieldNetwork):
    r"""An orthogonal RNN (expRNN): a `VFRNN` whose divergence is fixed at 0.

    .. math:: h_t = \mathrm{act}(M h_{t-1} + U x_t + c), \quad M = \exp(dt\, S)

    Arguments, parameters and the remark on rounding are those of `VFRNN`, without `divergence_scale`, `substeps` and
    `volume_preserving`. On any mesh only S is used and delta is ignored: where a field has a divergence, the constant
    function is then not kept, `M B^1/2 1 != B^1/2 1`.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Source: Lezcano-Casado, Martinez-Rubio 2019 (arXiv 1901.08428).

    Example:
        >>> M = OrthogonalRNN(10, 20, dtype=torch.float64).step_matrix()
        >>> torch.allclose(M @ M.T, torch.eye(20, dtype=torch.float64))
        True
    """

    divergence_free = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Nonlinearity = "modrelu",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        mesh: LatentMesh | None = None,
        dt: float = 1.0,
        init: Init = "henaff",
        exp_dtype: torch.dtype | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional, backend
        )
        self._set_field(mesh, dt, 1, init, False, exp_dtype)
        self._add_layers(device, dtype)
        self.reset_parameters()


def _suffix(layer: int, reverse: bool) -> str:
    return f"_l{layer}_reverse" if reverse else f"_l{layer}"
