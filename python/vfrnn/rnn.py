"""RNN, VFRNN and OrthogonalRNN: whole sequences, several layers, one or two directions, as torch.nn.RNN."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from vfrnn.init import Init
from vfrnn.layers import PlainRecurrent
from vfrnn.mesh import LatentMesh
from vfrnn.network import FieldNetwork, Network

Nonlinearity = Literal["tanh", "relu", "modrelu", "identity"]
FieldKind = Literal["static", "input"]


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
        device, dtype: of the parameters. With 16-bit ones the CPU computes in float32, from copies made for the call,
            and rounds the states of each layer: exact to one rounding, at float32's speed.
        proj_size: torch.nn.RNN's: any value is refused, projections are for LSTM.
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
        proj_size: int | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            nonlinearity,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            backend,
        )
        self._add_layers(device, dtype)
        self.reset_parameters()

    @property
    def mode(self) -> str:
        """The nonlinearity in torch.nn.RNN's words, such as "RNN_TANH"."""
        return f"RNN_{self.nonlinearity.upper()}"

    def forward(  # type: ignore[override]
        self, input: Tensor | PackedSequence, hx: Tensor | None = None, *, return_sequence: bool = True
    ) -> tuple[Any, Tensor]:
        return super().forward(input, hx, return_sequence=return_sequence)

    forward.__doc__ = Network.forward.__doc__

    def step(self, input: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """One time step, for a stream: `Network.step` without dt."""
        return super().step(input, state)


class VFRNN(FieldNetwork):
    r"""A vector-field RNN: the hidden state flows along a learned vector field on a latent mesh.

    .. math:: h_t = \mathrm{act}(M h_{t-1} + U x_t + c), \quad
        M = (e\, \exp(dt\, S / k)\, e)^k, \quad e = \exp(-dt\, \delta / (4 k))

    S, skew-symmetric, and delta are the generator and the divergence of the field (`field_generator`), delta times
    `divergence_scale`. At divergence_scale 0, where it starts, M is orthogonal; at 1 it is the flow of the field. M is
    computed once per forward pass, layer and direction. Inside the network h is `B^1/2 f` for a function f on the mesh.

    M is orthogonal up to rounding only, and the error of a rotation's modulus compounds: over 10^5 and more steps in
    float32 the norm of h drifts, by up to some percent. `exp_dtype=torch.float64` computes the exponential in float64
    and rounds M once, so that it keeps lengths best (`vfrnn.rounding`): the drift over 10^5 steps stays below 10^-3,
    for the price of one float64 exponential per forward pass. The recurrence itself keeps the dtype of the weights.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype,
            backend: as in `RNN`.
        nonlinearity: "modrelu" (`sign(z) relu(|z| + beta)`), "tanh", "relu" or "identity".
        mesh: a `LatentMesh` with hidden_size nodes, shared by all layers and directions. None gives each one a
            complete mesh of its own, whose fields reach every skew-symmetric S.
        dt: duration of a step.
        field: "static", the same in every step, or "input": `v_t = v + V x_t`, a field of its own for every step and
            sample, along which the state is moved without a matrix (`flow_recurrence`). It needs a mesh with N and G.
        substeps: k; None is 1 for a static field, and planned from a bound on v_t for one that reads the input.
        init: of the rotation angles per unit of time: "henaff" (uniform in [-pi, pi]), "cayley" (as in scoRNN) or
            "zero" (`vfrnn.init`); on a general mesh the field that fits them best.
        volume_preserving: removes the mean of delta, so that det M = 1.
        exp_dtype: torch.float64 computes M in float64 and rounds it; None computes it in `dtype`, or in float32 from
            16-bit parameters (it stays float32 on the CPU; a GPU's recurrence multiplies by M rounded to 16 bits).

    Attributes:
        weight_ih_l[k], with `_reverse` for the second direction: (n, input size of the layer), uniform in
            [-1 / sqrt(n), 1 / sqrt(n)] at first.
        bias_l[k]: (n,), first 0.
        field_l[k]: (m, d), by `init`.
        field_input_weight_l[k]: V, (m, d, input size of the layer), only for field="input", first 0.
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
        field: FieldKind = "static",
        dt: float = 1.0,
        substeps: int | None = None,
        init: Init = "henaff",
        volume_preserving: bool = False,
        exp_dtype: torch.dtype | None = None,
        proj_size: int | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            nonlinearity,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            backend,
        )
        self._set_field(mesh, dt, substeps, init, volume_preserving, exp_dtype, field)
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

    orthogonal = True

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
        proj_size: int | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            nonlinearity,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            backend,
        )
        self._set_field(mesh, dt, 1, init, False, exp_dtype)
        self._add_layers(device, dtype)
        self.reset_parameters()
