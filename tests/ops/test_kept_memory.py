"""What a call of an op leaves behind: nothing. Counted by the C library, in a process of its own."""

import json
import os
import subprocess
import sys

import pytest

from vfrnn_kernels.declaration import OPS

#: By op the bytes that a call with its gradients leaves in malloc's hands, over many calls.
SCRIPT = """
import gc, json, sys
import torch
from vfrnn_bench.levels import heap
from vfrnn_kernels.declaration import OPS

CALLS = 300

def call(op, sample):
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in sample.leaves.items()}
    results = op.function(**{**sample.arguments, **leaves}, backend="cpu")
    results = results if isinstance(results, tuple) else (results,)
    sum(result.sum() for result in results if result.requires_grad).backward()

found = {}
for op in OPS.values():
    torch.manual_seed(0)
    sample = op.sample(8)
    for _ in range(50):
        call(op, sample)
    gc.collect()
    before = heap()
    for _ in range(CALLS):
        call(op, sample)
    gc.collect()
    found[op.name] = (heap() - before) / CALLS
print(json.dumps(found))
"""


@pytest.mark.slow
def test_no_op_keeps_memory_of_its_calls():
    # Without the C library's caches of each thread, whose freed pieces it counts as given.
    environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment, timeout=280
    )
    kept = json.loads(result.stdout)
    assert set(kept) == set(OPS)
    # A str argument that PyTorch's headers convert would leave 48.
    assert all(size < 8 for size in kept.values()), kept
