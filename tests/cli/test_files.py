"""What a run leaves is whole or not there: a full disk, a process that is killed, and checkpoints that are none."""

import contextlib
import errno
import os
import random
import subprocess
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from tests.tasks.cases import trained, training_options
from vfrnn import files
from vfrnn.cli import main
from vfrnn.files import write_file
from vfrnn.inspection.page import Picture, write_page
from vfrnn.tasks.report import draw, write_log
from vfrnn.tasks.training import Training


def test_a_file_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    write_file(path, "löss")
    write_file(path, b"gain")
    assert path.read_bytes() == b"gain"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("old", [None, "before"])
@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OSError, r"a\.txt could not be written: No space left"),
        (
            PermissionError(errno.EACCES, "Permission denied"),
            PermissionError,
            r"a\.txt could not be written: Permission",
        ),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_what_ends_the_writing_leaves_what_was_there(tmp_path, monkeypatch, old, error, raised, message):
    path = tmp_path / "a.txt"
    if old is not None:
        path.write_text(old)

    def sync(_):
        raise error

    monkeypatch.setattr(files.os, "fsync", sync)
    with pytest.raises(raised, match=message) as stop:
        write_file(path, "after")
    assert ("the old one is as it was" in str(stop.value)) == (old is not None and raised is not KeyboardInterrupt)
    assert os.listdir(tmp_path) == ([] if old is None else ["a.txt"])
    assert old is None or path.read_text() == old


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own, of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no disk can be made: {error}")
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be made: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder):
    with (folder / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))


def test_a_full_disk_ends_a_training_with_a_sentence(small_disk, capsys):
    run = ["train", "--quiet", "--out", str(small_disk), "--task", "copying", "--delay", "12", "--hidden-size", "6"]
    run += ["--batch-size", "4", "--steps-per-epoch", "1", "--epochs", "2"]
    assert main([*run, "--stop-after", "1"]) == 0
    kept = {path.name: path.read_bytes() for path in small_disk.iterdir()}
    fill(small_disk)
    capsys.readouterr()
    assert main(["train", "--resume", str(small_disk), "--quiet"]) == 1
    path = small_disk / "checkpoint.pt"
    told = capsys.readouterr().err
    assert told.endswith(
        f"vfrnn train: [Errno 28] {path} could not be written: No space left on device; the old one is as it was\n"
    )
    assert "Traceback" not in told
    assert {name: (small_disk / name).read_bytes() for name in kept} == kept
    assert set(os.listdir(small_disk)) == {*kept, "filler"}
    (small_disk / "filler").unlink()
    assert main(["train", "--resume", str(small_disk), "--quiet"]) == 0
    assert Training.resume(small_disk).epochs_done == 2


def _report(folder):
    report = pytest.importorskip("vfrnn_bench.report", reason="needs vfrnn-kernels[bench]")
    write = report.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "page", lambda runs, tasks: "x" * 5000)
        write([], [], folder / "report.html")


WRITERS = {
    "checkpoint.pt": lambda run, folder: run.save(folder),
    "log.json": write_log,
    "curve.png": draw,
    "frames.gif": lambda run, folder: write_page(
        folder, "title", [], [("a", "b")], [Picture("frames", "Frames", "of the wind", bytes(5000), "gif")]
    ),
    "index.html": lambda run, folder: write_page(folder, "title " * 2000, [], [("a", "b")], []),
    "report.html": lambda run, folder: _report(folder),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file(name, small_disk):
    run = trained(training_options(models=("vfrnn",)), until=1)
    (small_disk / name).write_bytes(b"before")
    fill(small_disk)
    with pytest.raises(OSError, match=rf"{name} could not be written: No space left on device; the old one is as it"):
        WRITERS[name](run, small_disk)
    assert (small_disk / name).read_bytes() == b"before"
    assert set(os.listdir(small_disk)) == {name, "filler"}


def test_results_of_a_benchmark_on_a_full_disk(small_disk, capsys, monkeypatch):
    pytest.importorskip("rich", reason="needs vfrnn-kernels[bench]")
    fill(small_disk)
    assert main(["bench", "--workload", "E(32) norm 1", "--provider", "vfrnn", "--out", str(small_disk)]) == 1
    told = capsys.readouterr().err
    assert f"vfrnn bench: [Errno 28] {small_disk / 'results.json'} could not be written: No space left" in told
    assert "Traceback" not in told
    assert os.listdir(small_disk) == ["filler"]


KILLED = """
    import os, random, signal, sys, time
    from pathlib import Path

    import torch

    from tests.tasks.cases import training_options
    from vfrnn.tasks.training import Epoch, Training

    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    run = Training(training_options(models=("vfrnn",)))
    run.trainees[0].model.register_buffer("more", torch.zeros(300_000))  # a checkpoint of megabytes
    run.save(folder)
    random.seed(0)
    partial = most = 0
    for kill in range(kills):
        child = os.fork()
        if child == 0:
            for _ in range(10**6):
                run.trainees[0].history.append(Epoch(0, 0.0, 0.0, 0.0, 1.0, 1))
                run.save(folder)
        time.sleep(0.02 + 0.05 * random.random())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = torch.load(folder / "checkpoint.pt", weights_only=True)["trainees"]["vfrnn"]
        assert found["model"]["more"].shape == (300_000,)
        most = max(most, len(found["history"]))
        partial += (folder / "checkpoint.pt.part").exists()
    print(partial, most)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_killed_at_any_moment_leaves_a_checkpoint(tmp_path):
    """A hundred children that save without end, each killed at a random moment: the old file or the new one."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), "100"],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    partial, most = map(int, done.stdout.split())
    assert 0 < partial < 100, "no process was killed while it wrote"
    assert most > 1, "no process was killed after it had written"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    trained(training_options(models=("vfrnn",)), until=1).save(folder)
    return (folder / "checkpoint.pt").read_bytes()


def test_a_checkpoint_that_is_cut_or_changed_is_a_sentence(checkpoint, tmp_path):
    """Changed bytes of a number are not seen; whatever is not read is this one error."""
    path, generator, refused = tmp_path / "checkpoint.pt", random.Random(0), 0
    cut = [checkpoint[: len(checkpoint) * k // 40] for k in range(40)]
    changed = []
    for _ in range(150):
        contents = bytearray(checkpoint)
        for _ in range(generator.choice([1, 8, 200])):
            contents[generator.randrange(len(contents))] = generator.randrange(256)
        changed.append(bytes(contents))
    for contents in (*cut, *changed, b"", b"text", bytes(1000), b"PK\\x03\\x04" + bytes(100), b"\\x80\\x02.", b"]."):
        path.write_bytes(contents)
        try:
            Training.resume(tmp_path)
        except RuntimeError as error:
            assert str(error).startswith(f"{path} must be a checkpoint"), error  # noqa: PT017
            refused += 1
        else:
            assert len(contents) == len(checkpoint)
    assert refused >= len(cut)


def _without(state, *keys):
    *path, last = keys
    for key in path:
        state = state[key]
    del state[last]


OTHERS = {
    "an option that is new": lambda state: state["options"].update(more=1),
    "an option that is gone": lambda state: _without(state, "options", "seed"),
    "a task that is unknown": lambda state: state["options"].update(task="chess"),
    "a model that is unknown": lambda state: state["options"].update(models=["s4"]),
    "a model without its state": lambda state: _without(state, "trainees", "vfrnn"),
    "a parameter that is gone": lambda state: _without(state, "trainees", "vfrnn", "model", "readout.bias"),
    "no optimizer": lambda state: _without(state, "trainees", "vfrnn", "optimizer"),
    "other epochs": lambda state: state["trainees"]["vfrnn"]["history"][0].update(perplexity=1.0),
    "options that are none": lambda state: state.update(options=3),
    "other states of the generators": lambda state: state["trainees"]["vfrnn"].update(order=torch.zeros(3)),
}


@pytest.mark.parametrize("version", ["9.1.0", None])
@pytest.mark.parametrize("other", OTHERS)
def test_a_checkpoint_of_another_version_is_a_sentence(other, version, checkpoint, tmp_path, capsys):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(checkpoint)
    state = torch.load(path, weights_only=True)
    state["version"] = version
    if version is None:
        del state["version"]
    OTHERS[other](state)
    torch.save(state, path)
    for command in (["train", "--resume", str(tmp_path)], ["inspect", str(tmp_path)]):
        assert main(command) == 1
        told = capsys.readouterr().err
        assert f"{path} must be a checkpoint that vfrnn " in told
        assert f"can go on with, got one of {'vfrnn 9.1.0' if version else 'an older vfrnn'}: " in told


def test_a_checkpoint_runs_no_code(tmp_path, capsys):
    """weights_only: a pickle that would call something is refused before it does."""

    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"options": Attack(), "trainees": {}}, tmp_path / "checkpoint.pt")
    assert main(["inspect", str(tmp_path / "checkpoint.pt")]) == 1
    assert "must be a checkpoint of vfrnn train, got a file that is none" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_every_file_that_is_read_is_read_with_weights_only():
    """What we call, and what the documentation shows."""
    root, calls = Path(__file__).parents[2], 0
    if not (root / "docs").exists():
        pytest.skip("the sources are out of reach")
    for folder in ("python", "vfrnn_kernels", "bench", "tools", "docs", "examples", "README.md"):
        for path in (root / folder).rglob("*") if (root / folder).is_dir() else [root / folder]:
            if path.suffix in (".py", ".md", ".ipynb"):
                for line in path.read_text(encoding="utf-8").splitlines():
                    if "torch.load(" in line:
                        calls += 1
                        assert "weights_only=True" in line, path
    assert calls >= 2


def test_options_are_in_a_checkpoint(checkpoint, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(checkpoint)
    options = Training.resume(tmp_path).options
    assert asdict(options) == asdict(training_options(models=("vfrnn",)))
