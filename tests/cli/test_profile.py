"""`vfrnn profile`: what it writes and prints, and clear errors."""

import json

import pytest

from tests.bench.small import SEQUENCE
from vfrnn.cli import main

pytest.importorskip("rich", reason="needs vfrnn-kernels[bench]")
from vfrnn_bench import profile


def test_a_profile(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(profile, "workload", lambda name: SEQUENCE)
    assert main(["profile", "--workload", "R1", "--out", str(tmp_path)]) == 0
    assert "recurrence backward" in capsys.readouterr().out
    assert (tmp_path / "stages.png").stat().st_size > 1000
    stages = json.loads((tmp_path / "stages.json").read_text())
    assert stages["workload"] == "small"
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {"forward", "backward", "optimizer", "vfrnn_kernels::recurrence"} <= {e.get("name") for e in events}


def test_an_unknown_workload(capsys):
    assert main(["profile", "--workload", "R9"]) == 1
    assert "workload must be one of R1, R2" in capsys.readouterr().err
