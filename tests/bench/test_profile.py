"""Where the time of a training step goes."""

import json

import pytest
from vfrnn_bench import profile

from tests.bench.small import CPU, SEQUENCE


def test_stages_of_a_step():
    rows = profile.profile(SEQUENCE, CPU, rounds=3)
    assert rows[-1]["stage"] == "whole step"
    stages = [row["stage"] for row in rows]
    for name in ("exponential", "field generator", "input product", "recurrence forward", "recurrence backward"):
        assert name in stages
    assert all(row["milliseconds"] >= 0 for row in rows)


def test_a_workload_by_its_name_or_that_of_its_step():
    assert profile.workload("R3") is profile.workload("S3")
    with pytest.raises(ValueError, match="workload must be one of R1, R2, R3, R4, R5, got 'R9'"):
        profile.workload("R9")


def test_a_trace(tmp_path):
    profile.trace(SEQUENCE, CPU, tmp_path / "trace.json", steps=1)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {"forward", "backward", "optimizer", "vfrnn_kernels::recurrence"} <= {e.get("name") for e in events}
