"""Kernels that no other test launches, because they are for large sizes: simulated, they take seconds each.

`python -m tests.gpu_simulator.coverage` says which are left.
"""

import itertools
import os

import pytest
import torch

from tests.backends.gpu_cases import assert_right, recurrence_case, skew_expm_case
from tests.cases import quick
from vfrnn_kernels.loader import CUDA_EMULATED

host = pytest.importorskip("vfrnn_kernels._host", reason="the host module is not built")

pytestmark = pytest.mark.skipif(
    "simulated" not in (CUDA_EMULATED or ""),
    reason="needs the simulator (python -m tests.gpu_simulator.run -- tests/gpu_simulator/test_kernels.py)",
)

#: arch, multiprocessors, bytes of shared memory and the largest cluster of the simulated device.
DEVICE = (90, int(os.environ.get("VFRNN_SIMULATOR_SMS", 3)), 232448, int(os.environ.get("VFRNN_SIMULATOR_CLUSTER", 16)))


def instances() -> list[tuple[str, str, int, int]]:
    """Of the persistent recurrence: type, way, the least n and B for which the plan takes it."""
    found: dict[tuple[str, bool, int], tuple[str, str, int, int]] = {}
    every_n = (64, 128, 192, 256, 512, 768, 1024)
    for dtype, n, B, backward in itertools.product(
        ("bfloat16", "float16", "float32"), every_n, (1, 9, 17, 64, 200, 600), (False, True)
    ):
        plan = host.recurrence_plan(n, dtype, B, backward, *DEVICE)
        if plan["shape"] >= 0:
            way = "backward" if backward else "forward"
            found.setdefault((dtype, backward, plan["shape"]), (dtype, way, n, B))
    return sorted(found.values())


FEW = [("bfloat16", "backward", 768, 1), ("float32", "backward", 512, 1)]


@pytest.mark.parametrize(("dtype", "way", "n", "B"), quick(instances(), *[case for case in FEW if case in instances()]))
def test_every_instance_of_the_persistent_recurrence(dtype, way, n, B):
    case = recurrence_case(n, getattr(torch, dtype), "tanh", T=2, B=B)
    assert_right(case, "cuda", values_alone=way == "forward")


@pytest.mark.parametrize("norm", quick([1.0, 20.0], 20.0))
def test_exponentials_by_tiles(norm):
    assert_right(skew_expm_case(130, norm, K=1), "cuda")
