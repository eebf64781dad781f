"""Numbers at the edge: long and short times, generators of norms 1e4 and 1e-20, n = 1, 2 and 2000, large B and T.

Values and the gradient of every tensor against float64 formulas that share no code with the package. What float32 holds
of a generator of norm x times dt is an angle with an error of eps |dt| x: so does everything that is made of it, and
that is the tolerance, times a constant for the roundings of the op.
"""

import pytest
import torch

from tests import oracles
from tests.cases import (
    DTYPES,
    beta_for,
    dense_flow,
    exact_exponential,
    generator,
    quick,
    random_mesh,
    skew_matrix,
)
from tests.ops import flow_recurrence_cases
from tests.ops.edge_cases import Exponential, frame, generator_of, judge, of_time, rotation, states, step
from vfrnn_kernels import (
    field_flow,
    field_generator,
    flow_recurrence,
    recurrence,
    skew_expm,
    spectral_recurrence,
    strang_step,
    thin_skew_expm,
)

F64 = torch.float64
#: (norm of the generator, dt). A product beyond the last one served is in `test_beyond_the_bound`.
EDGES = ((1.0, 1e6), (1e-6, 1e6), (1e4, 1.0), (1e4, 100.0), (1e-20, 1.0), (1.0, 1e-30), (1e-20, 1e-10), (1e8, 1e-8))
edges = pytest.mark.parametrize(("norm", "dt"), quick(EDGES, (1e-6, 1e6), (1e4, 1.0), (1e-20, 1.0)))
sizes = pytest.mark.parametrize("n", [1, 2, 3, 9, 40])
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


@edges
@sizes
@dtypes
def test_skew_expm(n, norm, dt, dtype):
    S, one = generator_of(norm, n, dtype)
    tensors = {"S": S, "dt": (one * dt).expand(3)}
    judge(skew_expm, rotation, tensors, norm * dt, of_time(S))


@pytest.mark.parametrize("n", [2, 3, 9, 40, 150])
@dtypes
def test_a_small_rotation_is_exact_relative_to_its_angle(n, dtype):
    """exp(S) - I, S for norms whose squares are nothing beside 1: no digit of S may be lost beside the identity."""
    for norm in (1e-20, 1e-30, 1e-36):
        S = norm * skew_matrix(n, 1.0).to(dtype)
        Q = skew_expm(S)
        assert torch.equal(Q.diagonal(), torch.ones(n, dtype=dtype))
        off = ~torch.eye(n, dtype=torch.bool)
        # the polynomial's error is spread evenly over all norms: 4 roundings here
        relative = ((Q - S)[off] / S[off].abs().clamp_min(norm * 1e-6)).abs().max()
        assert float(relative) <= 8 * torch.finfo(dtype).eps


@edges
@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 1), (9, 2), (40, 7), (40, 20)])
@dtypes
def test_thin_skew_expm(n, k, norm, dt, dtype):
    S, one = generator_of(norm, n, dtype)
    S = S[..., :k].contiguous()
    tensors = {"S": S, "dt": (one * dt).expand(3)}
    judge(thin_skew_expm, frame, tensors, norm * dt, of_time(S))


@edges
@pytest.mark.parametrize("substeps", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 40])
@dtypes
def test_strang_step(n, substeps, norm, dt, dtype):
    S, one = generator_of(norm, n, dtype)
    delta = torch.randn(3, n, dtype=dtype) * min(norm, 1 / dt)
    tensors = {"S": S, "delta": delta, "dt": (one * dt).expand(3)}
    scales = {"dt": of_time(S)["dt"] + float(delta.norm()) * n}
    judge(
        lambda S, delta, dt: strang_step(S, delta, dt, substeps),
        lambda S, delta, dt: step(S, delta, dt, substeps),
        tensors,
        norm * dt,
        scales,
    )


@pytest.mark.parametrize("size", [1e4, 1e-20, 1e-30])
@pytest.mark.parametrize("activation", oracles.FORMULAS)
@pytest.mark.parametrize("n", [1, 2, 40])
@dtypes
def test_recurrence(n, activation, size, dtype):
    T, B, i = 7, 3, 2
    tensors = {
        "x": size * torch.randn(T, B, i, dtype=F64),
        "U": torch.randn(n, i, dtype=F64),
        "c": size * torch.randn(n, dtype=F64),
        "M": exact_exponential(skew_matrix(n, 1.0)),
        "h0": size * torch.randn(B, n, dtype=F64),
    }
    if oracles.takes_beta(activation):
        tensors["beta"] = size * beta_for(activation, n, 0.1)
    tensors = {name: t.to(dtype) for name, t in tensors.items()}
    judge(
        lambda x, U, c, M, h0, beta=None: recurrence(x, U, c, M, h0, activation, beta),
        lambda x, U, c, M, h0, beta=None: states(x, U, c, lambda t: M, h0, activation, beta),
        tensors,
        # tanh of a number z has a derivative of 1 - tanh^2, which is known to a rounding of z
        size if activation == "tanh" else 1.0,
    )


@edges
@pytest.mark.parametrize("n", [1, 2, 40])
@dtypes
def test_spectral_recurrence(n, norm, dt, dtype):
    T, B, i = 4, 2, 2
    S, _ = generator_of(norm, n, dtype, K=1)
    tensors = {
        "x": torch.randn(T, B, i, dtype=dtype),
        "U": torch.randn(n, i, dtype=dtype),
        "c": torch.randn(n, dtype=dtype),
        "S": S[0],
        "delta": torch.randn(n, dtype=dtype) * min(norm, 1 / dt),
        "dt": dt * (1 + torch.rand(T, B, dtype=F64)).to(dtype) / 2,
        "h0": torch.randn(B, n, dtype=dtype),
    }

    def exact(x, U, c, S, delta, dt, h0):
        return states(x, U, c, lambda t: step(S, delta, dt[t], 1), h0, "identity", None)

    scales = {"dt": (norm + float(tensors["delta"].norm())) * n * T * B, "S": dt * T * B}
    judge(
        lambda **tensors: spectral_recurrence(**tensors, activation="identity"), exact, tensors, 2 * norm * dt, scales
    )


@pytest.mark.parametrize("norm", [1e4, 1e-20, 1e-30])
@pytest.mark.parametrize("n", [1, 2, 40])
@dtypes
def test_field_generator(n, norm, dtype):
    b, w, N, G = random_mesh(n, 11, 2, dtype)
    v = (norm * torch.randn(3, 11, 2, dtype=F64)).to(dtype)
    tensors = {"b": b, "w": w, "N": N, "G": G, "v": v}
    scales = {name: norm * 100 for name in ("b", "w", "N", "G")} | {"v": 100.0}
    judge(field_generator, lambda b, w, N, G, v: generator(b, w, N, G, v), tensors, 1.0, scales)


def flow_tensors(n, dtype, norm, B=3):
    """Arguments of field_flow with generators of that norm."""
    b, w, N, G = random_mesh(n, 11, 2)
    v = torch.randn(B, 11, 2, dtype=F64)
    S, delta = generator(b, w, N, G, v)
    size = max(float(torch.linalg.matrix_norm(S, 2).max()), float(delta.abs().max()) / 4)
    size = size or 1.0  # a single node has no flow
    tensors = {"h": torch.randn(B, n, dtype=F64), "v": v * (norm / size), "b": b, "w": w, "N": N, "G": G}
    return {name: t.to(dtype) for name, t in tensors.items()}


#: Products that the series reaches within 10000 substeps, which for any v of the mesh are planned from a bound on S.
FLOW_EDGES = ((1e-6, 1e6), (1e-20, 1.0), (1.0, 1e-30), (1e-20, 1e-10), (1e4, 1e-3), (1e8, 1e-8))
flow_edges = pytest.mark.parametrize(("norm", "dt"), quick(FLOW_EDGES, (1e-6, 1e6), (1e-20, 1.0)))


@flow_edges
@pytest.mark.parametrize("n", [1, 2, 40])
@dtypes
def test_field_flow(n, norm, dt, dtype):
    tensors = flow_tensors(n, dtype, norm)
    tensors |= {"dt": torch.tensor(dt, dtype=dtype), "divergence_scale": torch.tensor(0.1, dtype=dtype)}
    k = max(1, round(norm * dt / 0.05))
    size = 100 * norm
    scales = {"dt": size, "divergence_scale": size * dt, "v": 100 * dt} | dict.fromkeys(("b", "w", "N", "G"), size * dt)

    def exact(h, v, b, w, N, G, dt, divergence_scale):
        return dense_flow(h, v, b, w, N, G, dt, divergence_scale, substeps=k, exponential=Exponential.apply)

    # the roundings of the mesh come back in every cell and every term of the series
    judge(lambda **t: field_flow(**t, substeps=k), exact, tensors, 100 * norm * dt, scales)


@flow_edges
@pytest.mark.parametrize("n", [1, 2, 40])
@dtypes
def test_flow_recurrence(n, norm, dt, dtype):
    T, B, i, k = 3, 2, 2, max(1, round(norm * dt / 0.03))
    tensors = flow_tensors(n, F64, norm, B=1)
    tensors["v"] = tensors["v"][0]
    tensors["h0"] = tensors.pop("h").expand(B, n).clone()
    tensors |= {"x": torch.randn(T, B, i, dtype=F64), "V": tensors["v"][..., None].expand(-1, -1, i) / 4}
    tensors |= {"U": torch.randn(n, i, dtype=F64), "c": torch.randn(n, dtype=F64)}
    tensors |= {"dt": torch.tensor(dt), "divergence_scale": torch.tensor(0.1)}
    tensors = {name: t.to(dtype) for name, t in tensors.items()}
    size = 100 * norm * T * B
    scales = {"dt": size, "divergence_scale": size * dt, "v": 100 * dt * T * B, "V": 100 * dt * T * B}
    scales |= dict.fromkeys(("b", "w", "N", "G", "x"), size * dt)

    def exact(x, U, c, v, V, b, w, N, G, h0, dt, divergence_scale):
        arguments = (x, U, c, v, V, b, w, N, G, h0, None, dt, divergence_scale)

        def flow(*given):
            return dense_flow(*given, substeps=k, exponential=Exponential.apply)

        return flow_recurrence_cases.loop(arguments, "identity", flow)

    judge(lambda **t: flow_recurrence(**t, activation="identity", substeps=k), exact, tensors, 100 * norm * dt, scales)


@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e18, 1e30])
def test_field_flow_of_small_and_of_large_states(size, backend):
    """The op is linear in h, also where squares of h are 0 or infinite in float32; and its check of substeps."""
    tensors = flow_tensors(40, torch.float32, 1.0)
    h = tensors.pop("h")
    expected = field_flow(h, **tensors, substeps=4, backend=backend)
    moved = field_flow(size * h, **tensors, substeps=4, backend=backend)
    assert ((moved.double() / size - expected).norm() / expected.norm()) <= 1e-6
    with pytest.raises(RuntimeError, match="substeps must be at least"):
        field_flow(size * h, **tensors, dt=8.0, substeps=1, backend=backend)


S_LIMITS = {torch.float32: 2.5 * 2**20, torch.float64: 1.591 * 2**20}


def refused_calls(dtype):
    """Calls that cannot be right, and what they say. `dt` of 1e6 and a norm of 1e4 are an angle of 1e10."""
    for n in (2, 3, 9, 40):
        S, _ = generator_of(1e4, n, dtype, K=1)
        yield "dt .* S must have a spectral norm below", skew_expm, (S[0], 1e6)
        yield "dt .* S must have a spectral norm below", thin_skew_expm, (S[0, :, :1].contiguous(), 1e6)
        yield "dt .* S must have a spectral norm below", strang_step, (S[0], torch.zeros(n, dtype=dtype), 1e6)
    x, U, dt = torch.zeros(2, 1, 1, dtype=dtype), torch.zeros(40, 1, dtype=dtype), torch.full((2,), 1e6, dtype=dtype)
    yield "dt .* S must have a spectral norm below", spectral_recurrence, (x, U, None, S[0], None, dt)
    # a divergence that grows by more than the largest number in a step
    S, delta = S[0] / 1e4, torch.linspace(-1e4, 1e4, 40, dtype=dtype)
    yield "exponential overflows", strang_step, (S, delta, 1.0)
    yield "exponential overflows", spectral_recurrence, (x, U, None, S, delta, dt / 1e6)
    mesh = flow_tensors(40, dtype, 1.0)
    mesh["divergence_scale"] = torch.tensor(1e6, dtype=dtype)
    yield "exp overflows|exponential overflows", field_flow, mesh
    yield "more than 10000 substeps", field_flow, flow_tensors(40, dtype, 1.0) | {"dt": torch.tensor(1e6, dtype=dtype)}
    largest = torch.finfo(dtype).max * 0.75
    for n in (4, 40):
        S = torch.zeros(n, n, dtype=dtype)
        S[0, 1], S[1, 0] = largest, -largest
        yield "the entries of S must be at most", skew_expm, (S, 1 / largest)


@dtypes
def test_beyond_the_bound(dtype, backend):
    for message, function, arguments in refused_calls(dtype):
        named, given = (arguments, ()) if isinstance(arguments, dict) else ({}, arguments)
        with pytest.raises(RuntimeError, match=message):
            function(*given, **named, backend=backend)


@pytest.mark.parametrize("n", [2, 3, 9, 40])
@dtypes
def test_up_to_the_bound(n, dtype):
    """Just below it the result is a rotation still, if not a precise one beyond n = 3: docs/how-to/accuracy.md."""
    S = skew_matrix(n, 0.6 * S_LIMITS[dtype], dtype=dtype)
    Q = skew_expm(S).double()
    largest = 1e-6 if n <= 3 else 0.2 if dtype == torch.float32 else 1e-9
    assert (Q.mT @ Q - torch.eye(n)).abs().max() <= largest
