"""torch.func on the networks: functional_call, grad, vmap over an ensemble, forward mode, and all of them compiled."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vmap

import vfrnn

NETWORKS = (vfrnn.RNN, vfrnn.VFRNN, vfrnn.OrthogonalRNN)
every_network = pytest.mark.parametrize("network_type", NETWORKS)


def smooth_network(network_type, **options):
    """In float64, without modrelu's kinks, and with a divergence where there can be one."""
    network = network_type(3, 4, nonlinearity="tanh", dtype=torch.float64, **options)
    if network_type is vfrnn.VFRNN:
        torch.nn.init.constant_(network.divergence_scale_l0, 0.3)
    return network


def state(network):
    """Its parameters and buffers without a graph."""
    return {name: value.detach() for name, value in (*network.named_parameters(), *network.named_buffers())}


def trained(network):
    """Its parameters alone, and what runs the network with others."""
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    return {name: value.detach() for name, value in network.named_parameters()}, lambda values: functional_call(
        network, values, (x,)
    )[0]


def weighed(output):
    """A number that depends on every state, and not in the same way."""
    return (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum()


@every_network
@pytest.mark.parametrize("exp_dtype", [None, torch.float64])
def test_vmap_over_an_ensemble(network_type, exp_dtype):
    options = {} if network_type is vfrnn.RNN else {"exp_dtype": exp_dtype}
    networks = [network_type(3, 4, 2, bidirectional=True, **options) for _ in range(3)]
    parameters, buffers = stack_module_state(networks)
    x = torch.randn(5, 2, 3)

    def loss(parameters, buffers):
        output = functional_call(networks[0], (parameters, buffers), (x,))[0]
        return weighed(output), output

    gradients, outputs = vmap(grad(loss, has_aux=True))(parameters, buffers)
    torch.testing.assert_close(outputs, vmap(loss)(parameters, buffers)[1])
    for k, network in enumerate(networks):
        output = network(x)[0]
        torch.testing.assert_close(outputs[k], output)
        weighed(output).backward()
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(gradients[name][k], parameter.grad)


@every_network
def test_gradients_of_each_sample(network_type):
    network = network_type(3, 4)
    x = torch.randn(3, 5, 3)
    gradients = vmap(grad(lambda values, x: weighed(functional_call(network, values, (x,))[0])), (None, 0))(
        state(network), x
    )
    for k in range(3):
        network.zero_grad()
        weighed(network(x[k])[0]).backward()
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(gradients[name][k], parameter.grad)


@every_network
def test_forward_mode_is_the_transpose_of_reverse_mode(network_type, backend):
    values, run = trained(smooth_network(network_type, backend=backend))
    moved = {name: torch.randn_like(value) for name, value in values.items()}
    output, tangent = jvp(run, (values,), (moved,))
    torch.testing.assert_close(output, run(values))
    gradients = grad(lambda values: weighed(run(values)))(values)
    torch.testing.assert_close(weighed(tangent), sum((gradients[name] * moved[name]).sum() for name in values))
    with forward_ad.dual_level():
        dual = run({name: forward_ad.make_dual(value, moved[name]) for name, value in values.items()})
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, tangent)


@every_network
def test_second_derivatives_by_every_order_of_modes(network_type):
    values, run = trained(smooth_network(network_type))
    name = "weight_hh_l0" if network_type is vfrnn.RNN else "field_l0"

    def loss(value):
        return weighed(run({**values, name: value}).square())

    value = values[name]
    expected = jacrev(jacrev(loss))(value)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(hessian(loss)(value), expected)  # forward over reverse
    torch.testing.assert_close(jacrev(jacfwd(loss))(value), expected)
    # Forward over a plain backward, which records no graph
    direction = torch.randn_like(value)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(value, direction).requires_grad_()
        gradient = torch.autograd.grad(loss(dual), dual)[0]
        moved = forward_ad.unpack_dual(gradient).tangent
    torch.testing.assert_close(moved, torch.tensordot(expected, direction, direction.dim()))


def test_forward_mode_is_torchs():
    theirs = torch.nn.RNN(3, 4, 2, bidirectional=True, dtype=torch.float64)
    ours = vfrnn.RNN(3, 4, 2, bidirectional=True, dtype=torch.float64)
    values = {name: value.detach() for name, value in theirs.named_parameters()}
    moved = {name: torch.randn_like(value) for name, value in values.items()}
    x, moved_x = torch.randn(2, 5, 2, 3, dtype=torch.float64)
    results = [
        jvp(lambda values, x, network=network: functional_call(network, values, (x,)), (values, x), (moved, moved_x))
        for network in (ours, theirs)
    ]
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("transform", ["jvp", "vmap", "vmap of grad"])
def test_compiled_transforms(transform):
    """Dynamo sees library ops; were they not differentiable by themselves, these would be wrong without a word."""
    values, run = trained(smooth_network(vfrnn.VFRNN))
    stacked = {name: torch.stack([value, 2 * value]) for name, value in values.items()}
    call, argument = {
        "jvp": (lambda values: jvp(run, (values,), (values,)), values),
        "vmap": (vmap(run), stacked),
        "vmap of grad": (vmap(grad(lambda values: weighed(run(values)))), stacked),
    }[transform]
    compiled = torch.compile(call, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(argument), call(argument))


def test_a_transform_of_a_library_op():
    S = torch.randn(1, 3, 3, dtype=torch.float64)
    S = S - S.mT
    dt = torch.ones(1, dtype=torch.float64)

    def angle(S):
        return weighed(torch.ops.vfrnn_kernels.skew_expm(S, dt)[0])

    expected = grad(lambda S: weighed(vfrnn.skew_expm(S)))(S)
    torch.testing.assert_close(grad(angle)(S), expected)
    leaf = S.clone().requires_grad_()
    angle(leaf).backward()
    torch.testing.assert_close(leaf.grad, expected)
