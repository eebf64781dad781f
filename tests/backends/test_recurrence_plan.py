"""The plans of the recurrence's CUDA kernels, for devices that need not be there."""

import itertools
import math

import pytest
import torch

import vfrnn
from vfrnn_kernels.cuda_device import CudaDevice

host = pytest.importorskip("vfrnn_kernels._host", reason="the host module is not built")

#: arch, multiprocessors, shared_limit, largest_cluster
DEVICES = (
    *((80, 108, 166912, 1), (86, 84, 101376, 1), (89, 142, 101376, 1)),
    *((90, 132, 232448, 1), (90, 132, 232448, 8), (90, 132, 232448, 16)),
    *((100, 148, 232448, 16), (120, 170, 101376, 8)),
)
BATCHES = (1, 7, 64, 4096)
DTYPES = ("bfloat16", "float16", "float32", "float64")
#: Registers that a thread of a persistent kernel needs beside those of M, at least.
SLACK = 32


@pytest.mark.parametrize("device", DEVICES, ids=lambda d: f"sm_{d[0]}_cluster_{d[3]}")
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_plan_fits_its_device(dtype, device):
    largest_cluster, shared_limit = device[3], device[2]
    for n, batch in itertools.product(range(1, 2049), BATCHES):
        plan = host.recurrence_plan(n, dtype, batch, n % 2 == 0, *device)
        where = n, batch, plan
        assert plan["N"] >= n, where
        assert 0 < plan["shared"] <= shared_limit, where
        assert plan["threads"] in range(32, 1025, 32), where
        assert plan["registers"] + SLACK <= min(255, 65536 // plan["threads"]), where
        assert 0 < plan["microseconds"] < math.inf, where
        assert plan["blocks"] * plan["samples"] >= batch * plan["cluster"], where
        if plan["route"] == "cluster":
            assert 1 < plan["cluster"] <= largest_cluster, where
        else:
            assert plan["cluster"] == 1, where
        assert (plan["shape"] == -1) == (plan["route"] == "steps"), where


@pytest.mark.parametrize("device", DEVICES, ids=lambda d: f"sm_{d[0]}_cluster_{d[3]}")
@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_small_states_stay_in_a_block_and_large_ones_go_step_by_step(dtype, device):
    routes = [host.recurrence_plan(n, dtype, 64, False, *device)["route"] for n in range(1, 2049)]
    assert set(routes[:64]) == {"cta"}
    assert routes[-1] == "steps"
    # A block, then a cluster where there are any, then steps: each route is one range of n.
    assert [route for route, _ in itertools.groupby(routes)] in (["cta", "steps"], ["cta", "cluster", "steps"])


def test_float64_goes_step_by_step():
    plans = [host.recurrence_plan(n, "float64", 64, True) for n in (1, 64, 2048)]
    assert {plan["route"] for plan in plans} == {"steps"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_prediction_grows_with_the_batch(dtype):
    for n in (16, 100, 300, 700, 1024, 1500):
        times = [host.recurrence_plan(n, dtype, batch, False)["microseconds"] for batch in (1, 64, 512, 4096, 65536)]
        assert times == sorted(times)


#: Microseconds that the bound of a step of a few samples must stay below, forward; of a cluster with its exchange.
BOUNDS = [("bfloat16", 64, 0.20), ("bfloat16", 128, 0.26), ("bfloat16", 256, 0.45), ("float32", 128, 0.5)]


@pytest.mark.parametrize(("dtype", "n", "bound"), [*BOUNDS, ("bfloat16", 512, 0.7)], ids=str)
def test_the_bound_of_a_step(dtype, n, bound):
    forward, backward = (host.recurrence_plan(n, dtype, 8, way) for way in (False, True))
    assert forward["route"] == ("cluster" if n == 512 else "cta")
    assert forward["microseconds"] <= bound
    assert backward["microseconds"] <= 1.25 * bound


@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_of_all_routes_and_shapes_the_least_bound_is_taken(dtype):
    for n, batch in itertools.product((64, 190, 256, 500, 1024), BATCHES):
        chosen = host.recurrence_plan(n, dtype, batch, False)["microseconds"]
        without_clusters = host.recurrence_plan(n, dtype, batch, False, largest_cluster=1)["microseconds"]
        assert chosen <= without_clusters, (n, batch)


def test_the_largest_clusters_are_left_out_where_a_device_has_none():
    for n in (512, 768, 1024):
        plan = host.recurrence_plan(n, "bfloat16", 64, False, largest_cluster=1)
        assert plan["cluster"] == 1


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="dtype must be bfloat16, float16, float32 or float64, got int8"):
        host.recurrence_plan(8, "int8", 1, False)
    with pytest.raises(ValueError, match="n and batch must be at least 1"):
        host.recurrence_plan(0, "float32", 1, False)


def test_the_public_plan_is_that_of_the_host():
    rtx = CudaDevice(86, 80, 84, 101376, 1)
    for n, batch, dtype, backward in ((512, 64, torch.bfloat16, False), (100, 3, torch.float64, True)):
        name = str(dtype).removeprefix("torch.")
        assert vars(vfrnn.plan(n, batch, dtype, backward=backward)) == host.recurrence_plan(n, name, batch, backward)
        found = vfrnn.plan(n, batch, dtype, backward=backward, device=rtx)
        assert vars(found) == host.recurrence_plan(n, name, batch, backward, 86, 84, 101376, 1)
    assert vfrnn.plan(64, 8) == vfrnn.plan(64, 8, torch.float32, backward=False)


@pytest.mark.parametrize(
    ("arguments", "named", "error", "message"),
    [
        ((0, 8), {}, ValueError, "n must be at least 1, got 0"),
        ((2**31, 8), {}, ValueError, "n must be at most 1073741824, got 2147483648"),
        ((8, 2**31), {}, ValueError, "batch must be at most 2147483647, got 2147483648"),
        ((8, 2.0), {}, TypeError, "batch must be an int, got float"),
        ((8, 8, torch.int8), {}, ValueError, "dtype must be one of .*torch.float64, got torch.int8"),
        ((8, 8), {"backward": 1}, TypeError, "backward must be .*bool, got int"),
        ((8, 8), {"device": "cuda"}, TypeError, "device must be a vfrnn_kernels.cuda_device.CudaDevice, got str"),
    ],
)
def test_wrong_arguments_of_the_public_plan_are_named(arguments, named, error, message):
    with pytest.raises(error, match=message):
        vfrnn.plan(*arguments, **named)
