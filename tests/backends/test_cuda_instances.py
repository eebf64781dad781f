"""Every instance of the recurrence's persistent kernels that a plan can choose, once, in the simulator."""

import itertools

import pytest
import torch

from tests.backends.gpu_cases import assert_right, recurrence_case
from vfrnn_kernels.loader import CUDA_SIMULATED

host = pytest.importorskip("vfrnn_kernels._host", reason="the host module is not built")
pytestmark = pytest.mark.skipif(CUDA_SIMULATED is None, reason="needs VFRNN_CUDA_SIMULATED (make test-gpu-simulated)")

#: The largest n of every padded size, and one that is a multiple of nothing.
SIZES = [N - odd for N in (64, 128, 192, 256, 512, 768, 1024) for odd in (7, 0)]
#: Samples for one tile or two, which are then not full, or for as many blocks that the plan takes larger ones.
BATCHES = (3, 9, 17, 33, 65, 129, 257)
#: The largest cluster of the device: 16 blocks, or 8 where it has no more.
CLUSTERS = (16, 8)
#: Of the simulated device, of one on which two clusters of 4 find room, and of an H100: the more there are, the smaller
#: are the tiles.
MULTIPROCESSORS = (3, 8, 132)


def plan_of(n: int, dtype: str, B: int, backward: bool, cluster: int, multiprocessors: int) -> dict:
    """As the simulated device gets it."""
    return host.recurrence_plan(n, dtype, B, backward, 90, multiprocessors, 232448, cluster)


def cases() -> list[tuple]:
    """(dtype, n, B, largest cluster, multiprocessors), of each kernel, forward or backward, the one with the least
    padding and work."""
    found = {}
    for dtype, *case in itertools.product(("float32", "bfloat16"), SIZES, BATCHES, CLUSTERS, MULTIPROCESSORS):
        n, B, cluster, multiprocessors = case
        for backward in (False, True):
            plan = plan_of(n, dtype, B, backward, cluster, multiprocessors)
            if plan["route"] != "steps":
                cost = plan["N"] - n > 7, n * n * (B + 7), -cluster, multiprocessors
                best = found.setdefault((dtype, plan["shape"], backward), (cost, tuple(case)))
                if cost < best[0]:
                    found[dtype, plan["shape"], backward] = cost, tuple(case)
    types = {"float32": ["float32"], "bfloat16": ["bfloat16", "float16"]}
    return sorted({(name, *rest) for (dtype, *_), (_, rest) in found.items() for name in types[dtype]})


CASES = cases()


def test_the_large_ones_are_among_them():
    served = {
        (dtype, plan_of(n, dtype, *device)["N"]) for dtype, n, B, *rest in CASES for device in [(B, False, *rest)]
    }
    assert {("bfloat16", 768), ("bfloat16", 1024), ("float16", 1024), ("float32", 512), ("float32", 768)} <= served
    assert {cluster for _, n, _, cluster, _ in CASES if n > 768} == set(CLUSTERS)


def run(monkeypatch, dtype, n, B, cluster, multiprocessors, **options):
    monkeypatch.setenv("VFRNN_SIMULATOR_CLUSTER", str(cluster))
    monkeypatch.setenv("VFRNN_SIMULATOR_SMS", str(multiprocessors))
    assert_right(recurrence_case(n, getattr(torch, dtype), "tanh", T=2, B=B, i=1, **options), "cuda")


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_every_instance(monkeypatch, case):
    run(monkeypatch, *case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in CASES if c[0] != "float32"], ids=lambda case: "-".join(map(str, case)))
def test_every_instance_with_its_state_in_float32(monkeypatch, case):
    run(monkeypatch, *case, state=torch.float32)
