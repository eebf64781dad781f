"""What is particular to the CUDA kernels, in the emulator: the recurrence's routes, the order of threads, launches."""

import pytest
import torch

import vfrnn
from tests.cases import skew_matrix
from tests.gpu_cases import CASES, assert_right, gradients, recurrence_case, skip_unserved, small_case
from vfrnn_kernels import recurrence, skew_expm
from vfrnn_kernels.loader import CUDA_EMULATED
from vfrnn_kernels.recurrence import ACTIVATIONS

pytestmark = pytest.mark.skipif(CUDA_EMULATED is None, reason="needs VFRNN_CUDA_EMULATED (make test-cuda-emulated)")

#: The least n of a cluster of blocks, by type.
IN_A_CLUSTER = {torch.float32: 193, torch.bfloat16: 257}


def by_route(monkeypatch, route):
    monkeypatch.setenv("VFRNN_RECURRENCE_ROUTE", route)


def everything(case):
    """Outputs and gradients."""
    leaves = case.leaves()
    outputs = case.run(leaves, "cuda")
    return [*outputs, *gradients(outputs, leaves, [torch.linspace(-1, 1, t.numel()).view_as(t).to(t) for t in outputs])]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("route", ["cta", "steps"])
def test_routes(monkeypatch, route, dtype, activation):
    if dtype == torch.float64 and route == "cta":
        pytest.skip("float64 goes step by step")
    by_route(monkeypatch, route)
    for n, B in ((33, 9), (64, 17)):
        assert_right(recurrence_case(n, dtype, activation, T=4, B=B), "cuda")


@pytest.mark.parametrize(("n", "dtype"), [(190, torch.float32), (129, torch.bfloat16), (250, torch.float16)], ids=str)
def test_larger_states_in_one_block(monkeypatch, n, dtype):
    by_route(monkeypatch, "cta")
    assert_right(recurrence_case(n, dtype, "modrelu", T=3, B=3), "cuda")


@pytest.mark.parametrize("activation", ["tanh", "modrelu"])
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
    skip_unserved(name, "cuda")
    case = small_case(name, 20)
    found = []
    for seed in (None, "1", "2"):
        if seed is not None:
            monkeypatch.setenv("VFRNN_EMULATOR_SEED", seed)
        found.append(everything(case))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize(("route", "n"), [("cta", 40), ("cluster", 270), ("steps", 40)])
def test_the_order_of_threads_by_route(monkeypatch, route, n):
    by_route(monkeypatch, route)
    case = recurrence_case(n, torch.bfloat16, "tanh", T=5, B=3)
    expected = everything(case)
    for seed in ("1", "2", "3"):
        monkeypatch.setenv("VFRNN_EMULATOR_SEED", seed)
        assert all(torch.equal(a, b) for a, b in zip(expected, everything(case), strict=True))


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


def launches(function):
    before = torch.ops.vfrnn_emulator.launches()
    result = function()
    return torch.ops.vfrnn_emulator.launches() - before, result


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


def test_all_steps_are_one_launch(monkeypatch):
    # and one before it, which packs M
    by_route(monkeypatch, "cta")
    case = recurrence_case(20, T=9)
    leaves = case.leaves()
    assert launches(lambda: case.run(leaves, "cuda"))[0] == 2
