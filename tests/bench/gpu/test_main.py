"""`python -m vfrnn_bench.gpu` on the CPU: every part, and the report; `run.sh` calls it so."""

import json
import subprocess
import sys

import pytest
from vfrnn_bench.gpu import __main__ as gpu
from vfrnn_bench.gpu import ceilings, measure
from vfrnn_bench.gpu.cases import PARTS
from vfrnn_bench.timing import Budget


@pytest.fixture
def dry_run(tmp_path, monkeypatch):
    """Runs one part; pytest-timeout has the one timer of faulthandler."""
    monkeypatch.setattr(measure.faulthandler, "dump_traceback_later", lambda *args, **kwargs: None)
    monkeypatch.setattr(measure.faulthandler, "cancel_dump_traceback_later", lambda: None)
    monkeypatch.setattr(measure, "SAMPLE", 0.0)
    monkeypatch.setattr(ceilings, "BUDGET", Budget(0.0, least=2))

    def run(part, *more):
        assert gpu.main([str(tmp_path), part, "--device", "cpu", "--quick", *more]) == 0
        path = tmp_path / "results.json"
        return json.loads(path.read_text()) if path.exists() else None

    return run


@pytest.mark.parametrize("part", [part for part in PARTS if part != "loops"])
def test_every_provider_of_a_part_is_right(part, dry_run):
    result = dry_run(part)
    assert result["failures"] == result["skipped"] == []
    assert {row["part"] for row in result["rows"]} == {part}
    assert all(row["ratios"] for row in result["rows"] if row["provider"].startswith("vfrnn"))


def test_ceilings_and_report(dry_run, tmp_path, capsys):
    assert set(dry_run("ceilings")["about"]) >= {"device", "commit", "torch"}
    dry_run("report", "--note", "built")
    assert "built" in capsys.readouterr().out
    assert (tmp_path / "tables.txt").exists()


@pytest.mark.slow
def test_the_loops_in_a_process_of_their_own(tmp_path):
    command = [sys.executable, "-m", "vfrnn_bench.gpu", tmp_path, "loops", "--device", "cpu", "--quick"]
    subprocess.run(command, check=True, timeout=200)
    result = json.loads((tmp_path / "results.json").read_text())
    assert result["failures"] == []
    assert "loop, compiled step" in {row["provider"] for row in result["rows"]}
