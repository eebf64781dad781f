"""InputFieldRNN and InputFieldRNNCell: the hidden state flows along a field that reads the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from vfrnn.cells import Cell
from vfrnn.init import Init
from vfrnn.layers import rule_argument
from vfrnn.mesh import LatentMesh
from vfrnn.network import Network
from vfrnn.steps import InputFieldStep, check_one_time
from vfrnn_kernels.activations import Activation


class InputFieldRNN(Network):
    r"""A vector-field RNN whose field reads the input: every sample has, at every step, a field of its own.

    .. math:: h_t = \mathrm{act}(\Phi_{v_t}(h_{t-1}) + U x_t + c), \quad v_t = v + V x_t

    Phi moves the state along the field for a time dt without forming a matrix (`flow_recurrence`); the divergence of
    the field is multiplied by `divergence_scale`. At V = 0 and divergence_scale 0, where they start, this is
    an `OrthogonalRNN` on the same mesh. Inside the network h is `B^1/2 f` for a function f on the mesh.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype,
            recurrent_dropout, zoneout, learn_h0, backend: as in `RNN`.
        nonlinearity: one of `vfrnn_kernels.activations.ACTIVATIONS`.
        mesh: a `LatentMesh` with hidden_size nodes and its N and G (of a complete mesh: its `dense()`), shared by all
            layers and directions.
        dt: duration of a step.
        substeps: of the flow, in every step. None plans them from a bound on v_t, as few as the series allows; a
            divergence is split to second order in dt / substeps.
        init: of the rotation angles per unit of time of the field v, as in `VFRNN`.
        volume_preserving: removes the mean of the divergence, so that the flow keeps volumes.

    Attributes:
        weight_ih_l[k], with `_reverse` for the second direction: U, (n, input size of the layer), drawn uniformly from
            [-1 / sqrt(n), 1 / sqrt(n)].
        bias_l[k]: c, (n,); it starts at 0.
        field_l[k]: v, (m, d), drawn by `init`.
        field_input_weight_l[k]: V, (m, d, input size of the layer); it starts at 0.
        divergence_scale_l[k]: (1,); it starts at 0.
        beta_l[k]: (n,), where the nonlinearity has one; it starts at 0.
        mesh: the mesh.
        dt, substeps, init, volume_preserving: the arguments; they can be set.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Source: model.md 5, this project's discrete form of Azencot et al. 2021 (arXiv 2102.09589).

    Example:
        >>> rnn = InputFieldRNN(10, 20, mesh=vfrnn.LatentMesh.random(20, cells=16, dim=2))
        >>> output, h_n = rnn(torch.randn(5, 3, 10))
        >>> tuple(output.shape), tuple(h_n.shape)
        ((5, 3, 20), (1, 3, 20))
    """

    rule: InputFieldStep
    dt: float = rule_argument("dt")
    substeps: int | None = rule_argument("substeps")
    init: Init = rule_argument("init")
    volume_preserving: bool = rule_argument("volume_preserving")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Activation = "modrelu",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        mesh: LatentMesh,
        dt: float = 1.0,
        substeps: int | None = None,
        init: Init = "henaff",
        volume_preserving: bool = False,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        learn_h0: bool = False,
        proj_size: int | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            InputFieldStep(dt=dt, substeps=substeps, init=init, volume_preserving=volume_preserving),
            input_size,
            hidden_size,
            num_layers=num_layers,
            nonlinearity=nonlinearity,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            recurrent_dropout=recurrent_dropout,
            zoneout=zoneout,
            learn_h0=learn_h0,
            device=device,
            dtype=dtype,
            proj_size=proj_size,
            backend=backend,
            mesh=_given(mesh),
        )

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        *,
        dt: float | Tensor | None = None,
        reset: Tensor | PackedSequence | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        return_sequence: bool = True,
        return_all_layers: bool = False,
    ) -> tuple[Any, Tensor]:
        """Runs the layers over the sequences.

        Args:
            input, hx, reset, lengths, return_sequence, return_all_layers: These are the arguments of `RNN.forward`.
                Where `substeps` is None, substeps are planned for whole sequences; without `return_sequence` for every
                chunk of them, with `reset` for every batch of segments, and with noise on the state for every step.
            dt: How long all steps last, in place of the constructor's `dt`: a number or a zero-dimensional tensor, of
                any sign.

        Returns:
            The pair that `RNN.forward` returns.

        Raises:
            TypeError, ValueError, RuntimeError: An argument has a wrong type, dtype or shape, or dt has a time for
                every step. On the CPU also: the field is not finite, or `substeps` is too small.
        """
        check_one_time(dt)
        return self._run(input, hx, dt, reset, lengths, return_sequence, return_all_layers)

    def step(
        self, input: Tensor, state: Tensor | None = None, *, dt: float | Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One time step, for a stream: `forward` on a sequence of length 1, to rounding.

        Substeps that are planned are planned for this one step.

        Args:
            input: (B, input_size), or unbatched (input_size,).
            state: (num_layers, B, hidden_size), unbatched without B; if not given, as in `forward`.
            dt: duration of the step, in place of the constructor's: a number or a zero-dimensional tensor.

        Returns:
            output (B, hidden_size), unbatched without B: the last layer's state; and the next state, shaped as `state`.

        Raises:
            TypeError, ValueError, RuntimeError: as in `forward`; a bidirectional network, whose second direction begins
                at the end of the stream.
        """
        check_one_time(dt)
        return self._stream(input, state, dt)


class InputFieldRNNCell(Cell):
    r"""One step of an `InputFieldRNN`.

    .. math:: h' = \mathrm{act}(\Phi_{v + V x}(h) + U x + c)

    Arguments are as in `InputFieldRNN`. Parameters: weight_ih (n, i), bias (n,), field (m, d), field_input_weight
    (m, d, i), divergence_scale (1,), and beta (n,) where the nonlinearity has one.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Example:
        >>> cell = InputFieldRNNCell(10, 20, mesh=vfrnn.LatentMesh.random(20, cells=16, dim=2))
        >>> tuple(cell(torch.randn(3, 10)).shape)
        (3, 20)
    """

    rule: InputFieldStep
    dt: float = rule_argument("dt")
    substeps: int | None = rule_argument("substeps")
    init: Init = rule_argument("init")
    volume_preserving: bool = rule_argument("volume_preserving")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: Activation = "modrelu",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        mesh: LatentMesh,
        dt: float = 1.0,
        substeps: int | None = None,
        init: Init = "henaff",
        volume_preserving: bool = False,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            InputFieldStep(dt=dt, substeps=substeps, init=init, volume_preserving=volume_preserving),
            input_size,
            hidden_size,
            bias=bias,
            nonlinearity=nonlinearity,
            device=device,
            dtype=dtype,
            recurrent_dropout=recurrent_dropout,
            zoneout=zoneout,
            backend=backend,
            mesh=_given(mesh),
        )

    def forward(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        *,
        dt: float | Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The next state.

        Args:
            input: (B, input_size) or (input_size,).
            hx: the state, (B, hidden_size) or (hidden_size,); zero if not given.
            dt: duration of the step, in place of the constructor's: a number or a zero-dimensional tensor.
            mask: as in `vfrnn.RNNCell.forward`.

        Returns:
            h' (B, hidden_size) or (hidden_size,).

        Raises:
            TypeError, ValueError, RuntimeError: an argument has the wrong type, dtype or shape; on the CPU also: the
                field is not finite, or substeps is too small.
        """
        check_one_time(dt)
        x, h = self._checked(input, hx)
        return self._next(self.rule.steps(self._layer(""), dt), x, h, mask, input)


def _given(mesh: LatentMesh | None) -> LatentMesh:
    if mesh is None:
        raise TypeError("mesh must be a LatentMesh, such as LatentMesh.random(hidden_size, cells=64, dim=2), got None")
    return mesh
