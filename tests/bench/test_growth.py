"""How time and memory grow: fits, rows, peaks in fresh processes."""

import pytest
from vfrnn_bench import growth
from vfrnn_bench.layer_providers import MODELS
from vfrnn_bench.workloads import InputField

from tests.bench.small import CPU, SEQUENCE


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_exponents(p):
    sizes = (10, 100, 1000)
    assert growth.exponent(sizes, [3e-6 * size**p for size in sizes]) == pytest.approx(p)


def test_growth_over_one_size():
    (row,) = growth.time_growth(CPU, {"T": (2, 4)})
    assert [curve["provider"] for curve in row["curves"]] == list(growth.PROVIDERS)
    assert row["fixed"] == {"B": 32, "n": 128, "i": 8}


def test_copies_of_the_states(monkeypatch):
    monkeypatch.setattr(growth, "peak_memory", lambda provider, workload: 3.0 * workload.state_bytes + 1e4)
    rows = list(growth.memory_growth((10, 20)))
    assert [row["provider"] for row in rows] == list(growth.MEMORY_PROVIDERS)
    assert all(row["copies_of_states"] == pytest.approx(3.0) for row in rows)


@pytest.mark.parametrize("provider", growth.MEMORY_PROVIDERS)
def test_every_provider_whose_memory_is_measured_runs(provider, monkeypatch):
    """Here without its process, and without the peak, which belongs to a process that has done nothing else."""
    monkeypatch.setattr(growth, "peak", lambda run: len(run()))
    small = InputField("small", T=3, B=2, n=6, m=3, d=2, i=1) if provider not in MODELS else SEQUENCE
    if "RNN" in provider:
        small = SEQUENCE
    assert growth._own_peak(provider, small) >= 2


@pytest.mark.slow
def test_a_peak_in_a_fresh_process():
    peak = growth.peak_memory("torch.nn.RNN", growth._memory_workload("torch.nn.RNN", 40))
    states = growth._memory_workload("torch.nn.RNN", 40).state_bytes
    assert states < peak < 50 * states
