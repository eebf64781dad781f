"""What a run leaves: the summary, the table, the log and the picture."""

import json

import pytest

from tests.tasks.cases import trained, training_options
from vfrnn.tasks import report


@pytest.fixture(scope="module")
def run():
    return trained(training_options(epochs=7), until=7)


def test_the_summary_averages_the_last_epochs(run):
    rows = report.summary(run)
    assert [(row["model"], row["epochs"]) for row in rows] == [("vfrnn", 7), ("lstm", 7)]
    for row, trainee in zip(rows, run.trainees, strict=True):
        assert row["test"] == pytest.approx(sum(epoch.test for epoch in trainee.history[2:]) / 5)
        assert row["loss"] == trainee.history[-1].loss
        assert row["parameters"] == sum(p.numel() for p in trainee.model.parameters())
    assert rows[0]["divergence_scale"] is not None
    assert rows[1]["divergence_scale"] is None


def test_the_table_names_every_model_and_the_baseline(run):
    lines = report.table(run).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["vfrnn.VFRNN", "torch.nn.LSTM"]
    assert lines[3].startswith("without memory")
    assert f"{run.task.baseline:.5f}" in lines[3]
    assert lines[4] == "test cross entropy: mean of the last 5 epochs"


def test_the_log_holds_every_epoch(run, tmp_path):
    document = json.loads(report.write_log(run, tmp_path).read_text())
    assert document["options"]["seed"] == 3
    assert document["summary"] == report.summary(run)
    for trainee in run.trainees:
        assert [epoch["loss"] for epoch in document["epochs"][trainee.name]] == [e.loss for e in trainee.history]


def test_the_picture_is_a_png(run, tmp_path):
    pytest.importorskip("matplotlib", reason="needs vfrnn-kernels[train]")
    assert report.draw(run, tmp_path).read_bytes().startswith(b"\x89PNG")
