"""The attributes, methods and checks of torch.nn.RNNBase, in its words, on this package's layers."""

from __future__ import annotations

from torch import Tensor, nn

from vfrnn.layers import Recurrent
from vfrnn_kernels.checks import check_dense


class RNNBase(Recurrent):
    """What code written for torch.nn.RNN calls, reads or overrides beside `forward`."""

    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size = 0  # torch.nn.RNN has the attribute, and refuses the argument
    learn_h0: bool = False  # of a network that was pickled before there was any

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
        words += ["learn_h0=True"] if self.learn_h0 else []
        return ", ".join(words + self._words())
