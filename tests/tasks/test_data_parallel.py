"""Several processes train as one: shares of batches, sums of gradients, and what torchrun makes of the command."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from tests.tasks.cases import task_options, training_options, write_series
from vfrnn.cli import main
from vfrnn.tasks.data_parallel import ENDED, Alone, Group, joined, shard, sum_gradients
from vfrnn.tasks.training import Training


class InThreads:
    """Processes that are threads of this one, which take turns at a barrier."""

    device = torch.device("cpu")

    def __init__(self, rank, size, barrier, parts):
        self.rank, self.size = rank, size
        self._barrier, self._parts = barrier, parts

    def sum(self, values):
        self._parts[self.rank] = values
        self._barrier.wait(timeout=200)
        found = torch.stack(self._parts).sum(0)
        self._barrier.wait(timeout=200)
        return found


def in_threads(size, prepare, work):
    """What `work` returns of what `prepare`, one process after the other, made of each; and all that was made."""
    barrier, parts = threading.Barrier(size), [None] * size
    prepared = [prepare(InThreads(rank, size, barrier, parts)) for rank in range(size)]
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, prepared)), prepared


def trained(options, size, until):
    """The trainings of all processes at this epoch. New models are made before: their seed is a global state."""

    def train(training):
        training.train(until, lambda trainee, loss: None, lambda: None)

    return in_threads(size, lambda process: Training(options, process), train)[1]


@pytest.mark.parametrize("count", [1, 2, 5, 6])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_shares_are_the_batch(count, size):
    x, target = torch.randn(3, count, 2), torch.arange(2 * count).view(2, count)
    parts = [shard((x, target), InThreads(rank, size, None, None)) for rank in range(size)]
    assert torch.equal(torch.cat([part[0] for part in parts], 1), x)
    assert torch.equal(torch.cat([part[1] for part in parts], -1), target)
    assert sum(share for *_, share in parts) == pytest.approx(1)
    assert max(part[1].shape[-1] for part in parts) - min(part[1].shape[-1] for part in parts) <= 1


def test_a_parameter_without_a_gradient_adds_0():
    def work(process):
        parameters = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(4))]
        parameters[process.rank].grad = torch.ones_like(parameters[process.rank])
        loss = sum_gradients(parameters, torch.tensor(float(process.rank)), process)
        return float(loss), [parameter.grad for parameter in parameters]

    found, _ = in_threads(2, lambda process: process, work)
    for loss, gradients in found:
        assert loss == 1
        assert [gradient.shape for gradient in gradients] == [(2, 3), (4,)]
        assert all(bool((gradient == 1).all()) for gradient in gradients)


@pytest.mark.parametrize("task", ["adding", "copying", "transport", "series"])
def test_losses_are_those_of_one_process(task, tmp_path):
    """Batches of 7, and a last one of 2 series, which not every process gets a sample of."""
    path = str(write_series(tmp_path, ragged=True, timed=True))
    models = ("vfrnn", "rnn") if task == "transport" else ("vfrnn", "orthogonal", "torch-orthogonal", "lstm")
    options = training_options(task, models, epochs=4)
    options = replace(options, task_options=task_options(data=path if task == "series" else None, grid=4, horizon=2))
    if task == "transport":
        options = replace(options, model_options=replace(options.model_options, hidden_size=16))
    (alone,) = trained(options, 1, 2)
    for processes in (2, 4):
        for training in trained(options, processes, 2):
            for one, other in zip(alone.trainees, training.trainees, strict=True):
                for expected, found in zip(one.history, other.history, strict=True):
                    # sums over parts of a batch round differently
                    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
                    assert found.validation == pytest.approx(expected.validation, rel=1e-4)
                assert torch.equal(one.order.get_state(), other.order.get_state())


def test_another_number_of_processes_goes_on(tmp_path):
    options = training_options("adding", ("vfrnn",))
    (whole,) = trained(options, 1, 3)
    for training in trained(options, 3, 1)[:1]:
        training.save(tmp_path)
    resumed = Training.resume(tmp_path)
    resumed.train(3, lambda trainee, loss: None, lambda: None)
    for expected, found in zip(whole.trainees[0].history, resumed.trainees[0].history, strict=True):
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with joined() as processes:
        assert isinstance(processes, Alone)
        assert (processes.rank, processes.size) == (0, 1)
        assert float(processes.sum(torch.tensor(3.0))) == 3


def group(monkeypatch, fail):
    """The exception that leaves `joined` around this, in the only process of a group; a store that counts failures."""
    counts = {"failures": 0}

    class Store:
        def add(self, key, amount):
            counts[key] += amount
            return counts[key]

    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda url: iter([(Store(), 1, 2)]))
    for name in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda *arguments, **named: None)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    found = []
    for _ in range(2):
        with pytest.raises((RuntimeError, SystemExit)) as raised, joined() as processes:
            fail(processes)
        found.append(raised.value)
    return found


def test_of_two_that_fail_the_first_tells(monkeypatch):
    def fail(processes):
        raise RuntimeError("the disk is full")

    first, second = group(monkeypatch, fail)
    assert str(first) == "the disk is full"
    assert isinstance(second, SystemExit)
    assert second.code == 1


def test_the_end_of_another_process_is_told_in_words(monkeypatch):
    def refuse(values):
        raise RuntimeError("[pair.cc:534] Connection closed by peer")

    monkeypatch.setattr(torch.distributed, "all_reduce", refuse)
    first, _ = group(monkeypatch, lambda processes: processes.sum(torch.zeros(1)))
    assert str(first) == f"{ENDED}: [pair.cc:534] Connection closed by peer"


def test_the_group_sums_in_place(monkeypatch):
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda values: values.mul_(2))
    assert Group("cpu").sum(torch.ones(2)).tolist() == [2, 2]


def torchrun(processes, *arguments):
    """`vfrnn train` in this many processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run(
        [*command, "-m", "vfrnn", "train", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without torch.distributed")
@pytest.mark.slow
def test_torchrun(tmp_path):
    def losses(folder):
        log = json.loads((tmp_path / folder / "log.json").read_text())
        return [epoch["loss"] for model in ("vfrnn", "gru") for epoch in log["epochs"][model]]

    path = write_series(tmp_path, ragged=True)
    run = ["--data", str(path), "--model", "vfrnn", "gru", "--hidden-size", "6", "--epochs", "3", "--batch-size", "4"]
    assert main(["train", *run, "--out", str(tmp_path / "whole"), "--quiet"]) == 0
    parts = torchrun(2, *run, "--out", str(tmp_path / "parts"), "--stop-after", "1")
    assert parts.returncode == 0, parts.stderr
    assert parts.stdout.count("epoch 1/1") == parts.stdout.count("2 processes") == 1
    assert main(["train", "--resume", str(tmp_path / "parts"), "--quiet"]) == 0
    assert losses("parts") == pytest.approx(losses("whole"), rel=1e-5)
    path.write_bytes(b"spoilt")
    spoilt = torchrun(2, "--resume", str(tmp_path / "parts"))
    assert spoilt.returncode == 1
    assert spoilt.stderr.count("must be an archive of arrays") == 1, spoilt.stderr
