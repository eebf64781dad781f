"""RNN, VFRNN and OrthogonalRNN: whole sequences, several layers, one or two directions, as torch.nn.RNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from vfrnn.init import Init
from vfrnn.layers import rule_argument
from vfrnn.mesh import LatentMesh
from vfrnn.network import Network, suffix_of
from vfrnn.steps import FieldStep, PlainStep
from vfrnn_kernels.activations import Activation


class RNN(Network):
    r"""An Elman RNN: torch.nn.RNN on this package's recurrence.

    .. math:: h_t = \mathrm{act}(W_{hh} h_{t-1} + b_{hh} + W_{ih} x_t + b_{ih})

    Constructor, parameter names and their random initialisation, shapes and results are those of torch.nn.RNN; a
    `state_dict` of one loads into the other. Double backward is correct, not optimised.

    Args:
        input_size, hidden_size: numbers of features of x and h.
        num_layers: layers; each reads the states of the one before.
        nonlinearity: one of `vfrnn_kernels.activations.ACTIVATIONS`: torch.nn.RNN's and more. One that has a parameter
            learns it as `beta_l[k]` (n,), which starts at 0.
        bias: whether there are biases.
        batch_first: sequences are (B, T, features) instead of (T, B, features).
        dropout: probability of zeroing a state between layers, in training.
        bidirectional: a second set of layers reads the sequence backwards.
        device, dtype: of the parameters. With 16-bit ones the CPU computes in float32, from copies made for the call,
            and rounds the states of each layer: exact to one rounding, at float32's speed.
        recurrent_dropout: in training, probability of zeroing an entry of the state that a step reads, by one mask for
            every sequence, layer and direction (Gal and Ghahramani 2016, arXiv 1512.05287; `vfrnn.regularization`).
        zoneout: probability that a step leaves an entry of the state as it was; in evaluation every entry is mixed with
            these weights (Krueger et al. 2017, arXiv 1606.01305). Where one of the two acts, steps are called one by
            one, with one time for all of them: a training step on one thread (AVX-512) takes 2.5 to 3.5 times as long
            at n 256, T 100, and 11 to 13 times at n 64, T 200 (batches of 64 and 32).
        learn_h0: learns the state before the first step as `h0_l[k]` (n,), which starts at 0; `hx` replaces it.
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
        nonlinearity: Activation = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        learn_h0: bool = False,
        proj_size: int | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            PlainStep(),
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
        )

    @property
    def mode(self) -> str:
        """The nonlinearity in torch.nn.RNN's words, such as "RNN_TANH"."""
        return f"RNN_{self.nonlinearity.upper()}"


class FieldNetwork(Network):
    """A network whose step matrices are flows of vector fields."""

    rule: FieldStep
    dt: float = rule_argument("dt")
    init: Init = rule_argument("init")
    exp_dtype: torch.dtype | None = rule_argument("exp_dtype")

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        *,
        dt: float | Tensor | PackedSequence | None = None,
        reset: Tensor | PackedSequence | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        return_sequence: bool = True,
        return_all_layers: bool = False,
    ) -> tuple[Any, Tensor]:
        """Runs the layers over the sequences.

        Args:
            input, hx, reset, lengths, return_sequence, return_all_layers: These are the arguments of `RNN.forward`.
            dt: How long the steps last, in place of the constructor's `dt`. It is a number or a zero-dimensional tensor
                for all steps, (T,) for every step, or (T, B) for every step and sequence: (B, T) with `batch_first`, or
                packed like the input. A time for every step is computed by `spectral_recurrence`. Times may have any
                sign, and are the same in all layers. In both directions the step that reads input t lasts dt[t].

        Returns:
            The pair that `RNN.forward` returns.

        Raises:
            TypeError, ValueError, RuntimeError: An argument has a wrong type, dtype or shape. The message is in
                torch.nn.RNN's words.
        """
        return self._run(input, hx, dt, reset, lengths, return_sequence, return_all_layers)

    def step(
        self, input: Tensor, state: Tensor | None = None, *, dt: float | Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One time step, for a stream: `forward` on a sequence of length 1, to rounding.

        Under torch.no_grad() step matrices are kept until a parameter or a mesh changes (`vfrnn.streaming`), one for
        every number dt; a dt that is a tensor is computed at every step. Writing through `parameter.data` in place is
        a change that cannot be seen.

        Args:
            input: (B, input_size), or unbatched (input_size,).
            state: (num_layers, B, hidden_size), unbatched without B; if not given, as in `forward`.
            dt: duration of the step, in place of the constructor's: a number, a zero-dimensional tensor, or one for
                every sample, (B,).

        Returns:
            output (B, hidden_size), unbatched without B: the last layer's state; and the next state, shaped as `state`.

        Raises:
            TypeError, ValueError, RuntimeError: a wrong type, dtype or shape; a bidirectional network, whose second
                direction begins at the end of the stream.
        """
        return self._stream(input, state, dt)

    def step_matrix(self, layer: int = 0, reverse: bool = False, *, dt: float | Tensor | None = None) -> Tensor:
        """M (n, n) of a layer and direction, differentiable; `dt` replaces the constructor's.

        Raises:
            ValueError: there is no such layer or direction.
        """
        suffix = suffix_of(layer, reverse)
        if suffix not in self.suffixes:
            raise ValueError(
                f"layer must be below num_layers = {self.num_layers} and reverse needs bidirectional=True, "
                f"got layer={layer}, reverse={reverse}"
            )
        return self.rule.matrix(self._layer(suffix), dt)


class VFRNN(FieldNetwork):
    r"""A vector-field RNN: the hidden state flows along a learned vector field on a latent mesh.

    .. math:: h_t = \mathrm{act}(M h_{t-1} + U x_t + c), \quad
        M = (e\, \exp(dt\, S / k)\, e)^k, \quad e = \exp(-dt\, \delta / (4 k))

    Here S, a skew-symmetric matrix, is the generator of the field, and delta is the divergence of the field
    (`field_generator`) times the learned `divergence_scale`. The scale starts at 0, where M is orthogonal; at 1, M is
    the flow of the field. M is computed once in a forward pass, for each layer and direction. Inside the network h
    stands for `B^1/2 f`, where f is a function on the mesh.

    M is orthogonal up to rounding only, and the error of a rotation's modulus compounds: over 10^5 and more steps in
    float32 the norm of h drifts, by up to some percent. `exp_dtype=torch.float64` computes the exponential in float64
    and rounds M once, so that it keeps lengths best (`vfrnn.rounding`): the drift over 10^5 steps stays below 10^-3,
    for the price of one float64 exponential per forward pass. The recurrence itself keeps the dtype of the weights.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype,
            recurrent_dropout, zoneout, learn_h0, backend: as in `RNN`.
        nonlinearity: one of `vfrnn_kernels.activations.ACTIVATIONS`.
        mesh: A `LatentMesh` with hidden_size nodes, which all layers and directions share. None gives each of them a
            complete mesh of its own, whose fields reach every skew-symmetric S.
        dt: How long a step lasts.
        substeps: The number k of splittings in a step. More of them follow the flow of a field with a divergence more
            closely.
        init: How the rotation angles per unit of time start: "henaff" (uniform in [-pi, pi]), "cayley" (as in scoRNN)
            or "zero" (`vfrnn.init`). On a general mesh the field starts as the one that fits these angles best.
        volume_preserving: True removes the mean of delta, so that det M = 1.
        exp_dtype: torch.float64 computes M in float64 and rounds it. None computes it in `dtype`, or in float32 from
            16-bit parameters; on the CPU it then stays float32, and a GPU's recurrence multiplies by M rounded to
            16 bits.

    Attributes:
        weight_ih_l[k], with `_reverse` for the second direction: U, (n, input size of the layer), drawn uniformly from
            [-1 / sqrt(n), 1 / sqrt(n)].
        bias_l[k]: c, (n,); it starts at 0.
        field_l[k]: v, (m, d), drawn by `init`.
        divergence_scale_l[k]: (1,); it starts at 0.
        beta_l[k]: (n,), where the nonlinearity has one; it starts at 0.
        mesh, or mesh_l[k]: the meshes.
        dt, substeps, init, volume_preserving, exp_dtype: the arguments; they can be set.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Source: Azencot et al. 2021 (arXiv 2102.09589); the discrete form is this project's. Double backward is correct,
    not optimised.

    Example:
        >>> output, h_n = VFRNN(10, 20)(torch.randn(5, 3, 10))
        >>> tuple(output.shape), tuple(h_n.shape)
        ((5, 3, 20), (1, 3, 20))
    """

    substeps: int = rule_argument("substeps")
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
        mesh: LatentMesh | None = None,
        dt: float = 1.0,
        substeps: int = 1,
        init: Init = "henaff",
        volume_preserving: bool = False,
        exp_dtype: torch.dtype | None = None,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        learn_h0: bool = False,
        proj_size: int | None = None,
        backend: str | None = None,
    ) -> None:
        rule = FieldStep(
            dt=dt,
            substeps=substeps,
            init=init,
            volume_preserving=volume_preserving,
            exp_dtype=exp_dtype,
            shares_mesh=mesh is not None,
        )
        super().__init__(
            rule,
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
            mesh=mesh,
        )


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
        nonlinearity: Activation = "modrelu",
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
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        learn_h0: bool = False,
        proj_size: int | None = None,
        backend: str | None = None,
    ) -> None:
        rule = FieldStep(dt=dt, init=init, exp_dtype=exp_dtype, shares_mesh=mesh is not None, divergence=False)
        super().__init__(
            rule,
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
            mesh=mesh,
        )
