"""expRNN's setting, as users of geotorch write it: a loop over steps with an orthogonal matrix of geotorch."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from vfrnn.init import Init, block_diagonal_generator, rotation_angles_
from vfrnn_kernels.activations import activate, has_beta


class ExpRNN(nn.Module):
    r"""h_t = act(V x_t + Q h_{t-1}), Q = Q_0 exp(A) by geotorch, A skew-symmetric and 0 at first.

    Weights, biases and step are those of the published code of Lezcano-Casado and Martinez-Rubio 2019 (arXiv
    1901.08428): modReLU, no bias beside its beta, Kaiming's normal V, a base Q_0 that stays. Q_0 turns by the angles of
    `init` as our layers do.

    Args:
        input_size, hidden_size: sizes i and n.
        init: of the rotation angles.
        nonlinearity: an activation of ours.
        bias: of V x_t, for an activation without a beta.

    Raises:
        RuntimeError: geotorch is not installed.
    """

    def __init__(
        self, input_size: int, hidden_size: int, init: Init, nonlinearity: str = "modrelu", bias: bool = True
    ) -> None:
        super().__init__()
        try:
            geotorch: Any = importlib.import_module("geotorch")
        except ImportError as error:
            raise RuntimeError("the model 'geotorch' needs geotorch: pip install 'vfrnn-kernels[bench]'") from error
        self.nonlinearity = nonlinearity
        self.input = nn.Linear(input_size, hidden_size, bias=bias and not has_beta(nonlinearity))
        nn.init.kaiming_normal_(self.input.weight, nonlinearity="relu")
        self.beta = nn.Parameter(torch.empty(hidden_size).uniform_(-0.01, 0.01)) if has_beta(nonlinearity) else None
        self.recurrent = nn.Linear(hidden_size, hidden_size, bias=False)
        geotorch.orthogonal(self.recurrent, "weight")
        angles = rotation_angles_(torch.empty(hidden_size // 2), init)
        self.recurrent.weight = torch.linalg.matrix_exp(block_diagonal_generator(angles, hidden_size))

    def forward(self, x: Tensor | PackedSequence, hx: Tensor | None = None) -> tuple[Tensor | PackedSequence, Tensor]:
        """Inputs (T, B, i) and first states (1, B, n) to the states (T, B, n) and the last ones (1, B, n), as those of
        torch.nn.RNN."""
        if isinstance(x, PackedSequence):
            padded, lengths = pad_packed_sequence(x)
            states = self._states(padded, hx)
            last = states[lengths - 1, torch.arange(len(lengths))]
            return pack_padded_sequence(states, lengths, enforce_sorted=False), last[None]
        states = self._states(x, hx)
        return states, states[-1:]

    def _states(self, x: Tensor, hx: Tensor | None) -> Tensor:
        h = x.new_zeros(x.shape[1], self.recurrent.out_features) if hx is None else hx[0]
        states = []
        with nn.utils.parametrize.cached():
            for z in self.input(x):
                h = activate(z + self.recurrent(h), self.beta, self.nonlinearity)
                states.append(h)
        return torch.stack(states)
