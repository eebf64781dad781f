"""What the networks of rnn.py share: layers over sequences, with torch.nn.RNN's checks and methods."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from vfrnn.layers import check_size
from vfrnn.mesh import LatentMesh
from vfrnn.packed import Equal, Packed
from vfrnn.padded import Padded, lengths_of
from vfrnn.per_step import check_mask, check_times, packed, padded
from vfrnn.regularization import check_noise
from vfrnn.rnn_base import RNNBase
from vfrnn.segments import Segments
from vfrnn.steps import StepRule, is_per_step
from vfrnn_kernels.activations import Activation
from vfrnn_kernels.checks import check_bool, check_dense, check_shape, check_tensor

#: Layers, each of which takes tens of kilobytes before it has a parameter.
LARGEST_DEPTH = 10_000


class Network(RNNBase):
    """Recurrent layers over sequences: shapes, directions, dropout, methods and messages are torch.nn.RNN's."""

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
        recurrent_dropout: float,
        zoneout: float,
        learn_h0: bool,
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
        check_bool("learn_h0", learn_h0)
        check_size("num_layers", num_layers, LARGEST_DEPTH)
        super().__init__(
            rule, input_size, hidden_size, nonlinearity=nonlinearity, bias=bias, backend=backend, mesh=mesh,
            recurrent_dropout=recurrent_dropout, zoneout=zoneout,
        )  # fmt: skip
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
                stacklevel=3,
            )
        self.num_layers, self.bias, self.batch_first = num_layers, bias, batch_first
        self.dropout, self.bidirectional, self.learn_h0 = float(dropout), bidirectional, learn_h0
        for layer in range(num_layers):
            for reverse in (False, True)[: 1 + bidirectional]:
                features = input_size if layer == 0 else hidden_size * (1 + bidirectional)
                self._add_layer(features, suffix_of(layer, reverse), device, dtype)
                if learn_h0:
                    self._add_h0(suffix_of(layer, reverse), device, dtype)
        self.reset_parameters()

    def _add_h0(self, suffix: str, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        h0 = nn.Parameter(torch.empty(self.hidden_size, device=device, dtype=dtype))
        self.register_parameter("h0" + suffix, h0)
        self.weight_names[-1].append("h0" + suffix)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for suffix in self.suffixes if self.learn_h0 else ():
            nn.init.zeros_(getattr(self, "h0" + suffix))

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        *,
        reset: Tensor | PackedSequence | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        return_sequence: bool = True,
        return_all_layers: bool = False,
    ) -> tuple[Any, Tensor]:
        """Runs the layers over the sequences.

        Args:
            input: The sequences, as (T, B, input_size), as (B, T, input_size) with `batch_first`, as (T, input_size)
                for a single one, or as a PackedSequence. A packed batch is padded for the run, so that it takes the
                memory and the time of its longest sequence for all of them.
            hx: The states before the first step, (num_layers * directions, B, hidden_size), or without B for a single
                sequence. If it is not given, they are zero, or the learned ones with `learn_h0`.
            reset: The steps before which the state begins anew, as a boolean tensor (T, B), (B, T) with `batch_first`,
                (T,) for a single sequence, or packed like the input. There the state is zero, or the learned one with
                `learn_h0`, and neither values nor gradients cross that boundary. The second direction meets the
                boundary from the other side, so that a mark on the first step has nothing to cut there. The segments
                run side by side, on one thread (AVX-512) in about 2.5 times the time of the call without `reset`. The
                mask is read on the CPU. It is refused in torch.export, and runs outside of a compiled graph.
            lengths: The length of each sequence of a padded batch, (B,), integers from 1 to T. Behind the end of a
                sequence inputs are not read and outputs are 0. Both directions and h_n are those of
                `pack_padded_sequence`. The values are checked on the CPU only.
            return_sequence: False returns the last states of the last layer alone. Then about sqrt(T) states of that
                layer are kept for the backward pass, which computes the others again. None at all are kept where the
                steps are orthogonal and linear (`OrthogonalRNN` with the identity), because the backward pass turns
                them back. Layers below keep their sequence, and so does the last one with `reset` or `lengths`. It must
                be True for a PackedSequence.
            return_all_layers: True returns the outputs of all layers, as a tuple from the first to the last, in place
                of the last one's. It needs `return_sequence`.

        Returns:
            A pair. The first is the output: the states of the last layer, shaped or packed as the input, with
            directions * hidden_size features; without `return_sequence` it is (B, directions * hidden_size), and
            without B for a single sequence. The second is h_n, shaped as hx: the last state of every layer, of each
            sequence at its own end. Both are in the order in which the sequences were given.

        Raises:
            TypeError, ValueError, RuntimeError: An argument has a wrong type, dtype or shape. The message is in
                torch.nn.RNN's words.
        """
        return self._run(input, hx, None, reset, lengths, return_sequence, return_all_layers)

    def step(self, input: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One time step, for a stream. It computes what `forward` does on a sequence of length 1, to rounding.

        Args:
            input: What the step reads, (B, input_size), or (input_size,) for a single stream.
            state: The state before the step, (num_layers, B, hidden_size), or without B for a single stream. If it is
                not given, it is that of `forward`.

        Returns:
            A pair: the state of the last layer, (B, hidden_size) or (hidden_size,), and the next state, shaped as
            `state`.

        Raises:
            TypeError, ValueError, RuntimeError: An argument has a wrong type, dtype or shape; or the network is
                bidirectional, and its second direction begins at the end of the stream; or it is in training with
                `recurrent_dropout`, whose mask is one for a whole sequence.
        """
        return self._stream(input, state, None)

    def _run(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None,
        dt: float | Tensor | PackedSequence | None,
        reset: Tensor | PackedSequence | None,
        lengths: Tensor | Sequence[int] | None,
        return_sequence: bool,
        return_all_layers: bool,
    ) -> tuple[Any, Tensor]:
        """`forward` with steps of the time dt, as `vfrnn.VFRNN.forward` takes it."""
        check_bool("return_sequence", return_sequence)
        check_bool("return_all_layers", return_all_layers)
        if return_all_layers and not return_sequence:
            raise ValueError("return_all_layers needs return_sequence=True: h_n has the last states of every layer")
        if hx is not None and not isinstance(hx, Tensor):
            raise TypeError(f"{type(self).__name__}: hx must be a tensor, got {type(hx).__name__}")
        check_noise(self._noise(), dt)
        if isinstance(input, PackedSequence):
            if not return_sequence:
                raise ValueError(
                    "return_sequence must be True for a PackedSequence, whose sequences end at other steps"
                )
            if lengths is not None:
                raise ValueError("lengths must be None for a PackedSequence, which has its own")
            data, batch_sizes, order, inverse = input
            # torch's fake of pack_padded_sequence counts in floats; without an order B must be read from a tensor
            counted = batch_sizes.dtype == torch.long and (order is not None or torch.compiler.is_dynamo_compiling())
            if torch.compiler.is_exporting() and not counted:
                raise RuntimeError(
                    "input must not be packed within torch.export: give padded sequences with lengths=, or the "
                    "program a PackedSequence made with enforce_sorted=False"
                )
            # The order knows the batch without reading a number from a tensor, which torch.compile cannot.
            B = int(batch_sizes[0]) if order is None else order.shape[0]
            expected = (self.num_layers * (1 + self.bidirectional), B, self.hidden_size)
            if hx is not None and hx.dim() != 3:
                self.check_hidden_size(hx, expected)
            hx = self._first_states(data, expected) if hx is None else self.permute_hidden(hx, order)
            self.check_input(data, batch_sizes)
            self.check_hidden_size(hx, expected)
            self._check_dtype("hx", hx)
            sequences = Packed(batch_sizes, B, data)
            if isinstance(dt, PackedSequence) or is_per_step(dt):
                check_times(dt, self._weight())
                dt = packed("dt", dt, input, sequences, batch_first=self.batch_first)
            if reset is not None:
                check_mask(reset, data)
                reset = packed("reset", reset, input, sequences, batch_first=self.batch_first)
            outputs, h_n = self._through(data, hx, sequences, dt, reset=reset, whole=True)
            found: tuple[Any, ...] = tuple(PackedSequence(hs, batch_sizes, order, inverse) for hs in outputs)
            return found if return_all_layers else found[-1], self.permute_hidden(h_n, inverse)
        self._check_ranks(input, hx)
        batch_dim = 0 if self.batch_first else 1
        batched = input.dim() == 3
        if not batched:
            if lengths is not None:
                raise ValueError("lengths must be None for an unbatched input (T, i), which has no padding")
            input, hx = input.unsqueeze(batch_dim), None if hx is None else hx.unsqueeze(1)
            if isinstance(reset, Tensor) and reset.dim() == 1:
                reset = reset.unsqueeze(batch_dim)
        if hx is None:
            hx = self._first_states(input, self.get_expected_hidden_size(input, None))
        self.check_forward_args(input, hx, None)
        x = input.transpose(0, 1) if self.batch_first else input
        T, B = x.shape[:2]
        if T == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        for name, value, expect in (("dt", dt, "a number or a tensor"), ("reset", reset, "a tensor")):
            if isinstance(value, PackedSequence):
                raise TypeError(f"{type(self).__name__}: {name} must be {expect}, got PackedSequence with a tensor")
        if is_per_step(dt):
            check_times(dt, self._weight())
            dt = padded("dt", dt, T, B, batch_first=self.batch_first)
        if reset is not None:
            reset = padded("reset", check_mask(reset, x), T, B, batch_first=self.batch_first)
        walk = Equal() if lengths is None else Padded(lengths_of(lengths, T, B, x.device), T, x.device)
        outputs, h_n = self._through(x, hx, walk, dt, reset=reset, whole=return_sequence)
        h_n = h_n if batched else h_n.squeeze(1)
        if not return_sequence:
            return outputs[-1] if batched else outputs[-1].squeeze(0), h_n
        if self.batch_first:
            outputs = [output.transpose(0, 1) for output in outputs]
        found = tuple(output if batched else output.squeeze(batch_dim) for output in outputs)
        return found if return_all_layers else found[-1], h_n

    def _first_states(self, input: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """hx where none is given."""
        if not self.learn_h0:
            return input.new_zeros(shape)
        h0 = torch.stack([getattr(self, "h0" + suffix) for suffix in self.suffixes])
        return h0.unsqueeze(1).expand(shape)

    def _stream(self, input: Tensor, state: Tensor | None, dt: float | Tensor | None) -> tuple[Tensor, Tensor]:
        """`step` with a step of the time dt, as `vfrnn.VFRNN.step` takes it."""
        name = type(self).__name__
        if self.bidirectional:
            raise RuntimeError(f"{name}.step needs bidirectional=False: the other direction begins at the stream's end")
        noise = self._noise()
        if noise.drops:
            raise RuntimeError(
                f"{name}.step needs eval() where recurrent_dropout is positive: its mask is one for a whole sequence"
            )
        check_noise(noise, dt)
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
        h0 = state if batched or state is None else state.unsqueeze(1)
        self.check_input(x, None)
        h0 = self._first_states(x, expected) if h0 is None else h0
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
            x = noise.left(h0[layer], x[0], noise.kept(h0[layer])).unsqueeze(0)
            states.append(x[0])
        h = torch.stack(states)
        return (states[-1], h) if batched else (states[-1].squeeze(0), h.squeeze(1))

    def _through(self, *arguments: Any, reset: Tensor | None, whole: bool) -> tuple[list[Tensor], Tensor]:
        """`_through_layers`; with reset outside of a compiled graph."""
        through: Any = self._through_layers
        if reset is not None and torch.compiler.is_compiling():
            why = "reset= cuts the sequences where its values say, which no graph can"
            torch._dynamo.graph_break(msg=why)
            through = torch.compiler.disable(through, reason=why)  # a decorator would load the compiler with vfrnn
        return through(*arguments, reset, whole)

    def _through_layers(
        self,
        x: Tensor,
        h0: Tensor,
        sequences: Equal | Padded | Packed,
        dt: float | Tensor | None,
        reset: Tensor | None,
        return_sequence: bool,
    ) -> tuple[list[Tensor], Tensor]:
        """Every layer's states, laid out as x, the last one's perhaps the last of them (B, directions n), and every
        layer's last states (layers * directions, B, n). dt and reset are laid out as x where they are tensors."""
        x, h0 = x.to(self._dtype()), h0.to(self._dtype())  # only autocast lets them differ; the ops convert further
        cuts = [] if reset is None else [self._segments(reset, sequences, reverse) for reverse in self._directions()]
        last: list[Tensor] = []
        outputs: list[Tensor] = []
        noise, scattered = self._noise(), reset is not None or sequences.lengths is not None
        for layer in range(self.num_layers):
            if layer > 0:
                x = F.dropout(x, self.dropout, self.training)
            directions, whole = [], return_sequence or layer < self.num_layers - 1
            for reverse in self._directions():
                of_layer, begin = self._layer(suffix_of(layer, reverse)), h0[len(last)]
                steps, inputs = noise.around(self.rule.steps(of_layer, dt)), sequences.steps(x, reverse)
                times = sequences.times(dt, reverse) if is_per_step(dt) else None
                if cuts:
                    start = of_layer.read("h0").to(begin) if self.learn_h0 else begin.new_zeros(self.hidden_size)
                    hs = cuts[reverse].states(steps, inputs, begin, start, times)
                else:
                    hs = steps(inputs, begin, times, whole or scattered)
                last.append(sequences.last(hs) if whole or scattered else hs)
                directions.append(sequences.in_place(hs, reverse) if whole else last[-1])
            x = torch.cat(directions, -1) if self.bidirectional else directions[0]
            outputs.append(x)
        return outputs, torch.stack(last)

    def _directions(self) -> tuple[bool, ...]:
        return (False, True)[: 1 + self.bidirectional]

    def _segments(self, reset: Tensor, sequences: Equal | Padded | Packed, reverse: bool) -> Segments:
        """The segments in the order of a direction. A mark cuts between its step and the one before, which the second
        direction meets after the marked step."""
        cut = sequences.times(reset, reverse)
        if reverse:
            cut = torch.cat([torch.zeros_like(cut[:1]), cut[:-1]])
        return Segments(cut, sequences.lengths)


def suffix_of(layer: int, reverse: bool) -> str:
    """What ends the names of the parameters of a layer and direction."""
    return f"_l{layer}_reverse" if reverse else f"_l{layer}"
