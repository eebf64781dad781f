"""The cases for compute-sanitizer: every op, at the sizes of its routes, on a backend that is here."""

import pytest
import torch
from vfrnn_bench.gpu import sanitized

from vfrnn_kernels.declaration import OPS


@pytest.fixture
def on_the_reference(monkeypatch):
    monkeypatch.setattr(sanitized, "DEVICE", torch.device("cpu"))
    monkeypatch.setattr(sanitized, "BACKEND", "reference")


def test_a_case_runs_both_passes(on_the_reference, capsys):
    sanitized.run("recurrence", 3, activation="relu", T=2)
    assert capsys.readouterr().out == "recurrence n 3 activation relu, T 2: finite\n"


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_cases(on_the_reference, op):
    found = list(sanitized.variations(op, 5))
    assert found[0] == {}
    sanitized.run(op, 5, **found[-1])
