"""RNNCell, VFRNNCell and OrthogonalRNNCell: one step of the networks of rnn.py, as torch.nn.RNNCell."""

from __future__ import annotations

import torch
from torch import Tensor

from vfrnn.init import Init
from vfrnn.layers import Recurrent, rule_argument
from vfrnn.mesh import LatentMesh
from vfrnn.steps import FieldStep, PlainStep, StepRule, Steps
from vfrnn_kernels.activations import Activation
from vfrnn_kernels.checks import LARGEST_SIZE, check_dense, check_shape, check_tensor


class Cell(Recurrent):
    """One recurrent step: shapes and messages are those of torch.nn.RNNCell."""

    def __init__(
        self,
        rule: StepRule,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool,
        nonlinearity: Activation,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        recurrent_dropout: float,
        zoneout: float,
        backend: str | None,
        mesh: LatentMesh | None = None,
    ) -> None:
        super().__init__(
            rule, input_size, hidden_size, nonlinearity=nonlinearity, bias=bias, backend=backend, mesh=mesh,
            recurrent_dropout=recurrent_dropout, zoneout=zoneout,
        )  # fmt: skip
        self._add_layer(input_size, "", device, dtype)
        self.reset_parameters()

    def dropout_mask(self, batch_size: int | None = None) -> Tensor | None:
        """The mask of recurrent dropout (B, hidden_size), or (hidden_size,) for unbatched states, drawn as
        `torch.nn.functional.dropout` draws; None where no such dropout acts. A loop over time draws it once and passes
        it to every step.

        Raises:
            TypeError, ValueError: batch_size is no number of samples.
        """
        if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, (int, torch.SymInt))):
            raise TypeError(f"batch_size must be an int or None, got {type(batch_size).__name__}")
        if batch_size is not None and batch_size < 0:
            raise ValueError(f"batch_size must be at least 0, got {batch_size}")
        if isinstance(batch_size, int) and batch_size > LARGEST_SIZE:
            raise ValueError(f"batch_size must be at most {LARGEST_SIZE}, got {batch_size}")
        if not self._noise().drops:
            return None
        shape = (self.hidden_size,) if batch_size is None else (batch_size, self.hidden_size)
        return self._noise().mask(self._weight().new_empty(shape))

    def forward(self, input: Tensor, hx: Tensor | None = None, *, mask: Tensor | None = None) -> Tensor:
        """The next state.

        Args:
            input: (B, input_size) or (input_size,).
            hx: the state, (B, hidden_size) or (hidden_size,); zero if not given.
            mask: shaped as hx, the result of `dropout_mask`: what the step reads of the state is multiplied by it. In
                training with `recurrent_dropout` it must be given: a cell does not know where a sequence begins.

        Returns:
            h' (B, hidden_size) or (hidden_size,).

        Raises:
            TypeError, ValueError, RuntimeError: an argument has the wrong type, dtype or shape.
        """
        x, h = self._checked(input, hx)
        return self._next(self.rule.steps(self._layer("")), x, h, mask, input)

    def _checked(self, input: Tensor, hx: Tensor | None) -> tuple[Tensor, Tensor]:
        """The arguments of `forward` as a sequence of one step, x (1, B, i), and a state (B, n)."""
        name = type(self).__name__
        for argument, value in (("input", input), ("hidden", hx)):
            if not isinstance(value, Tensor) and not (argument == "hidden" and value is None):
                raise TypeError(f"{name}: {argument} must be a tensor, got {type(value).__name__}")
            if value is not None:
                check_dense(f"{name}: {argument}", value)
            if value is not None and value.dim() not in (1, 2):
                raise ValueError(f"{name}: Expected {argument} to be 1D or 2D, got {value.dim()}D instead")
        batched = input.dim() == 2
        self._check_dtype("input", input)
        x = input if batched else input.unsqueeze(0)
        if x.shape[1] != self.input_size:
            raise RuntimeError(f"input has inconsistent input_size: got {x.shape[1]} expected {self.input_size}")
        h = x.new_zeros(x.shape[0], self.hidden_size) if hx is None else hx if batched else hx.unsqueeze(0)
        if h.dim() != 2 or h.shape[0] != x.shape[0]:
            raise RuntimeError(f"Input batch size {x.shape[0]} doesn't match hidden0 batch size {h.shape[0]}")
        if h.shape[1] != self.hidden_size:
            raise RuntimeError(f"hidden0 has inconsistent hidden_size: got {h.shape[1]}, expected {self.hidden_size}")
        self._check_dtype("hx", h)
        dtype = self._dtype()  # only autocast lets theirs differ; the ops convert further
        return x.to(dtype).unsqueeze(0), h.to(dtype)

    def _next(self, steps: Steps, x: Tensor, h: Tensor, mask: Tensor | None, input: Tensor) -> Tensor:
        """The state after the one step on x (1, B, i) from h (B, n), batched like the input.

        Raises:
            TypeError, ValueError: the mask does not fit the state, or is missing.
        """
        noise, read = self._noise(), h
        if mask is not None:
            check_tensor("mask", mask, h, "the state")
            expected = h.shape if input.dim() == 2 else h.shape[1:]
            check_shape("mask", mask, "(B, n)" if input.dim() == 2 else "(n,)", expected, n=self.hidden_size)
            read = h * mask
        elif noise.drops:
            raise ValueError(
                "mask must be given where recurrent_dropout acts: mask = cell.dropout_mask(B), once for a sequence"
            )
        after = noise.left(h, steps(x, read)[0], noise.kept(h))
        return after if input.dim() == 2 else after.squeeze(0)

    def extra_repr(self) -> str:
        words = [f"{self.input_size}, {self.hidden_size}"]
        words += [] if self.has_bias else ["bias=False"]
        return ", ".join(words + self._words())


class RNNCell(Cell):
    r"""One step of an Elman RNN: torch.nn.RNNCell on this package's recurrence.

    .. math:: h' = \mathrm{act}(W_{hh} h + b_{hh} + W_{ih} x + b_{ih})

    Arguments are those of torch.nn.RNNCell, parameters too; `nonlinearity`, `recurrent_dropout` (with `dropout_mask`),
    `zoneout` and `backend` are as in `vfrnn.RNN`.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Example:
        >>> tuple(RNNCell(10, 20)(torch.randn(3, 10)).shape)
        (3, 20)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: Activation = "tanh",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            PlainStep(),
            input_size,
            hidden_size,
            bias=bias,
            nonlinearity=nonlinearity,
            device=device,
            dtype=dtype,
            recurrent_dropout=recurrent_dropout,
            zoneout=zoneout,
            backend=backend,
        )
        self.bias = bias


class FieldCell(Cell):
    """A cell whose step matrix is the flow of a vector field."""

    rule: FieldStep
    dt: float = rule_argument("dt")
    init: Init = rule_argument("init")
    exp_dtype: torch.dtype | None = rule_argument("exp_dtype")

    def forward(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        *,
        dt: float | Tensor | None = None,
        M: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The next state.

        Args:
            input: (B, input_size) or (input_size,).
            hx: (B, hidden_size) or (hidden_size,); zero if not given.
            dt: duration of the step; replaces the constructor's.
            M: (n, n), the result of `step_matrix()`: a loop over time computes it once and passes it to every step.
            mask: as in `RNNCell.forward`.

        Returns:
            h' (B, hidden_size) or (hidden_size,).

        Raises:
            TypeError, ValueError, RuntimeError: an argument has the wrong type, dtype or shape.
        """
        if M is not None:
            check_tensor("M", M)
            check_shape("M", M, "(n, n)", (self.hidden_size, self.hidden_size), n=self.hidden_size)
        if M is not None and dt is not None:
            raise ValueError("dt must be None when M is given: M is the step of a certain dt")
        x, h = self._checked(input, hx)
        layer = self._layer("")
        steps = self.rule.with_matrix(layer, self.rule.matrix(layer, dt) if M is None else M)
        return self._next(steps, x, h, mask, input)

    def step_matrix(self, *, dt: float | Tensor | None = None) -> Tensor:
        """M (n, n), differentiable; `dt` replaces the constructor's."""
        return self.rule.matrix(self._layer(""), dt)


class VFRNNCell(FieldCell):
    r"""One step of a `VFRNN`.

    .. math:: h' = \mathrm{act}(M h + U x + c)

    Arguments are as in `VFRNN`. Parameters: weight_ih (n, i), bias (n,), field (m, d), divergence_scale (1,), and beta
    (n,) where the nonlinearity has one. Every call computes M; a loop over time computes it once and passes it:
    ``M = cell.step_matrix()``, ``h = cell(x, h, M=M)``.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Example:
        >>> tuple(VFRNNCell(10, 20)(torch.randn(3, 10)).shape)
        (3, 20)
    """

    substeps: int = rule_argument("substeps")
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
        mesh: LatentMesh | None = None,
        dt: float = 1.0,
        substeps: int = 1,
        init: Init = "henaff",
        volume_preserving: bool = False,
        exp_dtype: torch.dtype | None = None,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
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
            bias=bias,
            nonlinearity=nonlinearity,
            device=device,
            dtype=dtype,
            recurrent_dropout=recurrent_dropout,
            zoneout=zoneout,
            backend=backend,
            mesh=mesh,
        )


class OrthogonalRNNCell(FieldCell):
    """One step of an `OrthogonalRNN`, whose arguments it has; parameters are those of `VFRNNCell` without
    divergence_scale.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Example:
        >>> tuple(OrthogonalRNNCell(10, 20)(torch.randn(10)).shape)
        (20,)
    """

    orthogonal = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: Activation = "modrelu",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        mesh: LatentMesh | None = None,
        dt: float = 1.0,
        init: Init = "henaff",
        exp_dtype: torch.dtype | None = None,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        backend: str | None = None,
    ) -> None:
        rule = FieldStep(dt=dt, init=init, exp_dtype=exp_dtype, shares_mesh=mesh is not None, divergence=False)
        super().__init__(
            rule,
            input_size,
            hidden_size,
            bias=bias,
            nonlinearity=nonlinearity,
            device=device,
            dtype=dtype,
            recurrent_dropout=recurrent_dropout,
            zoneout=zoneout,
            backend=backend,
            mesh=mesh,
        )
