"""The registry of providers: ours and the peers, each as one callable that runs forward and backward once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import vfrnn
from bench.workloads import Exponential, Sequence

Run = Callable[[], Tensor]


def _layer_run(layer: nn.Module, workload: Sequence) -> Run:
    x, grad = workload.inputs()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)

    def run() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        output = layer(x)[0]
        output.backward(grad)
        optimizer.step()
        return output.detach()

    return run


def recurrence_runs(workload: Sequence) -> dict[str, Run]:
    """Ours and torch.nn.RNN with the same weights (tanh): forward, backward, optimizer."""
    peer = nn.RNN(workload.i, workload.n)
    ours = vfrnn.RNN(workload.i, workload.n)
    ours.load_state_dict(peer.state_dict())
    return {"vfrnn.RNN": _layer_run(ours, workload), "torch.nn.RNN": _layer_run(peer, workload)}


def training_step_runs(workload: Sequence) -> dict[str, Run]:
    """A whole training step of the orthogonal models; the peer is PyTorch's parametrization of nn.RNN."""
    peer = nn.utils.parametrizations.orthogonal(nn.RNN(workload.i, workload.n), "weight_hh_l0")
    return {
        "vfrnn.OrthogonalRNN": _layer_run(vfrnn.OrthogonalRNN(workload.i, workload.n), workload),
        "vfrnn.VFRNN": _layer_run(vfrnn.VFRNN(workload.i, workload.n), workload),
        "orthogonal(torch.nn.RNN)": _layer_run(peer, workload),
    }


def exponential_runs(workload: Exponential) -> dict[str, Run]:
    """Ours and torch.matrix_exp, forward and backward."""
    S, grad = workload.inputs()

    def run_of(function: Callable[[Tensor], Tensor]) -> Run:
        def run() -> Tensor:
            leaf = S.clone().requires_grad_()
            Q = function(leaf)
            Q.backward(grad)
            return Q.detach()

        return run

    return {"vfrnn.skew_expm": run_of(vfrnn.skew_expm), "torch.matrix_exp": run_of(torch.matrix_exp)}
