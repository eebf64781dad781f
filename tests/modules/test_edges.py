"""The networks at the edge: long and short steps, small and large fields, one and two nodes; values and gradients of
every parameter against float64 formulas (tests/ops/edge_cases.py)."""

import pytest
import torch
from torch.func import functional_call

from tests.cases import DTYPES, exact_exponential, quick, random_mesh, skew_matrix
from tests.cases import generator as dense_generator
from tests.ops.edge_cases import Exponential, judge, states, step
from vfrnn import RNN, VFRNN, LatentMesh, OrthogonalRNN, parametrizations

F64 = torch.float64
T, B, INPUTS = 4, 2, 3
EDGES = ((1.0, 1e6), (1e-6, 1e6), (1e4, 1.0), (1e-20, 1.0), (1.0, 1e-30), (1e8, 1e-8))
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


def complete_mesh(n):
    """The dense tensors of the mesh that VFRNN has by default: midpoints and differences of all pairs, w = 2, b = 1."""
    i, j = torch.triu_indices(n, n, 1)
    m = len(i)
    N, G = torch.zeros(m, n, dtype=F64), torch.zeros(m, 1, n, dtype=F64)
    rows = torch.arange(m)
    N[rows, i] = N[rows, j] = 0.5
    G[rows, 0, i], G[rows, 0, j] = -1.0, 1.0
    return torch.ones(n, dtype=F64), torch.full((m,), 2.0, dtype=F64), N, G


def with_field(network, norm):
    """Its parameters drawn, the generator of that norm; the mesh in float64."""
    n = network.hidden_size
    mesh = network.mesh if getattr(network, "mesh", None) is not None else None
    tensors = complete_mesh(n) if mesh is None else tuple(t.double() for t in (mesh.b, mesh.w, mesh.N, mesh.G))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.randn_like(parameter))
            if "scale" in name:
                parameter.fill_(0.1)
        if n > 1:
            S, delta = dense_generator(*tensors, network.field_l0.double().unsqueeze(0))
            size = max(float(torch.linalg.matrix_norm(S, 2)), float(delta.abs().max()) / 10)
            network.field_l0.mul_(norm / size)
    return tensors


@pytest.mark.parametrize(("norm", "dt"), quick(EDGES, (1e-6, 1e6), (1e4, 1.0), (1e-20, 1.0)))
@pytest.mark.parametrize("n", [1, 2, 20])
@pytest.mark.parametrize("kind", [OrthogonalRNN, VFRNN])
@dtypes
def test_fields(kind, n, norm, dt, dtype, backend):
    scale = 0.0 if kind is OrthogonalRNN else 0.1
    if scale and norm * dt > 100:
        pytest.skip("exp(dt delta) of such a step is no number")
    network = kind(INPUTS, n, nonlinearity="identity", dt=dt, dtype=dtype, backend=backend)
    mesh = with_field(network, norm)
    x, h0 = torch.randn(T, B, INPUTS, dtype=dtype), torch.randn(1, B, n, dtype=dtype)

    def exact(**named):
        S, delta = dense_generator(*mesh, named["field_l0"].unsqueeze(0))
        time = torch.tensor([dt], dtype=F64)
        M = step(S, named.get("divergence_scale_l0", 0.0) * delta, time, 1)[0]
        U, c = named["weight_ih_l0"], named["bias_l0"]
        return states(named["x"], U, c, lambda t: M, named["hx"][0], "identity", None)

    parameters = {name: p.detach().clone() for name, p in network.named_parameters()}

    def mine(x, hx, **named):
        return functional_call(network, named, (x, hx))[0]

    tensors = {"x": x, "hx": h0, **parameters}
    used = {name: t for name, t in tensors.items() if t.numel()}
    rest = {name: t for name, t in tensors.items() if not t.numel()}
    size = 100 * T * B * n
    judge(
        lambda **given: mine(**rest, **given),
        lambda **given: exact(**{k: t.double() for k, t in rest.items()}, **given),
        used,
        4 * norm * dt,
        {"field_l0": size * dt, "divergence_scale_l0": size * norm * dt},
    )


@pytest.mark.parametrize("norm", [1e-6, 1.0])
def test_a_mesh_of_a_users(norm):
    b, w, N, G = random_mesh(20, 11, 2)
    mesh = LatentMesh(b, w, N, G).float()
    network = VFRNN(INPUTS, 20, mesh=mesh, nonlinearity="identity", dt=1 / norm)
    dense = with_field(network, norm)
    x = torch.randn(T, B, INPUTS)
    S, delta = dense_generator(*dense, network.field_l0.detach().double().unsqueeze(0))
    M = step(S, 0.1 * delta, torch.tensor([1 / norm], dtype=F64), 1)[0]
    U, c = network.weight_ih_l0.detach().double(), network.bias_l0.detach().double()
    expected = states(x.double(), U, c, lambda t: M, torch.zeros(B, 20, dtype=F64), "identity", None)
    with torch.no_grad():
        found = network(x)[0]
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("size", [1e4, 1e-20])
@pytest.mark.parametrize("n", [1, 2, 20])
@dtypes
def test_rnn(n, size, dtype, backend):
    network = RNN(INPUTS, n, nonlinearity="relu", dtype=dtype, backend=backend)
    with torch.no_grad():
        network.weight_hh_l0.copy_(exact_exponential(skew_matrix(n, 1.0)))
        network.bias_ih_l0.mul_(size), network.bias_hh_l0.mul_(size)
    x = (size * torch.randn(T, B, INPUTS, dtype=F64)).to(dtype)

    def exact(x, **named):
        c, start = named["bias_ih_l0"] + named["bias_hh_l0"], torch.zeros(B, n, dtype=F64)
        return states(x, named["weight_ih_l0"], c, lambda t: named["weight_hh_l0"], start, "relu", None)

    tensors = {"x": x, **{name: p.detach().clone() for name, p in network.named_parameters()}}
    judge(lambda x, **named: functional_call(network, named, (x,))[0], exact, tensors, 1.0)


@pytest.mark.parametrize("orthogonal_map", ["matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("norm", [1e4, 1e-20])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 2), (20, 20), (20, 3)])
def test_parametrizations(orthogonal_map, norm, n, k):
    """Large and small trivial coordinates: an orthogonal matrix, and for the exponential the right one."""
    layer = torch.nn.Linear(k, n, bias=False)
    parametrizations.orthogonal(layer, orthogonal_map=orthogonal_map)
    with torch.no_grad():
        original = layer.parametrizations.weight.original
        original.copy_(norm * torch.randn_like(original))
    Q = layer.weight.detach().double()
    # an angle of 1e5 in float32: docs/how-to/accuracy.md
    limit = 1e-4 if orthogonal_map == "matrix_exp" and norm > 1 else 1e-5
    assert (Q.mT @ Q - torch.eye(k)).abs().max() <= limit
    grad = torch.autograd.grad(layer.weight.sum(), original)[0]
    assert torch.isfinite(grad).all()
    if orthogonal_map == "matrix_exp" and n == k:
        X = original.detach().double().tril(-1)
        expected = layer.parametrizations.weight[0].base.double() @ Exponential.apply(X - X.mT)
        angle = float(torch.linalg.matrix_norm(X - X.mT, 2))
        assert (Q - expected).norm() <= expected.norm() * 1.2e-7 * (100 + 4 * angle)
