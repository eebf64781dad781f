"""The registry of workloads: names, sizes, flops and bytes, tensors."""

import math
from dataclasses import replace

import pytest
import torch
from vfrnn_bench.workloads import (
    EXPONENTIALS,
    FRAMES,
    INPUT_FIELDS,
    IRREGULAR,
    LONG_SEQUENCES,
    MESHES,
    SEQUENCES,
    SMALL_EXPONENTIALS,
    Exponential,
    spectral_norms,
)

from tests.bench import small

EVERY = (
    *SEQUENCES, *LONG_SEQUENCES, *EXPONENTIALS, *SMALL_EXPONENTIALS, *FRAMES, *MESHES, *INPUT_FIELDS, *IRREGULAR,
)  # fmt: skip


def test_minimal_bytes_and_flops():
    R1 = SEQUENCES[0]
    states = R1.T * R1.B * R1.n
    assert R1.flops == 4 * states * (R1.n + R1.i) + 2 * states * R1.n
    assert 3 * 4 * states < R1.minimal_bytes < 3.5 * 4 * states
    assert R1.state_bytes == 4 * states
    assert Exponential(64, 1.0).minimal_bytes == 4 * 4 * 64**2


@pytest.mark.parametrize("workload", EVERY, ids=lambda w: f"{w.name} {w.n}")
def test_work_is_positive(workload):
    assert workload.flops > 0
    assert workload.minimal_bytes > 0


def test_squarings_cost():
    assert Exponential(64, 50.0).flops > Exponential(64, 10.0).flops > Exponential(64, 1.0).flops
    assert [Exponential(64, norm).flops / (2 * 64**3) for norm in (1.0, 3.0, 10.0)] == [11, 14, 19]
    assert [Exponential(64, norm).forward_flops / (2 * 64**3) for norm in (1.0, 3.0, 10.0)] == [4, 5, 8]
    assert Exponential(3, 1.0).flops == Exponential(3, 50.0).flops > Exponential(3, 1.0).forward_flops
    assert Exponential(64, 1.0, batch=3).flops == 3 * Exponential(64, 1.0).flops


@pytest.mark.parametrize("workload", [small.EXPONENTIAL, small.FRAME, *small.FIELDS], ids=lambda w: w.name)
def test_tensors_are_the_same_every_time(workload):
    for first, second in zip(workload.inputs(), workload.inputs(), strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    tensors, grads = workload.inputs()
    assert set(getattr(workload, "learned", tensors.keys())) <= set(tensors)
    assert all(grad.isfinite().all() for grad in grads.values())


def test_a_sequence_and_its_incoming_gradient():
    x, grad = small.SEQUENCE.inputs()
    assert x.shape == (5, 3, 2)
    assert grad.shape == (5, 3, 8)


@pytest.mark.parametrize("batch", [1, 3])
def test_exponentials_have_the_norm_they_say(batch):
    tensors, grads = replace(small.EXPONENTIAL, norm=math.pi, batch=batch).inputs()
    S = tensors["S"]
    assert S.shape == grads["Q"].shape == (batch, 12, 12)
    assert torch.equal(S, -S.mT)
    norms = torch.linalg.matrix_norm(S, 2)
    torch.testing.assert_close(norms, torch.full((batch,), math.pi), rtol=1e-2, atol=0)


def test_spectral_norms_by_powers():
    A = torch.randn(4, 20, 20, dtype=torch.float64)
    S = A - A.mT
    torch.testing.assert_close(spectral_norms(S).flatten(), torch.linalg.matrix_norm(S, 2), rtol=1e-2, atol=0)
