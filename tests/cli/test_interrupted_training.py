"""Ctrl-C in `vfrnn train`: a sentence that says what was saved and how to go on, exit status 130, no traceback."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.cases import heeds_ctrl_c
from vfrnn.cli import main
from vfrnn.tasks.training import Training

TINY = ["--task", "copying", "--delay", "12", "--hidden-size", "6", "--batch-size", "4", "--quiet"]


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_to_go_on_with(tmp_path, capsys):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "vfrnn", "train", *TINY, "--steps-per-epoch", "20", "--out", str(folder)]
    run = subprocess.Popen(
        [*command, "--epochs", "10000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeds_ctrl_c,
    )
    deadline = time.monotonic() + 100
    while not (folder / "checkpoint.pt").exists():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    start = time.perf_counter()
    run.send_signal(signal.SIGINT)
    _, told = run.communicate(timeout=60)
    assert time.perf_counter() - start < 5  # Python's own end with it
    assert run.returncode == 130
    path, done = folder / "checkpoint.pt", Training.resume(folder).epochs_done
    assert told == (
        f"vfrnn train: interrupted; {done} of 10000 epochs are in {path}: go on with vfrnn train --resume {folder}\n"
    )
    assert done >= 1
    assert os.listdir(folder) == ["checkpoint.pt"]
    assert main(["train", "--resume", str(folder), "--quiet", "--stop-after", str(done + 1)]) == 0
    assert len(json.loads((folder / "log.json").read_text())["epochs"]["vfrnn"]) == done + 1


def test_before_the_first_epoch_there_is_nothing_to_go_on_with(tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "_epoch", interrupted)
    assert main(["train", *TINY, "--epochs", "2", "--out", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err == "vfrnn train: interrupted; no epoch was finished, nothing was saved\n"


def test_an_interrupt_between_epochs_names_what_is_saved(tmp_path, monkeypatch, capsys):
    """As much as the checkpoint holds, not what memory does: here the second epoch was trained and is not saved."""
    save = Training.save

    def save_once(self, folder):
        if self.epochs_done == 2:
            raise KeyboardInterrupt
        save(self, folder)

    monkeypatch.setattr(Training, "save", save_once)
    assert main(["train", *TINY, "--epochs", "3", "--steps-per-epoch", "1", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err.startswith("vfrnn train: interrupted; 1 of 3 epochs are in ")
    assert Training.resume(tmp_path).epochs_done == 1
