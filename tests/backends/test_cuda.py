"""What is particular to the CUDA kernels, in the simulator: the recurrences' routes, the order of threads, launches."""

import math

import pytest
import torch

import vfrnn
from tests import oracles
from tests.backends.gpu_cases import (
    CASES,
    assert_right,
    everything,
    gradients,
    recurrence_case,
    small_case,
    spectral_recurrence_case,
)
from tests.cases import ACTIVATIONS, beta_for, relative_error, skew_matrix
from vfrnn_kernels import recurrence, skew_expm, spectral_recurrence
from vfrnn_kernels.loader import CUDA_SIMULATED

pytestmark = pytest.mark.skipif(CUDA_SIMULATED is None, reason="needs VFRNN_CUDA_SIMULATED (make test-gpu-simulated)")

#: The least n of a cluster of blocks, by type.
IN_A_CLUSTER = {torch.float32: 193, torch.bfloat16: 257}


def by_route(monkeypatch, route):
    monkeypatch.setenv("VFRNN_RECURRENCE_ROUTE", route)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("route", ["cta", "steps"])
def test_routes(monkeypatch, route, dtype, activation):
    if dtype == torch.float64 and route == "cta":
        pytest.skip("float64 goes step by step")
    by_route(monkeypatch, route)
    for n, B in ((33, 9), (64, 17)):
        assert_right(recurrence_case(n, dtype, activation, T=4, B=B), "cuda")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_many_steps_are_recorded_and_the_records_used_again(monkeypatch, dtype):
    by_route(monkeypatch, "steps")
    for T, B in ((9, 3), (75, 2), (75, 2), (64, 3)):
        assert_right(recurrence_case(20, dtype, T=T, B=B), "cuda")


@pytest.mark.parametrize(("n", "dtype"), [(190, torch.float32), (129, torch.bfloat16), (250, torch.float16)], ids=str)
def test_larger_states_in_one_block(monkeypatch, n, dtype):
    by_route(monkeypatch, "cta")
    assert_right(recurrence_case(n, dtype, "modrelu", T=3, B=3), "cuda")


@pytest.mark.parametrize("n", [33, 34])
@pytest.mark.parametrize(
    ("dtype", "state"), [("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float32", "float32")]
)
def test_rows_that_do_not_begin_where_a_pair_of_entries_may(monkeypatch, dtype, state, n):
    by_route(monkeypatch, "cta")
    kinds = getattr(torch, dtype), getattr(torch, state)
    x, U, c, M, h0, _ = recurrence_case(n, kinds[0], T=3, B=5, state=kinds[1]).tensors
    rest = (x, U, c, M, h0, None)

    def places(right):  # equal to `right`, from the second entry of something on, and with longer rows
        behind = torch.full((right.numel() + 2,), math.nan, dtype=right.dtype)
        longer = torch.full((*right.shape[:-1], n + 3), math.nan, dtype=right.dtype)
        views = behind[1:-1].view(right.shape), longer[..., 1 : n + 1]
        for view in views:
            view.copy_(right)
        return behind, views

    hs = torch.ops.vfrnn_kernels.recurrence(*rest, "tanh")
    behind, (into, _) = places(torch.zeros_like(hs))
    torch.ops.vfrnn_kernels.recurrence_into(into, *rest, "tanh")
    assert torch.equal(into, hs)
    assert torch.isnan(behind[[0, -1]]).all()
    grad = torch.randn_like(hs)
    right = torch.ops.vfrnn_kernels.recurrence_backward(grad, *rest, hs, "tanh", 63)
    for grad_hs in places(grad)[1]:
        for states in (hs, places(hs)[1][0]):
            found = torch.ops.vfrnn_kernels.recurrence_backward(grad_hs, *rest, states, "tanh", 63)
            assert all(torch.equal(a, b) for a, b in zip(found, right, strict=True))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", IN_A_CLUSTER, ids=str)
def test_a_cluster(monkeypatch, dtype, activation):
    by_route(monkeypatch, "cluster")
    n = IN_A_CLUSTER[dtype]
    assert_right(recurrence_case(n, dtype, activation, T=5, B=3), "cuda")
    assert_right(recurrence_case(n + 7, dtype, activation, T=1, B=9, state=torch.float32), "cuda")


def test_a_route_that_cannot_serve_says_so(monkeypatch):
    case = recurrence_case(1500, torch.float32, T=1, B=1, i=1)
    by_route(monkeypatch, "cta")
    with pytest.raises(RuntimeError, match="VFRNN_RECURRENCE_ROUTE"):
        case.run(case.leaves(), "cuda")
    by_route(monkeypatch, "fastest")
    with pytest.raises(RuntimeError, match="VFRNN_RECURRENCE_ROUTE"):
        case.run(case.leaves(), "cuda")


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_threads_changes_no_bit(monkeypatch, name):
    case = small_case(name, 20)
    found = []
    for seed in (None, "1", "2"):
        if seed is not None:
            monkeypatch.setenv("VFRNN_SIMULATOR_SEED", seed)
        found.append(everything(case, "cuda"))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize(("route", "n"), [("cta", 40), ("cluster", 270), ("steps", 40)])
def test_the_order_of_threads_by_route(monkeypatch, route, n):
    by_route(monkeypatch, route)
    case = recurrence_case(n, torch.bfloat16, "tanh", T=5, B=3)
    expected = everything(case, "cuda")
    for seed in ("1", "2", "3"):
        monkeypatch.setenv("VFRNN_SIMULATOR_SEED", seed)
        assert all(torch.equal(a, b) for a, b in zip(expected, everything(case, "cuda"), strict=True))


@pytest.mark.parametrize("route", ["cta", "steps"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_sample_does_not_depend_on_its_neighbours(monkeypatch, route, dtype):
    by_route(monkeypatch, route)
    x, U, c, M, h0, _ = recurrence_case(40, dtype, T=4, B=19).tensors
    together = recurrence(x, U, c, M, h0, backend="cuda")
    for k in (0, 7, 8, 18):
        alone = recurrence(x[:, k : k + 1], U, c, M, h0[k : k + 1], backend="cuda")
        # the input product is the framework's, which may add in another order for one row
        torch.testing.assert_close(
            alone[:, 0], together[:, k], rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-3
        )
    without_input = recurrence(x[..., :0], U[:, :0], c, M, h0, backend="cuda")
    for k in (0, 7, 8, 18):
        assert torch.equal(
            recurrence(x[:, k : k + 1, :0], U[:, :0], c, M, h0[k : k + 1], backend="cuda")[:, 0], without_input[:, k]
        )


@pytest.mark.parametrize(("dtype", "n"), [(torch.float32, 100), (torch.bfloat16, 190), (torch.bfloat16, 256)], ids=str)
def test_the_batch_chooses_tiles_and_not_bits(dtype, n):
    x, U, c, M, h0, _ = recurrence_case(n, dtype, T=3, B=16).tensors
    x, U = x[..., :0], U[:, :0]  # the input product is the framework's
    whole = recurrence(x, U, c, M, h0, backend="cuda")
    assert torch.equal(whole[:, :8], recurrence(x[:, :8], U, c, M, h0[:8], backend="cuda"))


def moved(g, delta, dt, basis, omega, substeps):
    """A step of spectral_recurrence, of any vectors and frequencies; those of -omega transpose it."""
    tau, (C, S) = dt.unsqueeze(1) / substeps, basis
    cosine, sine = (tau * omega).cos(), (tau * omega).sin()
    e = torch.ones_like(g) if delta is None else torch.exp(-tau * delta / 4)
    for _ in range(substeps):
        x, y = (e * g) @ C.mT, (e * g) @ S.mT
        g = e * ((cosine * x - sine * y) @ C + (sine * x + cosine * y) @ S)
    return g


#: By type, an n of which the basis is on the chip, one of which the samples' numbers alone are, and one with neither.
ON_CHIP = [(torch.float32, 64), (torch.float32, 250), (torch.float32, 2001)]
ON_CHIP += [(torch.float64, 64), (torch.float64, 200), (torch.float64, 1001)]


@pytest.mark.timeout(1200)  # the largest ones are minutes of simulation
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("dtype", "n"), ON_CHIP, ids=str)
def test_the_spectral_chains_wherever_they_are_kept(monkeypatch, dtype, n, activation):
    T, B, substeps = 2, 5, 2 if activation == "tanh" else 1
    basis = (torch.randn(2, (n + 1) // 2, n) / math.sqrt(n)).to(dtype)
    omega, delta = torch.rand(basis.shape[1]).to(dtype) * 9, (0.3 * torch.randn(n)).to(dtype)
    dt, z, h0 = torch.randn(B, T).to(dtype).mT, torch.randn(T, B, n).to(dtype), torch.randn(B, n).to(dtype)
    grad = torch.randn(T, n, B).to(dtype).mT  # not adjacent
    beta = beta_for(activation, n, dtype=dtype)
    flow = (delta, dt, basis, omega, substeps)

    def chains():
        hs = z.clone()
        constants = (activation, substeps)
        torch.ops.vfrnn_kernels.spectral_recurrence_states(hs, delta, dt, h0, beta, basis, omega, *constants)
        return hs, *torch.ops.vfrnn_kernels.spectral_recurrence_grad_z(grad, delta, dt, basis, omega, hs, *constants)

    hs, grad_z, grad_h0 = chains()
    delta, dt, basis, omega = (t.double() for t in flow[:4])
    exact_beta = None if beta is None else beta.double()
    h, preactivations, exact = h0.double(), [], []
    for t in range(T):
        preactivations.append(moved(h, delta, dt[t], basis, omega, substeps) + z[t])
        h = oracles.activate(activation, preactivations[t], exact_beta)
        exact.append(h)
    carried, exact_grads_z = torch.zeros_like(h), []
    for t in reversed(range(T)):
        exact_grads_z.insert(0, (grad[t] + carried) * oracles.derivative(activation, preactivations[t], exact_beta))
        carried = moved(exact_grads_z[0], delta, dt[t], basis, -omega, substeps)
    tolerance = 10 * math.sqrt(n) * torch.finfo(dtype).eps
    assert relative_error(hs, torch.stack(exact)) <= tolerance
    assert relative_error(grad_z, torch.stack(exact_grads_z)) <= tolerance
    assert relative_error(grad_h0, carried) <= tolerance
    delta, dt, basis, omega, substeps = flow
    monkeypatch.setenv("VFRNN_SIMULATOR_SEED", "1")
    assert all(torch.equal(a, b) for a, b in zip(chains(), (hs, grad_z, grad_h0), strict=True))


def test_spectral_recurrence_in_double():
    case = spectral_recurrence_case(17, T=4, substeps=2)
    case.tensors = [None if t is None else t.double() for t in case.tensors]
    assert_right(case, "cuda")


def test_a_sample_of_spectral_recurrence_does_not_depend_on_its_neighbours():
    *_, S, delta, dt, h0, _ = spectral_recurrence_case(33, T=4, B=9).tensors
    x, U = torch.zeros(4, 9, 0), torch.zeros(33, 0)  # the input product is the framework's
    together = spectral_recurrence(x, U, None, S, delta, dt, h0, backend="cuda")
    for k in (0, 3, 8):
        part = (dt[:, k : k + 1], h0[k : k + 1])
        assert torch.equal(
            spectral_recurrence(x[:, :1], U, None, S, delta, *part, backend="cuda")[:, 0], together[:, k]
        )


def launches(function):
    before = torch.ops.vfrnn_simulator.launches()
    result = function()
    return torch.ops.vfrnn_simulator.launches() - before, result


def test_the_weights_of_a_static_model_take_four_launches():
    for model in (
        vfrnn.VFRNN(3, 20, backend="cuda"),
        vfrnn.VFRNN(3, 20, mesh=vfrnn.LatentMesh.grid(20), backend="cuda"),
    ):
        count, M = launches(model.step_matrix)
        assert M.shape == (20, 20)
        assert count <= 4


@pytest.mark.parametrize("n", [20, 64, 100])
def test_an_exponential_is_one_launch_and_so_is_its_backward(n):
    S = torch.stack(
        [skew_matrix(n, 1.0, dtype=torch.float32), skew_matrix(n, 20.0, dtype=torch.float32)]
    ).requires_grad_()
    count, Q = launches(lambda: skew_expm(S, backend="cuda"))
    assert count == 1
    assert launches(lambda: torch.autograd.grad(Q.sum(), S))[0] == 1


@pytest.mark.parametrize("per_sample", [False, True])
def test_a_flow_is_one_launch_and_so_is_its_backward(per_sample):
    case = CASES["field_flow per sample" if per_sample else "field_flow"](17)
    leaves = case.leaves()
    count, outputs = launches(lambda: case.run(leaves, "cuda"))
    assert count == 1
    assert launches(lambda: gradients(outputs, leaves, [torch.ones_like(t) for t in outputs]))[0] == 1


def test_all_steps_of_spectral_recurrence_are_one_launch_and_so_is_their_backward():
    case = spectral_recurrence_case(17, T=9, B=9)
    leaves = case.leaves()
    count, outputs = launches(lambda: case.run(leaves, "cuda"))
    assert count == 1
    assert launches(lambda: gradients(outputs, leaves, [torch.ones_like(t) for t in outputs]))[0] == 1


def test_all_steps_are_one_launch(monkeypatch):
    # and one before it, which packs M
    by_route(monkeypatch, "cta")
    case = recurrence_case(20, T=9)
    leaves = case.leaves()
    assert launches(lambda: case.run(leaves, "cuda"))[0] == 2
