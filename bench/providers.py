"""The registry of providers: ours and the peers, each as one callable that does the whole work once and returns its
result. In every dictionary ours come first; peers that compute the same function have the same weights."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import vfrnn
from bench.workloads import Exponential, Mesh, Sequence
from vfrnn_kernels import field_flow, field_generator

Run = Callable[[], Tensor]
Runs = dict[str, Run]


def _training_step(layer: nn.Module, workload: Sequence, forward: Callable[[Tensor], Tensor] | None = None) -> Run:
    x, grad = workload.inputs()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)

    def run() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        output = layer(x)[0] if forward is None else forward(x)
        output.backward(grad)
        optimizer.step()
        return output.detach()

    return run


def _cell(h: Tensor, z: Tensor, M: Tensor) -> Tensor:
    return torch.tanh(torch.addmm(z, h, M.mT))


def _loop(x: Tensor, U: Tensor, c: Tensor, M: Tensor, cell: Callable[..., Tensor]) -> Tensor:
    """A tuned Python loop: the input product hoisted, two operations a step."""
    z = torch.nn.functional.linear(x, U, c).unbind(0)
    h, hs = z[0].new_zeros(z[0].shape), []
    for z_t in z:
        h = cell(h, z_t, M)
        hs.append(h)
    return torch.stack(hs)


def recurrence_runs(workload: Sequence) -> Runs:
    """Forward and backward of a tanh layer. The compiled loop compiles a step: unrolled, T steps take minutes."""
    peer = nn.RNN(workload.i, workload.n)
    ours = vfrnn.RNN(workload.i, workload.n)
    ours.load_state_dict(peer.state_dict())
    U, M, c = peer.weight_ih_l0, peer.weight_hh_l0, peer.bias_ih_l0
    nn.init.zeros_(peer.bias_hh_l0)
    nn.init.zeros_(ours.bias_hh_l0)
    compiled = torch.compile(_cell, dynamic=False)
    return {
        "vfrnn.RNN": _training_step(ours, workload),
        "torch.nn.RNN": _training_step(peer, workload),
        "loop": _training_step(peer, workload, lambda x: _loop(x, U, c, M, _cell)),
        "loop, compiled step": _training_step(peer, workload, lambda x: _loop(x, U, c, M, compiled)),
    }


def inference_runs(workload: Sequence) -> Runs:
    """The forward without a graph."""
    peer = nn.RNN(workload.i, workload.n)
    ours = vfrnn.RNN(workload.i, workload.n)
    ours.load_state_dict(peer.state_dict())
    x, _ = workload.inputs()

    def run(layer: nn.Module) -> Tensor:
        with torch.inference_mode():
            return layer(x)[0]

    return {"vfrnn.RNN": functools.partial(run, ours), "torch.nn.RNN": functools.partial(run, peer)}


def activation_runs(workload: Sequence) -> Runs:
    """Our modReLU beside our tanh."""
    layers = {name: vfrnn.OrthogonalRNN(workload.i, workload.n, nonlinearity=name) for name in ("modrelu", "tanh")}
    return {f"vfrnn {name}": _training_step(layer, workload) for name, layer in layers.items()}


class _GeotorchRNN(nn.Module):
    def __init__(self, workload: Sequence) -> None:
        super().__init__()
        import geotorch  # an optional peer

        self.input, self.recurrent = nn.Linear(workload.i, workload.n), nn.Linear(workload.n, workload.n, bias=False)
        geotorch.orthogonal(self.recurrent, "weight")

    def forward(self, x: Tensor) -> tuple[Tensor]:
        with nn.utils.parametrize.cached():
            return (_loop(x, self.input.weight, self.input.bias, self.recurrent.weight, _cell),)


def training_step_runs(workload: Sequence) -> Runs:
    """A whole training step of the orthogonal models and of the general field on the complete mesh."""
    peer = nn.utils.parametrizations.orthogonal(nn.RNN(workload.i, workload.n), "weight_hh_l0")
    runs = {
        "vfrnn.OrthogonalRNN": _training_step(vfrnn.OrthogonalRNN(workload.i, workload.n), workload),
        "vfrnn.VFRNN": _training_step(vfrnn.VFRNN(workload.i, workload.n), workload),
        "orthogonal(torch.nn.RNN)": _training_step(peer, workload),
    }
    with contextlib.suppress(ImportError):
        runs["geotorch, cached"] = _training_step(_GeotorchRNN(workload), workload)
    return runs


def _differentiated(function: Callable[..., Any], tensors: dict[str, Tensor], learned: str, grads: Any) -> Run:
    leaves = {name: tensor.clone().requires_grad_(name in learned) for name, tensor in tensors.items()}

    def run() -> Tensor:
        for leaf in leaves.values():
            leaf.grad = None
        results = function(**leaves)
        results = results if isinstance(results, tuple) else (results,)
        torch.autograd.backward(results, grads)
        return results[0].detach()

    return run


def exponential_runs(workload: Exponential) -> Runs:
    """Ours and torch.matrix_exp, forward and backward."""
    S, grad = workload.inputs()

    def run_of(function: Callable[[Tensor], Tensor]) -> Run:
        return _differentiated(lambda S: function(S), {"S": S}, "S", (grad,))

    return {"vfrnn.skew_expm": run_of(vfrnn.skew_expm), "torch.matrix_exp": run_of(torch.matrix_exp)}


def _generator(b: Tensor, w: Tensor, N: Tensor, G: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    flux = torch.bmm((w[:, None] * v).unsqueeze(1), G).squeeze(1)
    H = N.mT @ flux
    r = b.rsqrt()
    return (H - H.mT) * (0.5 * r[:, None] * r), -flux.sum(0) / b


def _flow(h: Tensor, v: Tensor, b: Tensor, w: Tensor, N: Tensor, G: Tensor, dt: float, order: int) -> Tensor:
    """Two GEMMs a term: the gradient and the average stacked into one matrix."""
    m, d, n = G.shape
    r = b.rsqrt()
    stacked, wv = torch.cat([(G * r).reshape(m * d, n), N * r]), w[:, None] * v
    e = torch.exp(dt / 4 * (wv.flatten(1) @ G.reshape(m * d, n)) / b)
    u = e * h
    y = u
    for j in range(order - 1, -1, -1):
        z = y @ stacked.mT
        g, a = z[:, : m * d].unflatten(1, (m, d)), z[:, m * d :]
        p, q = (wv * g).sum(-1), (a.unsqueeze(-1) * wv).flatten(1)
        y = u + dt / (2 * (j + 1)) * (torch.cat([-q, p], 1) @ stacked)
    return e * y


def mesh_runs(workload: Mesh) -> Runs:
    """The field ops and the same formulas in PyTorch, eager and compiled; one substep, which they do not check."""
    tensors, grads = workload.inputs()
    functions: dict[str, Callable[..., Any]]
    if workload.B == 0:
        functions = {"vfrnn.field_generator": field_generator, "eager": _generator, "compiled": _generator}
    else:
        ours = functools.partial(field_flow, dt=workload.dt, order=workload.order, substeps=1)
        peer = functools.partial(_flow, dt=workload.dt, order=workload.order)
        functions = {"vfrnn.field_flow": ours, "eager": peer, "compiled": peer}
    functions["compiled"] = torch.compile(functions["compiled"], dynamic=False)
    return {name: _differentiated(f, tensors, workload.learned, grads) for name, f in functions.items()}
