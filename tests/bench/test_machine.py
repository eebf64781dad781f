"""What a report says of the machine, and the machine's ceilings."""

import json

import pytest
import torch
from vfrnn_bench import machine

from tests.bench.small import CPU


def test_the_machine_as_json():
    found = machine.machine(CPU)
    assert json.loads(json.dumps(found)) == found
    assert found["type"] == "cpu"
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["device"]


def test_commit_of_the_environment(monkeypatch):
    monkeypatch.setenv("VFRNN_COMMIT", "abc")
    assert machine.commit() == "abc"


def test_no_commit_outside_a_checkout(monkeypatch):
    monkeypatch.delenv("VFRNN_COMMIT", raising=False)
    monkeypatch.setenv("PATH", "")
    assert machine.commit() == ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ceilings_are_positive(dtype):
    assert machine.gemm_ceiling(CPU, 32, dtype) > 0
    assert machine.copy_ceiling(CPU, 1) > 0
