r"""The gradient over the lag: how much of a change of an earlier state reaches a later one, in the true recurrence.

.. math:: J_k = \frac{\partial h_T}{\partial h_{T-k}}
    = \prod_{t = T-k+1}^{T} \operatorname{diag}(\mathrm{act}'(z_t))\, M_t

Its spectral norm is by how much the last k steps stretch a gradient at most. Unlike `\|M^k\|` it depends on the data,
through act', and where times or fields come with the input through :math:`M_t`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, unpack_sequence

from vfrnn.network import Network, suffix_of
from vfrnn.steps import InputFieldStep, Steps, is_per_step

#: Step t on states (B * copies, n), every sample's `copies` times in a row.
Step = Callable[[int, Tensor, int], Tensor]


@dataclass(frozen=True)
class Sequences:
    """Equally long sequences as a network read them, in float64: x (T, B, i), h0 (layers * directions, B, n), and dt,
    a number or None, or times (T,) or (T, B)."""

    x: Tensor
    h0: Tensor
    dt: Any


def recorded_calls(module: nn.Module, networks: dict[str, Network], example: Any) -> dict[str, list[Sequences]]:
    """What every network reads in its first call when the module is called with the example, in evaluation.

    Args:
        module: the whole model.
        networks: those of it, by name.
        example: the model's input; a tuple (that is no PackedSequence) is its arguments.

    Returns:
        The sequences by the network's name; a network that is not called is missing. Those of a PackedSequence come
        one by one.
    """
    found: dict[str, list[Sequences]] = {}
    arguments = example if type(example) is tuple else (example,)
    try:
        inspect.signature(module.forward).bind(*arguments)
    except TypeError as error:
        raise TypeError(f"x must be what a {type(module).__name__} is called with, but {error}") from error

    def recorder(name: str, network: Network) -> Any:
        def record(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            if name not in found:
                call = dict(zip(("input", "hx"), arguments, strict=False)) | named
                found[name] = _sequences(network, call)

        return record

    hooks = [
        network.register_forward_hook(recorder(name, network), with_kwargs=True) for name, network in networks.items()
    ]
    training = {part: part.training for part in module.modules()}
    try:
        module.eval()
        with torch.no_grad():
            module(*arguments)
    finally:
        for hook in hooks:
            hook.remove()
        for part, mode in training.items():
            part.training = mode
    return found


def _sequences(network: Network, call: dict[str, Any]) -> list[Sequences]:
    input: Any = call["input"]
    hx: Any = call.get("hx")
    dt: Any = call.get("dt")
    lengths: Any = call.get("lengths")
    if call.get("reset") is not None:
        raise ValueError("the example must be read without reset: no gradient crosses it")
    if lengths is not None:
        input = pack_padded_sequence(input, torch.as_tensor(lengths).cpu(), network.batch_first, enforce_sorted=False)
    if isinstance(input, PackedSequence):
        inputs = unpack_sequence(input)
        if isinstance(dt, PackedSequence):
            times = unpack_sequence(dt)
        elif is_per_step(dt):
            table = dt.mT if network.batch_first and dt.dim() == 2 else dt
            times = [(table if table.dim() == 1 else table[:, k])[: len(x)] for k, x in enumerate(inputs)]
        else:
            times = [dt] * len(inputs)
        states = [None if hx is None else hx[:, k : k + 1] for k in range(len(inputs))]
        return [_sequence(network, x[:, None], h, t) for x, h, t in zip(inputs, states, times, strict=True)]
    if input.dim() == 2:
        return [_sequence(network, input[:, None], None if hx is None else hx[:, None], dt)]
    if network.batch_first:
        return [_sequence(network, input.transpose(0, 1), hx, dt.mT if is_per_step(dt) and dt.dim() == 2 else dt)]
    return [_sequence(network, input, hx, dt)]


def _sequence(network: Network, x: Tensor, hx: Tensor | None, dt: Any) -> Sequences:
    x = x.detach().to("cpu", torch.float64)
    shape = network.get_expected_hidden_size(x if not network.batch_first else x.transpose(0, 1), None)
    h0 = (network._first_states(x, shape) if hx is None else hx).detach().to(x)
    return Sequences(x, h0, dt.detach().to(h0) if isinstance(dt, Tensor) else dt)


def gradients_over_lags(twin: Network, sequences: Sequences, lags: Sequence[int]) -> Iterator[Tensor]:
    """For each layer and direction, in order, the norms (len(lags), B) of d h_T / d h_{T-k}, by autograd in float64.

    T is the last step in the order of the direction, which is the first input of the second one. A field that reads the
    input plans its substeps: those that suffice in float32 do not in float64.
    """
    rule = replace(twin.rule, substeps=None) if isinstance(twin.rule, InputFieldStep) else twin.rule
    x, h0, dt = sequences.x, iter(sequences.h0), sequences.dt
    for k in range(twin.num_layers):
        directions = []
        for reverse in (False, True)[: 1 + twin.bidirectional]:
            layer, first = twin._layer(suffix_of(k, reverse)), next(h0)
            seen = x.flip(0) if reverse else x
            times = dt.flip(0) if reverse and is_per_step(dt) else dt
            steps = twin._noise().around(rule.steps(layer, times))
            states = steps(seen, first, times if is_per_step(times) else None)
            before = torch.cat([first[None], states[:-1]])
            yield _norms(_step(steps, seen, times), before, lags)
            directions.append(states.flip(0) if reverse else states)
        x = torch.cat(directions, -1)


def _step(steps: Steps, x: Tensor, dt: Any) -> Step:
    def step(t: int, h: Tensor, copies: int) -> Tensor:
        time = dt[t : t + 1] if is_per_step(dt) else None
        time = time.repeat_interleave(copies, 1) if time is not None and time.dim() == 2 else time
        return steps(x[t : t + 1].repeat_interleave(copies, 1), h, time)[0]

    return step


def _norms(step: Step, before: Tensor, lags: Sequence[int]) -> Tensor:
    """The rows of J_k are pulled back through one more step for every lag, all samples and rows at once. NaN where it
    is not finite, in samples whose states are not."""
    T, B, n = before.shape
    J = torch.eye(n, dtype=before.dtype).expand(B, n, n)
    logarithms, lost, norms = before.new_zeros(B), torch.zeros(B, dtype=torch.bool), []
    for k in range(1, max(lags) + 1):
        h = before[T - k].repeat_interleave(n, 0).requires_grad_()
        with torch.enable_grad():
            (J,) = torch.autograd.grad(step(T - k, h, n), h, J.reshape(B * n, n))
        J = J.view(B, n, n)
        sizes = J.abs().amax((1, 2))
        sizes = torch.where(sizes == 0, 1.0, sizes)
        lost |= ~sizes.isfinite()
        J, logarithms = J / sizes[:, None, None], logarithms + sizes.log()
        J = torch.where(lost[:, None, None], 0.0, J)
        if k in lags:
            found = (torch.linalg.matrix_norm(J, ord=2).log() + logarithms).exp()
            norms.append(torch.where(lost, math.nan, found))
    return torch.stack(norms)
