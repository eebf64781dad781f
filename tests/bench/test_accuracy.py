"""Errors of exponentials beside their cost."""

import pytest
from vfrnn_bench import accuracy
from vfrnn_bench.exponential_providers import exponential_exact

from tests.bench.small import CPU, EXPONENTIAL, ON_CPU


def test_errors_of_exponentials():
    exact = exponential_exact(EXPONENTIAL, ON_CPU)
    assert max(accuracy.errors(exact, exact).values()) < 1e-14
    off = {"Q": exact["Q"] + 1e-3, "grad S": 1.5 * exact["grad S"]}
    errors = accuracy.errors(off, exact)
    assert errors["forward"] == pytest.approx(1e-3)
    assert errors["gradient"] == pytest.approx(0.5)
    assert errors["orthogonality"] > 1e-3


def test_a_row_for_every_norm_and_provider():
    pytest.importorskip("scipy")
    rows = list(accuracy.accuracy(CPU, (8,), rounds=2))
    assert {row["norm"] for row in rows} == set(accuracy.NORMS)
    assert {row["provider"] for row in rows} == {"vfrnn.skew_expm", "torch.matrix_exp", "scipy.linalg.expm"}
    for row in rows:
        assert row["median_ms"] > 0
        assert ("gradient" in row["errors"]) == (row["provider"] != "scipy.linalg.expm")
