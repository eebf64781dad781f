"""`vfrnn bench`: what it writes and prints, and clear errors."""

import json
import sys

import pytest

from vfrnn.cli import main


def test_a_run_of_a_workload(tmp_path, capsys):
    pytest.importorskip("rich", reason="needs vfrnn-kernels[bench]")
    out = tmp_path / "bench"
    assert main(["bench", "--workload", "E(32) norm 1", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    result = json.loads((out / "results.json").read_text())
    assert [case["workload"] for case in result["cases"]] == ["E(32) norm 1", "E(32) norm 10"]
    assert "torch.matrix_exp" in printed
    assert "GFLOP/s" in printed
    assert "vfrnn.skew_expm is " in printed.replace("\n", " ")
    assert (out / "report.html").read_text().count("<svg") == 3


def test_bad_options(capsys):
    pytest.importorskip("rich", reason="needs vfrnn-kernels[bench]")
    assert main(["bench", "--workload", "R9"]) == 1
    assert "workload must start the name of one of" in capsys.readouterr().err
    assert main(["bench", "--device", "nowhere"]) == 1
    assert "--device nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["bench", "profile"])
def test_what_is_missing_is_named_with_its_remedy(command, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main([command]) == 1
    error = capsys.readouterr().err
    assert "rich" in error
    assert "pip install 'vfrnn-kernels[bench]'" in error
