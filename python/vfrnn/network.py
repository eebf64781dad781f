"""What the networks of rnn.py share: layers over sequences, with torch.nn.RNN's checks and methods."""

from __future__ import annotations

import numbers
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from vfrnn.layers import Recurrent, check_size
from vfrnn.mesh import LatentMesh
from vfrnn.packed import Equal, Packed
from vfrnn.steps import StepRule, is_per_step
from vfrnn_kernels.activations import Activation
from vfrnn_kernels.checks import check_bool, check_dense, check_shape, check_tensor


class Network(Recurrent):
    """Recurrent layers over sequences: shapes, directions, dropout, methods and messages are torch.nn.RNN's."""

    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size = 0  # torch.nn.RNN has the attribute, and refuses the argument

    def __init__(
        self,
        rule: StepRule,
        input_size: int,
        hidden_size: int,
        *,
        num_layers: int,
        nonlinearity: Activation,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        proj_size: int | None,
        backend: str | None,
        mesh: LatentMesh | None = None,
    ) -> None:
        if proj_size is not None:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if isinstance(dropout, bool) or not isinstance(dropout, numbers.Real) or not 0 <= dropout <= 1:
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an element being zeroed"
            )
        for name, value in (("bias", bias), ("batch_first", batch_first), ("bidirectional", bidirectional)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} should be of type bool, got: {type(value).__name__}")
        check_size("num_layers", num_layers)
        super().__init__(
            rule, input_size, hidden_size, nonlinearity=nonlinearity, bias=bias, backend=backend, mesh=mesh
        )
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
                stacklevel=3,
            )
        self.num_layers, self.bias, self.batch_first = num_layers, bias, batch_first
        self.dropout, self.bidirectional = float(dropout), bidirectional
        for layer in range(num_layers):
            for reverse in (False, True)[: 1 + bidirectional]:
                features = input_size if layer == 0 else hidden_size * (1 + bidirectional)
                self._add_layer(features, suffix_of(layer, reverse), device, dtype)
        self.reset_parameters()

    def forward(
        self, input: Tensor | PackedSequence, hx: Tensor | None = None, *, return_sequence: bool = True
    ) -> tuple[Any, Tensor]:
        """Runs the layers over the sequences.

        Args:
            input: (T, B, input_size), (B, T, input_size) with `batch_first`, unbatched (T, input_size), or a
                PackedSequence. A packed one is padded for the run: memory and time are those of its longest sequence
                for all of them (`vfrnn.packed`).
            hx: (num_layers * directions, B, hidden_size), unbatched without B: the states before the first step; zero
                if not given.
            return_sequence: False returns the last layer's last states alone. It keeps about sqrt(T) states of that
                layer for the backward, which computes the others again; none at all where steps are orthogonal and
                linear (`OrthogonalRNN` with the identity), which the backward turns back. Layers below keep their
                sequence. It must be True for a PackedSequence.

        Returns:
            output, shaped or packed as the input with directions * hidden_size features: the last layer's states;
            (B, directions * n) or unbatched (directions * n,) without return_sequence;
            and h_n, shaped as hx: every layer's last state, of each sequence at its own end. (Both are in the order
            in which the sequences were given, hx too.)

        Raises:
            TypeError, ValueError, RuntimeError: a wrong type, dtype or shape, in torch.nn.RNN's words.
        """
        return self._run(input, hx, None, return_sequence)

    def step(self, input: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One time step, for a stream: `forward` on a sequence of length 1, to rounding.

        Args:
            input: (B, input_size), or unbatched (input_size,).
            state: (num_layers, B, hidden_size), unbatched without B; zero if not given.

        Returns:
            output (B, hidden_size), unbatched without B: the last layer's state; and the next state, shaped as `state`.

        Raises:
            TypeError, ValueError, RuntimeError: a wrong type, dtype or shape; a bidirectional network, whose second
                direction begins at the end of the stream.
        """
        return self._stream(input, state, None)

    def _run(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None,
        dt: float | Tensor | PackedSequence | None,
        return_sequence: bool,
    ) -> tuple[Any, Tensor]:
        """`forward` with steps of the time dt, as `vfrnn.VFRNN.forward` takes it."""
        check_bool("return_sequence", return_sequence)
        if hx is not None and not isinstance(hx, Tensor):
            raise TypeError(f"{type(self).__name__}: hx must be a tensor, got {type(hx).__name__}")
        if isinstance(input, PackedSequence):
            if not return_sequence:
                raise ValueError(
                    "return_sequence must be True for a PackedSequence, whose sequences end at other steps"
                )
            data, batch_sizes, order, inverse = input
            # The order knows the batch without reading a number from a tensor, which torch.compile cannot.
            B = int(batch_sizes[0]) if order is None else order.shape[0]
            expected = (self.num_layers * (1 + self.bidirectional), B, self.hidden_size)
            hx = data.new_zeros(expected) if hx is None else self.permute_hidden(hx, order)
            self.check_input(data, batch_sizes)
            self.check_hidden_size(hx, expected)
            self._check_dtype("hx", hx)
            sequences = Packed(batch_sizes, B, data)
            times = self._packed_times(dt, input, sequences)
            output, h_n = self._through_layers(data, hx, sequences, times, True)
            return PackedSequence(output, batch_sizes, order, inverse), self.permute_hidden(h_n, inverse)
        self._check_ranks(input, hx)
        batch_dim = 0 if self.batch_first else 1
        batched = input.dim() == 3
        if not batched:
            input, hx = input.unsqueeze(batch_dim), None if hx is None else hx.unsqueeze(1)
        if hx is None:
            hx = input.new_zeros(self.get_expected_hidden_size(input, None))
        self.check_forward_args(input, hx, None)
        x = input.transpose(0, 1) if self.batch_first else input
        if x.shape[0] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        if isinstance(dt, PackedSequence):
            raise TypeError(f"{type(self).__name__}: dt must be a number or a tensor, got PackedSequence with a tensor")
        output, h_n = self._through_layers(x, hx, Equal(), self._times(dt, x.shape[0], x.shape[1]), return_sequence)
        if not return_sequence:
            return (output, h_n) if batched else (output.squeeze(0), h_n.squeeze(1))
        if self.batch_first:
            output = output.transpose(0, 1)
        return (output, h_n) if batched else (output.squeeze(batch_dim), h_n.squeeze(1))

    def _stream(self, input: Tensor, state: Tensor | None, dt: float | Tensor | None) -> tuple[Tensor, Tensor]:
        """`step` with a step of the time dt, as `vfrnn.VFRNN.step` takes it."""
        name = type(self).__name__
        if self.bidirectional:
            raise RuntimeError(f"{name}.step needs bidirectional=False: the other direction begins at the stream's end")
        for argument, value in (("input", input), ("state", state)):
            if not isinstance(value, Tensor) and not (argument == "state" and value is None):
                raise TypeError(f"{name}.step: {argument} must be a tensor, got {type(value).__name__}")
            if value is not None:
                check_dense(f"{name}.step: {argument}", value)
        if input.dim() not in (1, 2):
            raise ValueError(f"{name}.step: input must have shape (B, i) or (i,), got {tuple(input.shape)}")
        batched = input.dim() == 2
        if state is not None and state.dim() != input.dim() + 1:
            shape = "(num_layers, B, n)" if batched else "(num_layers, n)"
            raise ValueError(f"{name}.step: state must have shape {shape}, got {tuple(state.shape)}")
        x = (input if batched else input.unsqueeze(0)).unsqueeze(0)
        expected = (self.num_layers, x.shape[1], self.hidden_size)
        h0 = x.new_zeros(expected) if state is None else state if batched else state.unsqueeze(1)
        self.check_input(x, None)
        self.check_hidden_size(h0, expected)
        self._check_dtype("state", h0)
        if is_per_step(dt):
            check_tensor("dt", dt, self._weight(), "the parameters")
            check_shape("dt", dt, "() or (B,)" if batched else "()", x.shape[1:2] if batched else (), B=x.shape[1])
            dt = dt.unsqueeze(0)
        x, h0, states = x.to(self._dtype()), h0.to(self._dtype()), []
        for layer in range(self.num_layers):
            if layer > 0:
                x = F.dropout(x, self.dropout, self.training)
            x = self.rule.stream(self._layer(suffix_of(layer, False)), x, h0[layer], dt)
            states.append(x[0])
        h = torch.stack(states)
        return (states[-1], h) if batched else (states[-1].squeeze(0), h.squeeze(1))

    def _through_layers(
        self, x: Tensor, h0: Tensor, sequences: Equal | Packed, dt: float | Tensor | None, return_sequence: bool
    ) -> tuple[Tensor, Tensor]:
        """The last layer's states, laid out as x, or the last of them (B, directions n), and every layer's last states
        (layers * directions, B, n). dt is what `_times` and `_packed_times` return."""
        x, h0 = x.to(self._dtype()), h0.to(self._dtype())  # only autocast lets them differ; the ops convert further
        last: list[Tensor] = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = F.dropout(x, self.dropout, self.training)
            directions, whole = [], return_sequence or layer < self.num_layers - 1
            for reverse in (False, True)[: 1 + self.bidirectional]:
                times = sequences.times(dt, reverse) if is_per_step(dt) else dt
                of_layer = self._layer(suffix_of(layer, reverse))
                hs = self.rule.states(of_layer, sequences.steps(x, reverse), h0[len(last)], times, whole)
                last.append(sequences.last(hs) if whole else hs)
                directions.append(sequences.in_place(hs, reverse) if whole else hs)
            x = torch.cat(directions, -1) if self.bidirectional else directions[0]
        return x, torch.stack(last)

    def _times(self, dt: float | Tensor | None, T: int, B: int) -> float | Tensor | None:
        """dt as it is, or, with a time for every step, as (T,) or (T, B).

        Raises:
            TypeError, ValueError: it does not fit the parameters or the sequences.
        """
        if not is_per_step(dt):
            return dt
        check_tensor("dt", dt, self._weight(), "the parameters")
        expected, shape = ((B, T), "(B, T)") if self.batch_first else ((T, B), "(T, B)")
        check_shape("dt", dt, f"(T,) or {shape}", (T,) if dt.dim() == 1 else expected, T=T, B=B)
        return dt.mT if self.batch_first and dt.dim() == 2 else dt

    def _packed_times(
        self, dt: float | Tensor | PackedSequence | None, input: PackedSequence, sequences: Packed
    ) -> float | Tensor | None:
        """dt as it is, or, with a time for every step, packed like the input: (rows,).

        Raises:
            TypeError, ValueError: it does not fit the parameters or the sequences.
        """
        if isinstance(dt, PackedSequence):
            check_tensor("dt", dt.data, self._weight(), "the parameters")
            check_shape("dt", dt.data, "(rows,) as packed data, like the input", input.data.shape[:1])
            if not torch.equal(dt.batch_sizes, input.batch_sizes):
                raise ValueError("dt must be packed like the input, got other batch_sizes")
            return dt.data
        times = self._times(dt, sequences.T, sequences.B)
        if not is_per_step(times):
            return times
        if times.dim() == 2 and input.sorted_indices is not None:
            times = times.index_select(1, input.sorted_indices)
        return sequences.packed(times.expand(sequences.B, -1).mT if times.dim() == 1 else times)

    def _check_ranks(self, input: Tensor, hx: Tensor | None) -> None:
        name = type(self).__name__
        if not isinstance(input, Tensor):
            raise TypeError(f"{name}: input must be a tensor or a PackedSequence, got {type(input).__name__}")
        for argument, value in (("input", input), ("hx", hx)):
            if value is not None:
                check_dense(f"{name}: {argument}", value)
        if input.dim() not in (2, 3):
            raise ValueError(f"{name}: Expected input to be 2D or 3D, got {input.dim()}D tensor instead")
        if hx is not None and hx.dim() != input.dim():
            kind, rank = ("batched", 3) if input.dim() == 3 else ("unbatched", 2)
            raise RuntimeError(f"For {kind} {rank}-D input, hx should also be {rank}-D but got {hx.dim()}-D tensor")

    # What follows are torch.nn.RNN's public methods: code written for it calls or overrides them.

    def flatten_parameters(self) -> None:
        """Does nothing: the kernels read the parameters where they are."""

    @property
    def all_weights(self) -> list[list[nn.Parameter]]:
        """The parameters of every layer and direction."""
        return [[getattr(self, name) for name in names] for names in self.weight_names]

    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        """The input (T, B, i), (B, T, i) or packed (rows, i) has the weights' dtype, its rank and its features."""
        self._check_dtype("input", input)
        rank = 3 if batch_sizes is None else 2
        if input.dim() != rank:
            raise RuntimeError(f"input must have {rank} dimensions, got {input.dim()}")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.shape[-1]}"
            )

    def get_expected_hidden_size(self, input: Tensor, batch_sizes: Tensor | None) -> tuple[int, int, int]:
        """The shape of hx for a batched or packed input."""
        batch = input.shape[0 if self.batch_first else 1] if batch_sizes is None else int(batch_sizes[0])
        return self.num_layers * (1 + self.bidirectional), batch, self.hidden_size

    def check_hidden_size(
        self,
        hx: Tensor,
        expected_hidden_size: tuple[int, int, int],
        msg: str = "Expected hidden size {}, got {}",
    ) -> None:
        """hx has this shape."""
        if tuple(hx.shape) != tuple(expected_hidden_size):
            raise RuntimeError(msg.format(expected_hidden_size, list(hx.shape)))

    def check_forward_args(self, input: Tensor, hidden: Tensor, batch_sizes: Tensor | None) -> None:
        """A batched or packed input and its first states fit the layers and each other."""
        self.check_input(input, batch_sizes)
        self.check_hidden_size(hidden, self.get_expected_hidden_size(input, batch_sizes))
        self._check_dtype("hx", hidden)

    def permute_hidden(self, hx: Tensor, permutation: Tensor | None) -> Tensor:
        """The states of the sequences in this order, or as they are."""
        return hx if permutation is None else hx.index_select(1, permutation)

    def extra_repr(self) -> str:
        words = [f"{self.input_size}, {self.hidden_size}"]
        words += [] if self.num_layers == 1 else [f"num_layers={self.num_layers}"]
        words += [f"bias={self.bias}"] if not self.bias else []
        words += ["batch_first=True"] if self.batch_first else []
        words += [] if self.dropout == 0 else [f"dropout={self.dropout}"]
        words += ["bidirectional=True"] if self.bidirectional else []
        words += [f"backend={self.backend}"] if self.backend is not None else []
        return ", ".join(words + self.rule.words(self.nonlinearity))


def suffix_of(layer: int, reverse: bool) -> str:
    """What ends the names of the parameters of a layer and direction."""
    return f"_l{layer}_reverse" if reverse else f"_l{layer}"
