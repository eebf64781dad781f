"""The benchmark registries hold together, and the table and its JSON come out."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # `bench` is not installed
cpu = pytest.importorskip("bench.cpu", reason="the benchmarks are part of a checkout")


def test_names_are_unique():
    names = [case.name for case in cpu.cases()]
    assert len(set(names)) == len(names)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a peer, where it is installed
def test_targets_name_providers():
    for case in cpu.cases():
        if case.name in ("R5", "R5 activation", "S5", "E(32) norm 1", "F1"):
            runs = case.make_runs()
            assert {name for pair in case.targets for name in pair} <= set(runs)


def test_table_and_json(tmp_path, capsys, monkeypatch):
    out = tmp_path / "table.json"
    monkeypatch.setattr(sys, "argv", ["cpu", "--workload", "E(32) norm 1", "--repeats", "2", "--out", str(out)])
    assert cpu.main() == 0
    result = json.loads(out.read_text())
    row = result["rows"][0]
    assert row["provider"] == "vfrnn.skew_expm"
    assert row["peer"] == "torch.matrix_exp"
    assert row["target"] == 0.4
    assert row["ratio"] > 0
    assert row["share_of_ceiling"] > 0
    assert "torch.matrix_exp" in capsys.readouterr().out
