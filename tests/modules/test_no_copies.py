"""A training step copies no weight on the host: neither forward, nor backward, nor where gradients are stored."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import vfrnn

COPIES = ("aten::copy_", "aten::clone", "aten::contiguous", "aten::_to_copy")

NETWORKS = {
    "RNN": lambda: vfrnn.RNN(12, 40, 2, bidirectional=True),
    "VFRNN": lambda: vfrnn.VFRNN(12, 40, 2, bidirectional=True),
    "OrthogonalRNN": lambda: vfrnn.OrthogonalRNN(12, 40, batch_first=True),
    "VFRNN, general mesh": lambda: vfrnn.VFRNN(12, 40, mesh=vfrnn.LatentMesh.random(40, 30, 2)),
    "VFRNN, learned mesh": lambda: vfrnn.VFRNN(12, 40, mesh=vfrnn.LatentMesh.complete(40, learn=("b", "w"))),
}


def copies(run, shapes):
    """Names and shapes of the copies that `run` makes of tensors with one of the shapes."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True) as profiler:
        run()
    return [
        (event.name, shape)
        for event in profiler.events()
        if event.name in COPIES
        for shape in event.input_shapes[:1]
        if tuple(shape) in shapes
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_copies_no_weight(name):
    network = NETWORKS[name]()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    shapes = {tuple(tensor.shape) for tensor in (*network.parameters(), *network.buffers())} | {(40, 40), (1, 40, 40)}
    shapes.remove((40,))  # bias_ih and bias_hh have one gradient, which autograd copies for the second
    x = torch.randn(7, 3, 12)

    def step():
        optimizer.zero_grad()
        network(x)[0].square().sum().backward()
        optimizer.step()

    step()
    assert copies(step, shapes) == []


def test_a_copy_would_be_seen():
    weight = torch.randn(40, 40)
    assert copies(lambda: weight.mT.contiguous(), {(40, 40)})
    assert copies(weight.double, {(40, 40)})
