"""`vfrnn train`: every task and model in a tiny run, what a run leaves, an exact resume, and clear errors."""

import json
import math
import re

import pytest
import torch

from tests.tasks.cases import needs, write_series
from vfrnn.cli import main
from vfrnn.cli.train import DEFAULTS, MODEL_NAMES
from vfrnn.tasks import TASKS, TaskOptions, characters
from vfrnn.tasks.mnist import FILES
from vfrnn.tasks.models import MODELS, NONLINEARITIES, ModelOptions, make_model
from vfrnn_kernels.activations import ACTIVATIONS

TINY = ["--epochs", "1", "--hidden-size", "6", "--steps-per-epoch", "2", "--delay", "12", "--length", "8", "--quiet"]


def test_names_are_those_of_the_registries():
    assert tuple(DEFAULTS) == tuple(TASKS)
    assert tuple(MODELS) == tuple(NONLINEARITIES) == MODEL_NAMES


@pytest.mark.parametrize("task", [task for task in TASKS if task not in ("mnist", "series")])
def test_a_run_leaves_a_checkpoint_a_log_and_a_picture(task, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(characters, "language_reference", lambda: "To be, or not to be. " * 20)
    size = ["--batch-size", "400"] if task == "digits" else ["--batch-size", "5"]
    tiny = TINY if task != "transport" else [*TINY[:2], *TINY[4:], "--grid", "5", "--horizon", "2"]
    assert main(["train", "--task", task, "--model", *MODEL_NAMES, *tiny, *size, "--out", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "vfrnn.VFRNN" in output
    assert "without memory" in output
    assert str(tmp_path / "curve.png") in output
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "checkpoint.pt").exists()
    log = json.loads((tmp_path / "log.json").read_text())
    assert [row["model"] for row in log["summary"]] == list(MODEL_NAMES)
    assert log["options"]["task"] == task
    assert log["versions"]["torch"] == torch.__version__
    for epochs in log["epochs"].values():
        assert set(epochs[0]) == {"epoch", "loss", "validation", "test", "step_ms", "steps", "layers"}
        assert epochs[0]["step_ms"] > 0


def test_mnist_from_a_folder(tmp_path, capsys):
    for name, shape in zip(FILES, ((5002, 2, 2), (5002,), (3, 2, 2), (3,)), strict=True):
        header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
        (tmp_path / name).write_bytes(header + bytes(math.prod(shape)))
    arguments = ["train", "--task", "mnist", "--data", str(tmp_path), *TINY, "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert json.loads((tmp_path / "out" / "log.json").read_text())["options"]["task_options"]["data"] == str(tmp_path)
    assert main(["train", "--task", "mnist", "--data", str(tmp_path / "none"), *TINY]) == 1
    assert "train-images-idx3-ubyte" in capsys.readouterr().err


def test_series_of_ones_own(tmp_path, capsys):
    """Every model, of different lengths at times of their own; the checkpoint goes on where the data are the same."""
    path = write_series(tmp_path, ragged=True, timed=True)
    tiny = [*TINY, "--batch-size", "5", "--out", str(tmp_path / "run")]
    assert (
        main(["train", "--data", str(path), "--model", *MODEL_NAMES, *tiny, "--epochs", "2", "--stop-after", "1"]) == 0
    )
    output = capsys.readouterr().out
    assert "series waves: vfrnn, orthogonal" in output
    assert "16 train, 4 validation, 3 test series of 2 channels, 3 to 8 steps at times of their own" in output
    assert json.loads((tmp_path / "run" / "log.json").read_text())["options"]["task_options"]["data"] == str(path)
    moved = tmp_path / "moved.npz"
    path.rename(moved)
    resume = ["train", "--resume", str(tmp_path / "run"), "--quiet"]
    assert main(resume) == 1
    assert f"{path} does not exist: data must be a .ts or .npz file" in capsys.readouterr().err
    assert main([*resume, "--data", str(moved)]) == 0
    assert "series moved: vfrnn, orthogonal" in capsys.readouterr().out
    write_series(tmp_path)
    assert main(["train", "--resume", str(tmp_path / "run"), "--data", str(path)]) == 1
    message = r"checkpoint\.pt: .*waves\.npz must hold the data that the run began with \(SHA-256 \w+\), got others"
    assert re.search(message, capsys.readouterr().err)


def test_a_run_is_called_after_its_task_and_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_series(tmp_path, regression=True)
    assert main(["train", "--data", "waves.npz", "--model", "gru", *TINY]) == 0
    assert "a regression of 1 number" in capsys.readouterr().out
    assert (tmp_path / "runs" / "series-waves-gru" / "checkpoint.pt").exists()


def test_every_model_option_reaches_the_model(tmp_path):
    arguments = ["--mesh", "random", "--cells", "5", "--dim", "2", "--substeps", "2", "--dt", "0.5", "--layers", "2"]
    arguments += ["--volume-preserving", "--init", "zero", "--backend", "reference", "--batch-size", "3"]
    assert main(["train", "--task", "copying", *TINY, *arguments, "--out", str(tmp_path)]) == 0
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["trainees"]["vfrnn"]["model"]["layer.field_l1"].shape == (5, 2)
    assert state["options"]["model_options"]["dt"] == 0.5
    assert state["options"]["model_options"]["volume_preserving"] is True


def test_the_nonlinearity_reaches_ours_and_torchs(tmp_path):
    arguments = ["--model", "vfrnn", "orthogonal", "rnn", "torch-orthogonal", "--nonlinearity", "relu"]
    assert main(["train", "--task", "copying", *TINY, *arguments, "--batch-size", "3", "--out", str(tmp_path)]) == 0
    options = json.loads((tmp_path / "log.json").read_text())["options"]["model_options"]
    assert options["nonlinearity"] == "relu"


@pytest.mark.parametrize("name", MODELS)
def test_every_model_takes_the_nonlinearities_it_says_and_no_other(name):
    needs(name)
    task = TASKS["adding"](TaskOptions(batch_size=2, length=8))
    for nonlinearity in ACTIVATIONS:
        options = ModelOptions(hidden_size=6, nonlinearity=nonlinearity)
        if nonlinearity in NONLINEARITIES[name]:
            assert make_model(name, task, options, seed=0).layer.nonlinearity == nonlinearity
        else:
            with pytest.raises(ValueError, match=f"the model '{name}', got '{nonlinearity}'"):
                make_model(name, task, options, seed=0)


def test_resume_continues_exactly(tmp_path):
    def final(folder):
        log = json.loads((tmp_path / folder / "log.json").read_text())["epochs"]["vfrnn"]
        return [(epoch["epoch"], epoch["loss"], epoch["test"]) for epoch in log]

    arguments = ["train", "--task", "copying", *TINY, "--epochs", "3", "--batch-size", "4"]
    assert main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    assert main([*arguments, "--out", str(tmp_path / "parts"), "--stop-after", "1"]) == 0
    assert len(final("parts")) == 1
    assert main(["train", "--resume", str(tmp_path / "parts"), "--quiet"]) == 0
    assert final("parts") == final("whole")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of --task, --data and --resume is required"),
        (
            ["--task", "copying", "--data", "here"],
            "argument --data: is a task of its own, and copying has its data: give --task or --data",
        ),
        (["--task", "series", "--data", "here"], "argument --task: invalid choice: 'series'"),
        (["--task", "digit"], "argument --task: invalid choice: 'digit'"),
        (["--task", "digits", "--model", "transformer"], "argument --model: invalid choice: 'transformer'"),
        (["--task", "digits", "--mesh", "grid"], "argument --mesh: grid needs a hidden size that is a square, got 128"),
        (["--task", "transport", "--grid", "3"], "argument --grid: must be at least 4, got 3"),
        (["--task", "transport", "--hidden-size", "9"], "argument --hidden-size: is the number of nodes for transport"),
        (["--task", "digits", "--hidden-size", "-3"], "argument --hidden-size: must be at least 1, got -3"),
        (["--task", "digits", "--batch-size", "9" * 30], "argument --batch-size: must be at most 2147483647, got 99"),
        (["--task", "digits", "--lr", "nan"], "argument --lr: must be positive and finite, got nan"),
        (["--task", "adding", "--length", "1"], "argument --length: must be at least 2, got 1"),
        (
            ["--task", "copying", "--nonlinearity", "gelu"],
            "argument --nonlinearity: invalid choice: 'gelu'",
        ),
        (
            ["--task", "copying", "--model", "torch-orthogonal", "--nonlinearity", "modrelu"],
            "argument --nonlinearity: must be one of 'tanh', 'relu' for the model 'torch-orthogonal', got 'modrelu'",
        ),
        (
            ["--task", "copying", "--model", "vfrnn", "gru", "--nonlinearity", "tanh"],
            "argument --nonlinearity: cannot be chosen for the model 'gru', got 'tanh'",
        ),
        (["--task", "copying", "--epochs", "x"], "argument --epochs: must be a whole number, got 'x'"),
        (["--task", "copying", "--lr", "x"], "argument --lr: must be a number, got 'x'"),
        (
            ["--task", "copying", "--backend", "gpu"],
            "argument --backend: must be one of 'cpu', 'cuda', 'triton', 'reference', got 'gpu'",
        ),
    ],
)
def test_bad_options_exit_with_2_and_name_the_option(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_a_gpu_that_is_not_there_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--task", "copying", "--device", "cuda"])
    assert "argument --device: cuda needs a GPU and a CUDA build of torch, got none" in capsys.readouterr().err


def test_resuming_nothing_is_a_clear_error(tmp_path, capsys):
    assert main(["train", "--resume", str(tmp_path)]) == 1
    assert "holds no checkpoint.pt" in capsys.readouterr().err
