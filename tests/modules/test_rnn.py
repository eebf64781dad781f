"""Networks: RNN is torch.nn.RNN; VFRNN and OrthogonalRNN are flows of fields, at every size, and they learn."""

import copy
import math
import pickle
import warnings

import pytest
import torch
from torch.autograd import gradcheck

import vfrnn
from tests.cases import exact_exponential, relative_error
from vfrnn import RNN, VFRNN, LatentMesh, OrthogonalRNN

FIELD_NETWORKS = (VFRNN, OrthogonalRNN)


def results(network, x, h0):
    """Output, h_n and the gradients of every parameter and input of a scalar that weighs all of them."""
    x = x.clone().requires_grad_()
    leaves = [*network.parameters(), x]
    if h0 is not None:
        h0 = h0.clone().requires_grad_()
        leaves.append(h0)
    output, h_n = network(x, h0)
    loss = (output * torch.linspace(-1, 1, output.numel(), dtype=x.dtype).view_as(output)).sum() + h_n.square().sum()
    return output, h_n, *torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"num_layers": 2, "batch_first": True},
        {"bidirectional": True},
        {"num_layers": 2, "bidirectional": True, "bias": False, "batch_first": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", ["batched", "unbatched", "with_h0", "unbatched_with_h0", "one_step", "empty_batch"])
def test_rnn_is_torchs(dtype, nonlinearity, options, shape, backend):
    torch.manual_seed(7)
    theirs = torch.nn.RNN(3, 5, nonlinearity=nonlinearity, dtype=dtype, **options)
    ours = RNN(3, 5, nonlinearity=nonlinearity, dtype=dtype, backend=backend, **options)
    ours.load_state_dict(theirs.state_dict())
    T, B = {"one_step": (1, 2), "empty_batch": (4, 0)}.get(shape, (4, 2))
    batch = () if "unbatched" in shape else (B,)
    x = torch.randn(*((*batch, T) if options.get("batch_first") and batch else (T, *batch)), 3, dtype=dtype)
    layers = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    h0 = torch.randn(layers, *batch, 5, dtype=dtype) if "h0" in shape else None
    # Two layers of four steps with sums of about ten terms: some tens of roundings.
    tolerance = 200 * torch.finfo(dtype).eps
    for our, their in zip(results(ours, x, h0), results(theirs, x, h0), strict=True):
        torch.testing.assert_close(our, their, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}], ids=str)
def test_same_seed_same_parameters_as_torch(options):
    states = []
    for network_type in (torch.nn.RNN, RNN):
        torch.manual_seed(3)
        states.append(network_type(3, 5, **options).state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("n", [1, 2, 3, 17, 190])
def test_without_divergence_vfrnn_is_the_orthogonal_rnn(n, backend):
    torch.manual_seed(2)
    flow = VFRNN(3, n, dtype=torch.float64, backend=backend)
    orthogonal = OrthogonalRNN(3, n, dtype=torch.float64, backend=backend)
    missing, unexpected = orthogonal.load_state_dict(flow.state_dict(), strict=False)
    assert (missing, unexpected) == ([], ["divergence_scale_l0"])
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    for one, other in zip(flow(x), orthogonal(x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    S, _ = vfrnn.field_generator(flow.mesh_l0, flow.field_l0.detach())
    assert relative_error(flow.step_matrix().detach(), exact_exponential(S)) < 1e-12


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "modrelu", "identity"])
def test_network_follows_its_equation(nonlinearity, backend):
    network = VFRNN(3, 5, nonlinearity=nonlinearity, dtype=torch.float64, backend=backend)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.5)
    act = {"tanh": torch.tanh, "relu": torch.relu, "identity": lambda z: z}.get(
        nonlinearity, lambda z: z.sign() * torch.relu(z.abs() + network.beta_l0)
    )
    x, h = torch.randn(4, 2, 3, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    output, h_n = network(x, h[None])
    M = network.step_matrix()
    for t in range(4):
        h = act(h @ M.mT + x[t] @ network.weight_ih_l0.mT + network.bias_l0)
        torch.testing.assert_close(output[t], h)
    torch.testing.assert_close(h_n[0], h)


def random_field_network(**options):
    """Divergence scale 1, a varying inner product and a random field, in float64."""
    mesh = LatentMesh(torch.rand(6).double() + 0.5, torch.rand(15).double() + 0.5)
    network = VFRNN(2, 6, dtype=torch.float64, mesh=mesh, **options)
    with torch.no_grad():
        network.field_l0.normal_()
        network.divergence_scale_l0.fill_(1.0)
    return network


@pytest.mark.parametrize("substeps", [1, 3])
def test_the_step_has_the_determinant_of_its_divergence(substeps):
    network = random_field_network(dt=0.7, substeps=substeps)
    delta = vfrnn.divergence(network.mesh, network.field_l0)
    assert delta.sum().abs() > 0.05
    torch.testing.assert_close(torch.linalg.det(network.step_matrix()), torch.exp(-0.7 * delta.sum() / 2))


def test_a_volume_preserving_step_has_determinant_one():
    network = random_field_network(volume_preserving=True)
    M = network.step_matrix()
    torch.testing.assert_close(torch.linalg.det(M), M.new_ones(()))
    assert (M.mT @ M - torch.eye(6)).abs().max() > 0.1


def test_the_step_keeps_constants_to_second_order():
    network = random_field_network()
    constant = network.mesh.b.sqrt()
    errors = [float((network.step_matrix(dt=dt) @ constant - constant).detach().norm()) for dt in (1e-2, 5e-3)]
    # T_v 1 = 0, so only the splitting's local error of order dt^3 is left: halving dt divides it by 8.
    assert errors[0] < 1e-4
    assert 7 < errors[0] / errors[1] < 9


def test_dt_of_a_call_replaces_the_constructors():
    network = random_field_network(dt=0.3)
    other = copy.deepcopy(network)
    other.dt = 0.6
    x = torch.randn(4, 2, 2, dtype=torch.float64)
    for dt in (0.6, torch.tensor(0.6, dtype=torch.float64)):
        for one, two in zip(network(x, dt=dt), other(x), strict=True):
            torch.testing.assert_close(one, two)
    with pytest.raises(ValueError, match=r"dt must have shape \(\), got \(4,\)"):
        network.step_matrix(dt=torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize(("exp_dtype", "bound"), [(None, 5e-2), (torch.float64, 1e-3)])
@pytest.mark.parametrize("init", ["henaff", "cayley", "dense"])
def test_the_norm_is_kept_over_100000_steps(exp_dtype, bound, init):
    network = OrthogonalRNN(
        1, 17, nonlinearity="identity", exp_dtype=exp_dtype, init="zero" if init == "dense" else init
    )
    with torch.no_grad():
        if init == "dense":
            network.field_l0.normal_()
            S, _ = vfrnn.field_generator(network.mesh_l0, network.field_l0)
            network.field_l0.mul_(math.pi / torch.linalg.matrix_norm(S, 2))
        h = torch.randn(1, 1, 17)
        start, x = h.double().norm(), torch.zeros(10_000, 1, 1)
        for _ in range(10):
            output, h = network(x, h)
            assert (output.double().norm(dim=-1) / start - 1).abs().max() < bound


@pytest.mark.parametrize("network_type", FIELD_NETWORKS)
@pytest.mark.parametrize("general", [False, True])
def test_gradients_of_every_parameter(network_type, general, backend):
    learn = ("b", "w", "N", "G") if general else ("b", "w")
    make = LatentMesh.random(3, 2, 2, dtype=torch.float64, learn=learn) if general else None
    mesh = make or LatentMesh.complete(3, dtype=torch.float64, learn=learn)
    network = network_type(2, 3, nonlinearity="tanh", mesh=mesh, dtype=torch.float64, backend=backend)
    names, values = zip(*((name, p.detach().clone()) for name, p in network.named_parameters()), strict=True)
    values = tuple((value + 0.3 * torch.randn_like(value)).requires_grad_() for value in values)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    h0 = torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True)

    def call(x, h0, *values):
        return torch.func.functional_call(network, dict(zip(names, values, strict=True)), (x, h0))

    gradcheck(call, (x, h0, *values))


def test_state_carries_a_version_and_round_trips():
    network = VFRNN(3, 5, 2, bidirectional=True)
    x = torch.randn(4, 2, 3)
    state = network.state_dict()
    assert state._metadata[""]["version"] == 1
    assert state["field_l1_reverse"].shape == (10, 1)
    assert state["divergence_scale_l0"].shape == (1,)
    other = VFRNN(3, 5, 2, bidirectional=True)
    other.load_state_dict(state)
    for same in (other, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(same(x)[0], network(x)[0])
    state._metadata[""]["version"] = 2
    with pytest.raises(RuntimeError, match="VFRNN must have version 1 or older, got 2"):
        other.load_state_dict(state)


def test_a_given_mesh_is_shared_and_stored_once():
    mesh = LatentMesh.random(5, 4, 2)
    network = VFRNN(3, 5, 2, mesh=mesh)
    assert network.mesh is mesh
    assert network.field_l1.shape == (4, 2)
    assert [name for name in network.state_dict() if "mesh" in name] == ["mesh.b", "mesh.w", "mesh.N", "mesh.G"]


@pytest.mark.parametrize("network_type", FIELD_NETWORKS)
def test_training_lowers_the_loss(network_type):
    network, readout = network_type(1, 16), torch.nn.Linear(16, 1)
    x = torch.randn(10, 8, 1)
    target = x[2] + x[7]
    optimizer = torch.optim.Adam([*network.parameters(), *readout.parameters()], lr=1e-2)
    losses = []
    for _ in range(30):
        loss = (readout(network(x)[1][0]) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_compiles_without_a_graph_break():
    network = VFRNN(2, 4, mesh=LatentMesh.random(4, 3, 2, learn=("b", "N")), exp_dtype=torch.float64)
    x = torch.randn(3, 2, 2)
    expected = network(x)[0]
    expected.sum().backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    output = compiled(x)[0]
    torch.testing.assert_close(output, expected)
    output.sum().backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name])


def test_compile_with_symbolic_sizes_and_numbers():
    network = VFRNN(2, 4, dt=0.5)
    compiled = torch.compile(network, fullgraph=True, dynamic=True, backend="aot_eager")
    for steps in (3, 5):
        x = torch.randn(steps, 2, 2)
        torch.testing.assert_close(compiled(x)[0], network(x)[0])


def test_autocast_keeps_the_dtype_of_the_weights():
    network = VFRNN(3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        output, h_n = network(torch.randn(4, 2, 3).bfloat16(), torch.zeros(1, 2, 5).bfloat16())
    assert output.dtype == h_n.dtype == torch.float32


def test_meta_device_costs_nothing():
    network = VFRNN(3, 5, device="meta")
    assert network(torch.zeros(4, 2, 3, device="meta"))[0].shape == (4, 2, 5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mesh": LatentMesh.complete(4)}, ValueError, "mesh must have n = hidden_size = 5 nodes, got 4"),
        ({"mesh": "complete"}, TypeError, "mesh must be a LatentMesh, got str"),
        ({"mesh": LatentMesh.complete(5, dtype=torch.float64)}, TypeError, "mesh.b must have the dtype"),
        ({"dt": math.inf}, ValueError, "dt must be finite, got inf"),
        ({"dt": "1"}, TypeError, "dt must be a number, got str"),
        ({"substeps": 0}, ValueError, "substeps must be at least 1, got 0"),
        ({"init": "haar"}, ValueError, "init must be one of 'henaff', 'cayley', 'zero', got 'haar'"),
        ({"nonlinearity": "gelu"}, ValueError, "Unknown nonlinearity 'gelu'"),
        ({"exp_dtype": torch.float16}, ValueError, "exp_dtype must be .* got torch.float16"),
        ({"volume_preserving": 1}, TypeError, "volume_preserving must be a bool, got int"),
        ({"bidirectional": 1}, TypeError, "bidirectional should be of type bool, got: int"),
        ({"backend": "fast"}, ValueError, "backend must be one of .* got 'fast'"),
    ],
)
def test_bad_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        VFRNN(3, 5, **options)


def test_a_generator_that_is_not_finite_is_an_error():
    network = VFRNN(3, 5)
    with torch.no_grad():
        network.field_l0[0] = math.nan
    with pytest.raises(RuntimeError, match="finite"):
        network(torch.zeros(2, 3))


def test_repr():
    assert repr(RNN(3, 4, 2, bias=False)) == repr(torch.nn.RNN(3, 4, 2, bias=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = VFRNN(3, 4, nonlinearity="tanh", dt=0.5, volume_preserving=True)
    assert repr(network) == "VFRNN(3, 4, nonlinearity='tanh', dt=0.5, volume_preserving=True)"
    assert "Orthogonal((4, 4))" in repr(vfrnn.parametrizations.orthogonal(RNN(3, 4), "weight_hh_l0"))
