"""Orthogonal matrices that are not square: their checkpoints, old and new, copies, export, memory."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal as torch_orthogonal

from tests.cases import orthogonality_error
from vfrnn.parametrizations import orthogonal, rebase


def holder(shape, dtype=torch.float64):
    """A module with a random matrix `weight`."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.randn(shape, dtype=dtype))
    return module


def checkpoint_of_torch(shape):
    """A `state_dict` with a square base and the weight it stands for."""
    theirs = torch_orthogonal(holder(shape), "weight", "matrix_exp")
    with torch.no_grad():
        theirs.parametrizations.weight.original.normal_()
    return theirs.state_dict(), theirs.weight.detach()


@pytest.mark.parametrize("shape", [(9, 2), (2, 9), (3, 7, 2), (5, 4)], ids=str)
def test_a_square_base_is_converted(shape):
    state, weight = checkpoint_of_torch(shape)
    before = {key: value.clone() for key, value in state.items()}
    model = nn.Sequential(orthogonal(holder(shape), orthogonal_map="matrix_exp"))
    model.load_state_dict({f"0.{key}": value for key, value in state.items()})
    torch.testing.assert_close(model[0].weight, weight, rtol=0, atol=1e-12)
    assert model[0].parametrizations.weight[0].base.numel() == weight.numel()
    assert all(torch.equal(before[key], state[key]) for key in before)  # the caller's dict is left alone
    again = orthogonal(holder(shape), orthogonal_map="matrix_exp")
    again.load_state_dict(model[0].state_dict())
    assert torch.equal(again.weight, model[0].weight)
    copied = copy.deepcopy(again)
    copied.load_state_dict(state)
    torch.testing.assert_close(copied.weight, weight, rtol=0, atol=1e-12)
    # steps of training go the same way from here
    for module in (copied, theirs := torch_orthogonal(holder(shape), "weight", "matrix_exp")):
        module.load_state_dict(state)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (module.weight * torch.arange(weight.numel()).view(shape)).sum().div(weight.numel()).backward()
            optimizer.step()
    torch.testing.assert_close(copied.weight, theirs.weight, rtol=0, atol=1e-10)


def test_a_square_base_alone_is_refused():
    state, _ = checkpoint_of_torch((9, 2))
    del state["parametrizations.weight.original"]
    with pytest.raises(RuntimeError, match=r"base has shape \(9, 9\), .* converted only together with its parameter"):
        orthogonal(holder((9, 2))).load_state_dict(state, strict=False)


def test_a_module_pickled_with_a_square_base_is_refused():
    module = orthogonal(holder((5, 2)))
    module.parametrizations.weight[0].base = torch.eye(5)  # as earlier versions kept it
    with pytest.raises(RuntimeError, match=r"pickled by an earlier version, with a base of shape \(5, 5\) where"):
        pickle.loads(pickle.dumps(module.parametrizations.weight[0]))


@pytest.mark.parametrize("shape", [(9, 2), (2, 9), (4, 4)], ids=str)
def test_copies_and_pickles(shape):
    module = orthogonal(holder(shape, torch.float32))
    nn.init.normal_(module.parametrizations.weight.original)
    assert torch.equal(copy.deepcopy(module).weight, module.weight)
    matrix = pickle.loads(pickle.dumps(module.parametrizations.weight[0]))
    X = module.parametrizations.weight.original
    assert torch.equal(matrix(X), module.weight)


@pytest.mark.parametrize("shape", [(30, 4), (4, 30)], ids=str)
def test_many_rebases_of_a_frame_do_not_drift(shape):
    module = orthogonal(holder(shape, torch.float32))
    for _ in range(100):
        nn.init.normal_(module.parametrizations.weight.original)
        rebase(module)
    Q = module.weight.detach()
    assert orthogonality_error(Q if shape[0] > shape[1] else Q.mT) < 5e-7


@pytest.mark.parametrize("shape", [(40, 3), (3, 40)], ids=str)
def test_a_frame_is_exported(shape):
    layer = nn.Linear(shape[1], shape[0])
    layer = orthogonal(layer)
    nn.init.normal_(layer.parametrizations.weight.original)
    x = torch.randn(2, shape[1])
    program = torch.export.export(layer, (x,))
    torch.testing.assert_close(program.module()(x), layer(x))


FRAME = """
import ctypes, sys, time
import torch
from torch import nn
from vfrnn.parametrizations import orthogonal, rebase

def reading(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) * 1024

def made(n, k):
    layer = orthogonal(nn.Linear(k, n, bias=False))
    with torch.no_grad():
        layer.parametrizations.weight.original.normal_().div_(n**0.5)
    return layer, torch.randn(n, k)

def step(layer, grad):
    start, weight = time.perf_counter(), layer.weight
    weight.backward(grad)
    return weight.detach(), time.perf_counter() - start

n, k = map(int, sys.argv[1:])
torch.set_num_threads(2)
step(*made(20 * k, k))  # libraries load and threads start
layer, grad = made(n, k)
ctypes.CDLL(None).malloc_trim(0)
open("/proc/self/clear_refs", "w").write("5")
before = reading("VmRSS")
step(layer, grad)
peak = reading("VmHWM") - before
seconds = min(step(layer, grad)[1] for _ in range(5))
rebase(layer)
Q = step(layer, grad)[0].double()
print(peak / (4 * n * k), seconds, float((Q.mT @ Q - torch.eye(k)).abs().max()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(6000, 50), (20000, 20), (60000, 50)], ids=str)
def test_memory_and_time_of_a_frame(shape):
    run = subprocess.run([sys.executable, "-c", FRAME, *map(str, shape)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    numbers, seconds, error = map(float, run.stdout.split())
    # In units of n k about 9 are measured: two of them stay, the weight and the gradient of the parameter. An n x n
    # matrix of floats would be n / k = 120 or more.
    assert numbers <= 14
    # A hundredth of that is measured; through n x n matrices it is minutes.
    assert seconds <= 2
    assert error <= 3e-6
