"""Noise on the state in training: recurrent dropout and zoneout, around the steps of any layer."""

from __future__ import annotations

import numbers
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from vfrnn.rounding import wider
from vfrnn.steps import Steps, is_per_step


@dataclass(frozen=True)
class StateNoise:
    r"""What a step reads of the state, and what it leaves of it.

    .. math:: h_t = z_t \odot h_{t-1} + (1 - z_t) \odot f(m \odot h_{t-1}, x_t)

    Recurrent dropout (Gal and Ghahramani 2016, arXiv 1512.05287): m is drawn once for a sequence, layer and direction;
    its entries are 0 with that probability p, and else 1 / (1 - p). In evaluation it is 1. Zoneout (Krueger et al.
    2017, arXiv 1606.01305): the entries of z_t are drawn for every step, 1 with that probability; in evaluation z_t is
    the probability itself. Both are drawn as `torch.nn.functional.dropout` draws, by the same generator.

    Attributes:
        recurrent_dropout, zoneout: the probabilities.
        training: whether it is training.
    """

    recurrent_dropout: float
    zoneout: float
    training: bool

    def __post_init__(self) -> None:  # the module's attributes can be set to anything
        check_probability("recurrent_dropout", self.recurrent_dropout)
        check_probability("zoneout", self.zoneout)

    @property
    def drops(self) -> bool:
        """Whether m is drawn."""
        return self.training and self.recurrent_dropout > 0

    @property
    def acts(self) -> bool:
        """Whether steps are others than without noise."""
        return self.drops or self.zoneout > 0

    def mask(self, h: Tensor) -> Tensor:
        """m for states like h (B, n)."""
        return F.dropout(torch.ones_like(h), self.recurrent_dropout)

    def kept(self, h: Tensor, *steps: int) -> Tensor | None:
        """Where z_t is 1, boolean, for so many steps from states like h; None where nothing is drawn."""
        if self.zoneout == 0 or not self.training:
            return None
        return F.dropout(h.new_ones(*steps, *h.shape), self.zoneout) == 0

    def left(self, before: Tensor, after: Tensor, kept: Tensor | None) -> Tensor:
        """h_t from h_{t-1} and f, with `kept` of this step."""
        if kept is not None:
            return torch.where(kept, before, after)
        return after if self.zoneout == 0 else torch.lerp(after, before, self.zoneout)

    def around(self, steps: Steps) -> Steps:
        """The steps with noise, one call each; 16-bit inputs are computed in float32 and rounded once."""

        def states(x: Tensor, h0: Tensor, dt: Tensor | None = None, sequence: bool = True) -> Tensor:
            if isinstance(x.shape[0], torch.SymInt):
                name = "recurrent_dropout" if self.drops else "zoneout"
                raise RuntimeError(
                    f"{name} must be 0 in a program for every T: its steps are called one by one, so many as there are "
                    "when the program is made (export it with a T that is not dynamic)"
                )
            wide = wider(x.dtype) or x.dtype
            h, hs = h0.to(wide), []
            m = self.mask(h) if self.drops else None
            drawn = self.kept(h, x.shape[0])
            kept = [None] * x.shape[0] if drawn is None else drawn.unbind()
            for x_t, kept_t in zip(x.to(wide).split(1), kept, strict=True):
                h = self.left(h, steps(x_t, h if m is None else h * m)[0], kept_t)
                if sequence:
                    hs.append(h)
            return (torch.stack(hs) if sequence else h).to(x.dtype)

        return states if self.acts else steps


def check_noise(noise: StateNoise, dt: object) -> None:
    """Steps with noise are called one by one, which those with times of their own are too dear for.

    Raises:
        ValueError: noise acts, and dt is a time for every step.
    """
    if noise.acts and (isinstance(dt, PackedSequence) or is_per_step(dt)):
        name = "recurrent_dropout" if noise.drops else "zoneout"
        raise ValueError(
            f"dt must be one time for all steps where {name} acts, got one for every step: each step would find the "
            "planes of the generator again"
        )


def check_probability(name: str, value: object) -> float:
    """A probability as a float.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value <= 1:  # type: ignore[operator]
        raise ValueError(f"{name} must be a probability, a number in [0, 1], got {value!r}")
    return float(value)
