"""What networks compute on sequences, as loops over samples and steps: float64, and no code of the package but the step
matrix of a field that does not read the input, which has tests of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.cases import dense_flow
from tests.oracles import activate
from vfrnn import RNN, VFRNN, InputFieldRNN, LatentMesh, OrthogonalRNN

F64 = torch.float64
NETWORKS = (RNN, VFRNN, OrthogonalRNN, InputFieldRNN)
#: Of what must say the same as torch.nn.RNN, whose checks and messages PyTorch 2.11 changed.
in_todays_words = pytest.mark.skipif(torch.__version__ < "2.11", reason="the words are those of PyTorch 2.11")
#: The reference of a flow takes seconds.
on_every_backend = pytest.mark.parametrize(
    ("network_type", "backend"),
    [
        pytest.param(kind, name, marks=[pytest.mark.slow] * (kind is InputFieldRNN and name == "reference"))
        for kind in NETWORKS
        for name in ("cpu", "reference")
    ],
)


def construct(kind, *args, input_size=3, hidden_size=5, dtype=F64, **options):
    """A network or cell in float64 with every parameter away from 0 and no rotation by large angles."""
    if kind.__name__.startswith("InputField"):
        mesh = LatentMesh.random(hidden_size, cells=4, dim=2, dtype=F64)
        options = {"mesh": mesh, "init": "zero", "substeps": 8, "nonlinearity": "tanh", **options}
    network = kind(input_size, hidden_size, *args, dtype=F64, **options)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            small = kind.__name__.startswith("InputField") and name.startswith("field")  # the series of a flow is exact
            parameter.add_((0.02 if small else 0.2) * torch.randn_like(parameter))
    return network.to(dtype)


def step_of(network, suffix: str, dt: Any = None) -> Callable[[Tensor, Tensor, Any], Tensor]:
    """(what is read of h (n,), x (i,), the step's time or None) -> act(M h + U x + c), of a layer in float64."""
    read = lambda name: getattr(network, name + suffix, None)  # noqa: E731
    U, beta = read("weight_ih"), read("beta")
    c = read("bias_ih") + read("bias_hh") if isinstance(network, RNN) else read("bias")
    if not isinstance(network, (RNN, InputFieldRNN)):
        layer, reverse = int(suffix[2]), suffix.endswith("reverse")
        shared = network.step_matrix(layer, reverse, dt=dt if not isinstance(dt, Tensor) or dt.dim() == 0 else None)

    def step(h: Tensor, x: Tensor, time: Any) -> Tensor:
        if isinstance(network, RNN):
            moved = read("weight_hh") @ h
        elif isinstance(network, InputFieldRNN):
            v = read("field") + read("field_input_weight") @ x
            mesh = network.mesh
            moved = dense_flow(
                h[None], v[None], mesh.b, mesh.w, mesh.N, mesh.G, network.dt if dt is None else dt,
                read("divergence_scale"), substeps=network.substeps, exponential=torch.linalg.matrix_exp,
            )[0]  # fmt: skip
        else:
            moved = (shared if time is None else network.step_matrix(layer, reverse, dt=time)) @ h
        return activate(network.nonlinearity, moved + U @ x + c, beta)

    return step


def loop(
    network,
    x: Tensor,
    hx: Tensor | None = None,
    *,
    reset: Tensor | None = None,
    lengths: list[int] | None = None,
    dt: Any = None,
    change: Callable[..., Tensor] | None = None,
) -> tuple[list[Tensor], Tensor]:
    """Every layer's output (T, B, directions n), 0 behind the ends, and h_n, on x (T, B, i).

    `change(index of layer and direction, t, b, h, step)` is the next state in the place of `step(h)`.
    """
    T, B, _ = x.shape
    lengths = [T] * B if lengths is None else lengths
    outputs, last = [], []
    for layer in range(network.num_layers):
        directions = []
        for reverse in (False, True)[: 1 + network.bidirectional]:
            suffix = f"_l{layer}_reverse" if reverse else f"_l{layer}"
            step, k, ends = step_of(network, suffix, dt), len(last), []
            start = getattr(network, "h0" + suffix) if network.learn_h0 else x.new_zeros(network.hidden_size)
            rows = [[x.new_zeros(network.hidden_size)] * B for _ in range(T)]
            for b in range(B):
                h = start if hx is None else hx[k, b]
                for t in reversed(range(lengths[b])) if reverse else range(lengths[b]):
                    # forwards the boundary before t is crossed on the way to t, backwards that before t + 1
                    crossed = t + 1 if reverse else t
                    if reset is not None and crossed < lengths[b] and reset[crossed, b]:
                        h = start
                    time = None
                    if isinstance(dt, Tensor) and dt.dim() > 0:
                        time = dt[t] if dt.dim() == 1 else dt[t, b]
                    now = functools.partial(step, x=x[t, b], time=time)
                    h = now(h) if change is None else change(k, t, b, h, now)
                    rows[t][b] = h
                ends.append(h)
            directions.append(torch.stack([torch.stack(row) for row in rows]))
            last.append(torch.stack(ends))
        x = torch.cat(directions, -1)
        outputs.append(x)
    return outputs, torch.stack(last)


def weighed(*tensors: Tensor) -> Tensor:
    """A scalar that weighs every entry differently."""
    return sum((t * torch.linspace(-1, 2, t.numel(), dtype=t.dtype).view_as(t)).sum() for t in tensors)


def compare(network, mine: list[Tensor], expected: list[Tensor], leaves: list[Tensor]) -> None:
    """Values, and gradients of all leaves and parameters: sums of some ten terms in float64, or with the series of a
    flow, whose degree is chosen for an error of some 1e-9."""
    tolerance = 1e-7 if isinstance(network, InputFieldRNN) else 1e-10
    for one, other in zip(mine, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
    leaves = [*network.parameters(), *leaves]
    gradients = [torch.autograd.grad(weighed(*values), leaves, allow_unused=True) for values in (mine, expected)]
    for one, other in zip(*gradients, strict=True):
        if other is None:
            assert one is None or not one.any()
        else:
            torch.testing.assert_close(one, other, rtol=10 * tolerance, atol=10 * tolerance)
