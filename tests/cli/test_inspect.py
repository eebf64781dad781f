"""`vfrnn inspect`: the page of a run, of a checkpoint and of the end of a training; what goes wrong is one sentence."""

import argparse
import base64
import re
from dataclasses import replace

import pytest
import torch

from tests.tasks.cases import task_options, trained, training_options
from vfrnn.cli import inspect as command
from vfrnn.cli import main
from vfrnn.tasks.models import ModelOptions
from vfrnn.tasks.report import write_log
from vfrnn.tasks.training import Training

pytest.importorskip("matplotlib", reason="needs vfrnn-kernels[train]")


def run(*arguments: object) -> int:
    """`vfrnn inspect ARGUMENTS`, also where the entry point is not installed yet."""
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    parsed = parser.parse_args(["inspect", *map(str, arguments)])
    return parsed.run(parsed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two epochs of three models, the first of which is not ours."""
    folder = tmp_path_factory.mktemp("run")
    trained(training_options(models=("lstm", "vfrnn", "rnn")), until=2).save(folder)
    return folder


@pytest.fixture
def without_layers(monkeypatch):
    """Pages without the pictures of every layer, which take the longest to draw."""
    monkeypatch.setattr("vfrnn.inspection.inspection.layer_pictures", lambda layers: [])


def titles(folder):
    return re.findall(r"<h2[^>]*>([^<]*)</h2>", (folder / "index.html").read_text(encoding="utf-8"))


def test_a_run_is_drawn_with_its_training(folder, capsys):
    assert run(folder) == 0
    printed = capsys.readouterr().out
    assert "layer (VFRNN)" in printed
    assert printed.endswith(f"page: {folder / 'inspect-vfrnn' / 'index.html'}\n")
    assert {"Rotation angles over training", "Gradient over the lag"} <= set(titles(folder / "inspect-vfrnn"))
    assert (folder / "inspect-vfrnn" / "angles-over-training.png").exists()


def test_a_checkpoint_a_model_and_a_folder_of_ones_own(folder, tmp_path, capsys, without_layers):
    assert run(folder / "checkpoint.pt", "--model", "rnn", "--out", tmp_path / "page") == 0
    assert "layer (RNN)" in capsys.readouterr().out
    assert "copying: what vfrnn.RNN has learned" in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")


def test_a_checkpoint_without_records_says_so(folder, tmp_path, without_layers):
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    for trainee in state["trainees"].values():
        for epoch in trainee["history"]:
            del epoch["layers"]
    torch.save(state, tmp_path / "old.pt")
    assert run(tmp_path / "old.pt") == 0
    assert "Rotation angles over training" not in titles(tmp_path / "inspect-vfrnn")
    assert "Angles over training are left out" in (tmp_path / "inspect-vfrnn" / "index.html").read_text("utf-8")


def test_records_are_resumed_and_logged(folder, tmp_path):
    training = Training.resume(folder)
    layers = [epoch.layers for epoch in training.trainees[1].history]
    assert [record.name for records in layers for record in records] == ["layer (VFRNN)"] * 2
    assert layers[0] != layers[1]
    assert f'"angles": [\n       {layers[0][0].angles[0]}' in write_log(training, tmp_path).read_text()
    assert all(epoch.layers == [] for epoch in training.trainees[0].history)


def test_what_goes_wrong_is_one_sentence(folder, tmp_path):
    (tmp_path / "text.pt").write_text("no checkpoint")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "own.pt")
    torch.save(object(), tmp_path / "object.pt")
    trained(training_options(models=("lstm",)), until=1).save(tmp_path)
    for arguments, error, message in (
        ([tmp_path / "none"], FileNotFoundError, "none does not exist: give the folder of a run"),
        ([folder.parent], FileNotFoundError, r"holds no checkpoint\.pt"),
        ([tmp_path / "text.pt"], RuntimeError, "got a file that is none"),
        ([tmp_path / "object.pt"], RuntimeError, "got a file that is none"),
        ([tmp_path / "own.pt"], RuntimeError, r"got one without its options: .* vfrnn\.inspect\(module\)"),
        ([tmp_path], RuntimeError, "the run must have a model with a layer of vfrnn, got lstm"),
        ([folder, "--model", "lstm"], RuntimeError, "model must be one of .*, 'vfrnn', 'rnn', got 'lstm'"),
    ):
        with pytest.raises(error, match=message):
            run(*arguments)


def test_what_was_learned_and_is_not_finite_is_one_sentence(tmp_path):
    training = Training(training_options(models=("vfrnn",)))
    with torch.no_grad():
        training.trainees[0].model.layer.divergence_scale_l0.fill_(1e6)
    training.save(tmp_path)
    with pytest.raises(
        RuntimeError,
        match=r"vfrnn cannot be inspected: module must have finite .* exponential overflows",
    ):
        run(tmp_path)


def test_a_training_ends_with_what_was_learned(tmp_path, capsys, without_layers):
    tiny = ["--epochs", "1", "--steps-per-epoch", "1", "--batch-size", "3", "--quiet", "--model", "lstm", "vfrnn"]
    grid = ["--grid", "5", "--horizon", "2"]
    assert main(["train", "--task", "transport", *tiny, *grid, "--out", str(tmp_path / "a")]) == 0
    page = tmp_path / "a" / "inspect-vfrnn" / "index.html"
    assert capsys.readouterr().out.endswith(f"what was learned: {page}\n")
    assert titles(page.parent)[:3] == [
        "The field that was learned",
        "Predicted beside true frames",
        "The same as a film strip",
    ]
    assert main(["train", "--task", "transport", *tiny, *grid, "--no-page", "--out", str(tmp_path / "n")]) == 0
    assert capsys.readouterr().out.endswith(f"what was learned: vfrnn inspect {tmp_path / 'n'}\n")
    assert not (tmp_path / "n" / "inspect-vfrnn").exists()
    copying = ["--hidden-size", "4", "--delay", "3"]
    assert main(["train", "--task", "copying", *tiny, *copying, "--out", str(tmp_path / "b")]) == 0
    assert capsys.readouterr().out.endswith(f"what was learned: vfrnn inspect {tmp_path / 'b'}\n")
    assert main(["train", "--task", "copying", *tiny[:-1], *copying, "--out", str(tmp_path / "c")]) == 0
    assert "what was learned" not in capsys.readouterr().out


def test_the_field_of_the_true_wind_is_the_truth(tmp_path, without_layers):
    options = replace(
        training_options("transport", ("vfrnn",)),
        task_options=task_options(grid=12, horizon=2),
        model_options=ModelOptions(144, mesh="grid", init="zero", substeps=4),
    )
    training = Training(options)
    layer = training.trainees[0].model.layer
    with torch.no_grad():
        layer.field_l0.copy_(-training.task.wind(training.task.cells()))
        layer.divergence_scale_l0.fill_(1.0)
    training.save(tmp_path)
    assert run(tmp_path) == 0
    page = (tmp_path / "inspect-vfrnn" / "index.html").read_text(encoding="utf-8")
    assert "The learned velocities differ from the true ones by 0 % " in page
    assert base64.b64encode((tmp_path / "inspect-vfrnn" / "animation.gif").read_bytes()).decode() in page
