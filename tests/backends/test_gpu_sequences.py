"""Networks' arguments about sequences on the backends of a GPU: resets, lengths, noise on the state, first states.

They are put together from the ops, so that a backend must only give what the reference gives: values and gradients in
float32. Without a GPU: TRITON_INTERPRET=1, or VFRNN_CUDA_SIMULATED.
"""

import copy

import pytest
import torch

from tests.backends.gpu_cases import BACKENDS, DEVICE
from tests.cases import quick, relative_error
from tests.modules.loops import NETWORKS, construct, weighed
from vfrnn import InputFieldRNN
from vfrnn_kernels.loader import TRITON_INTERPRETED

pytestmark = pytest.mark.skipif(
    not BACKENDS, reason="needs a GPU, TRITON_INTERPRET=1 with Triton, or VFRNN_CUDA_SIMULATED"
)
T, B = 5, 3
#: By the argument: of the constructor, and of the call.
ARGUMENTS = {
    "reset": ({}, {"reset": torch.tensor([[0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)}),
    "reset and lengths": (
        {"learn_h0": True},
        {"reset": torch.tensor([[0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 0]], dtype=torch.bool),
         "lengths": [5, 1, 4]},
    ),
    "lengths": ({"bidirectional": True}, {"lengths": [2, 5, 1], "return_all_layers": True}),
    "recurrent_dropout": ({"recurrent_dropout": 0.4}, {}),
    "zoneout": ({"zoneout": 0.4, "learn_h0": True}, {}),
}  # fmt: skip


@pytest.fixture(params=BACKENDS or ["none"])
def backend(request):
    return request.param


@pytest.mark.parametrize("network_type", quick(NETWORKS, *NETWORKS[1:2]))
@pytest.mark.parametrize("name", quick(ARGUMENTS, "reset and lengths", "zoneout"))
def test_values_and_gradients_are_those_of_the_reference(backend, name, network_type):
    if network_type is InputFieldRNN and TRITON_INTERPRETED:
        pytest.skip("takes minutes in Triton's interpreter, where test_gpu_ops.py has its op")
    made, given = ARGUMENTS[name]
    given = {key: value.to(DEVICE) if isinstance(value, torch.Tensor) else value for key, value in given.items()}
    network = construct(network_type, 2, dtype=torch.float32, nonlinearity="tanh", **made).to(DEVICE)
    network.backend = backend
    x, results = torch.randn(T, B, 3, device=DEVICE, requires_grad=True), []
    for one in (network, copy.deepcopy(network)):
        one.backend = backend if one is network else "reference"
        torch.manual_seed(3)
        output, h_n = one(x, **given)
        values = [*output, h_n] if isinstance(output, tuple) else [output, h_n]
        # a learned first state that a reset replaces everywhere has no gradient
        gradients = torch.autograd.grad(weighed(*values), [*one.parameters(), x], allow_unused=True)
        results.append([*values, *(g for g in gradients if g is not None)])
    # T steps of sums of some ten products, and with a field that reads the input its series
    bound = (3000 if network_type is InputFieldRNN else 300) * torch.finfo(torch.float32).eps
    for mine, expected in zip(*results, strict=True):
        assert relative_error(mine, expected) < bound
