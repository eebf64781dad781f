"""Tables and pictures of a run on a GPU, from its results alone."""

import pytest
from vfrnn_bench.gpu import report
from vfrnn_bench.gpu.results_file import ResultsFile


def row(part, case, provider, **more):
    base = {
        "part": part, "case": case, "dtype": "fp32", "mode": "step", "provider": provider, "median_ms": 1.0,
        "us_per_step": 2.0, "spread": 0.1, "rounds": 5, "ratios": {}, "targets": {}, "errors": {"output": 1e-7},
    }  # fmt: skip
    return base | more


def rows():
    e = {"n": 64, "norm": 1.0, "batch": 1, "ratios": {"torch.matrix_exp": 0.1}, "targets": {"torch.matrix_exp": 0.05}}
    r = {"n": 512, "ratios": {"torch.nn.RNN": 0.3}, "targets": {"torch.nn.RNN": 0.4}}
    return [
        row("exponential", "E(64) norm 1", "vfrnn.skew_expm cuda", **e),
        row("exponential", "E(64) norm 1", "vfrnn.skew_expm cuda, CUDA graph", **e),
        row("exponential", "E(64) norm 1", "torch.matrix_exp", n=64, norm=1.0, batch=1),
        row("recurrence", "R6 n=512", "vfrnn.RNN cuda", **r),
        row("recurrence", "R6 n=512", "torch.nn.RNN", n=512, cudnn=True),
        row("recurrence", "R6 n=512", "torch.nn.RNN", n=512, mode="forward", median_ms=0.25),
        row("steps", "S1", "vfrnn.VFRNN cuda", n=190, ratios={"orthogonal loop": 0.02}),
    ]


def test_a_goal_that_is_missed_is_marked():
    lines = report.summary(rows())
    assert any(line.startswith("cuda, norm 1, x1") and line.endswith("0.100!") for line in lines)
    assert any(line.startswith("cuda, graph, norm 1, x1") for line in lines)
    assert any("vfrnn.RNN cuda" in line and line.endswith("0.300 torch.nn.RNN") for line in lines)


def test_the_peers_alone():
    (line,) = (line for line in report.design(rows()) if line.startswith("R6"))
    assert line.split()[-5:] == ["torch.nn.RNN", "0.250", "1.000", "2.00", "cuDNN"]


def test_files_and_terminal(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    file = ResultsFile(tmp_path)
    file.data |= {"about": {"device": "GPU", "build": {"cuda": "90a"}}, "ceilings": {"copy_tb_s": 4.0}}
    file.fail("recurrence R1 fp32", "vfrnn.RNN triton", "wrong")
    file.skip("loops R1 fp32")
    file.finish("everything", rows())
    report.report(file, tmp_path, ["a note"])
    printed = capsys.readouterr().out
    for text in ("a note", "device GPU", "copy_tb_s 4", "FAILED recurrence R1 fp32", "no time for: loops R1 fp32"):
        assert text in printed
    assert "5 rounds" in (tmp_path / "tables.txt").read_text()
    for name in ("exponential.png", "recurrence.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_terminal_keeps_the_head():
    assert report._cut(["a"] * 9) == "\n".join("a" * 9)
    cut = report._cut(["x" * 100] * 500)
    assert len(cut) < report.SUMMARY + 100
    assert cut.endswith("(tables.txt has all of it)")
