"""What a program may do with the package, in small pieces of changing sizes: an endurance run repeats it."""

from __future__ import annotations

import copy
import importlib.util
import io
import pickle
import random
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, Dataset

import vfrnn

INPUT, HIDDEN, MOST_STEPS, MOST_SAMPLES = 4, 32, 40, 8

Draw = random.Random


class Largest(random.Random):
    """Draws the largest number every time: what keeps room for the largest call has it then."""

    def randint(self, a: int, b: int) -> int:
        return b


Work = Callable[[Draw], None]


def _mesh() -> vfrnn.LatentMesh:
    return vfrnn.LatentMesh.random(HIDDEN, 16, 2)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "RNN": lambda: vfrnn.RNN(INPUT, HIDDEN, num_layers=2, bidirectional=True),
    "OrthogonalRNN": lambda: vfrnn.OrthogonalRNN(INPUT, HIDDEN),
    "VFRNN": lambda: vfrnn.VFRNN(INPUT, HIDDEN),
    "InputFieldRNN": lambda: vfrnn.InputFieldRNN(INPUT, HIDDEN, mesh=_mesh()),
}
CELLS: dict[str, Callable[[], nn.Module]] = {
    "RNNCell": lambda: vfrnn.RNNCell(INPUT, HIDDEN),
    "OrthogonalRNNCell": lambda: vfrnn.OrthogonalRNNCell(INPUT, HIDDEN),
    "VFRNNCell": lambda: vfrnn.VFRNNCell(INPUT, HIDDEN),
    "InputFieldRNNCell": lambda: vfrnn.InputFieldRNNCell(INPUT, HIDDEN, mesh=_mesh()),
}


def _input(draw: Draw) -> Tensor:
    return torch.randn(draw.randint(1, MOST_STEPS), draw.randint(1, MOST_SAMPLES), INPUT)


def _train(module: nn.Module, optimizer: torch.optim.Optimizer, x: Any, **arguments: Any) -> None:
    output, h_n = module(x, **arguments)
    output = output if isinstance(output, Tensor) else output.data
    (output.square().mean() + h_n.square().mean()).backward()
    optimizer.step()
    optimizer.zero_grad()


class Trained:
    """Layers and cells that live as long as the process, with their optimizers."""

    def __init__(self) -> None:
        self.layers = {name: make() for name, make in LAYERS.items()}
        self.cells = {name: make() for name, make in CELLS.items()}
        every = {**self.layers, **self.cells}
        self.optimizers = {name: torch.optim.Adam(module.parameters(), 1e-4) for name, module in every.items()}
        self.field = self.layers["VFRNN"]

    def training(self, draw: Draw) -> None:
        for name, layer in self.layers.items():
            for whole in (True, False):
                _train(layer, self.optimizers[name], _input(draw), return_sequence=whole)

    def cells_training(self, draw: Draw) -> None:
        for name, cell in self.cells.items():
            x = _input(draw)
            h = torch.zeros(x.shape[1], HIDDEN)
            for x_t in x:
                h = cell(x_t, h)
            h.square().mean().backward()
            self.optimizers[name].step()
            self.optimizers[name].zero_grad()

    def evaluation(self, draw: Draw) -> None:
        for layer in self.layers.values():
            layer.eval()
            with torch.no_grad():
                layer(_input(draw))
            with torch.inference_mode():
                layer(_input(draw), return_sequence=False)
            layer.train()

    def streaming(self, draw: Draw) -> None:
        """Between two streams a parameter changes, so that matrices are made anew; dt has more values than are kept."""
        for name, layer in self.layers.items():
            if name == "RNN":
                continue  # in both directions: it has no step
            state = None
            with torch.no_grad():
                next(layer.parameters()).mul_(1.0)
                for _ in range(20):
                    _, state = layer.step(torch.randn(2, INPUT), state, dt=draw.randint(1, 40) / 20)

    def packed(self, draw: Draw) -> None:
        for name, layer in self.layers.items():
            lengths = [draw.randint(1, MOST_STEPS) for _ in range(draw.randint(1, MOST_SAMPLES))]
            x = pack_sequence([torch.randn(length, INPUT) for length in lengths], enforce_sorted=False)
            _train(layer, self.optimizers[name], x)
            padded = torch.randn(max(lengths), len(lengths), INPUT)
            _train(layer, self.optimizers[name], padded, lengths=lengths)
            _train(layer, self.optimizers[name], padded, reset=torch.rand(padded.shape[:2]) < 0.1)

    def irregular(self, draw: Draw) -> None:
        for name in ("OrthogonalRNN", "VFRNN"):
            x = _input(draw)
            _train(self.layers[name], self.optimizers[name], x, dt=torch.rand(x.shape[:2]) + 0.5)
            _train(self.layers[name], self.optimizers[name], x, dt=torch.rand(x.shape[0]) + 0.5)

    def second_derivatives(self, draw: Draw) -> None:
        x = torch.randn(draw.randint(1, 4), 2, INPUT, requires_grad=True)  # by the references, in Python
        for name, layer in self.layers.items():
            output, _ = layer(x)
            (gradient,) = torch.autograd.grad(output.square().mean(), x, create_graph=True)
            gradient.square().mean().backward()
            self.optimizers[name].zero_grad()

    def threads(self, draw: Draw) -> None:
        """Each thread ends, and with it what native code kept for it."""
        inputs = [_input(draw) for _ in range(2)]
        threads = [threading.Thread(target=lambda x=x: _backward(self.field, x)) for x in inputs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.optimizers["VFRNN"].zero_grad()

    def errors(self, draw: Draw) -> None:
        for layer in self.layers.values():
            for wrong in (torch.randn(3, 2, INPUT + 1), torch.randn(3, 2, INPUT, dtype=torch.float64)):
                _refused(lambda layer=layer, wrong=wrong: layer(wrong))
        _refused(lambda: vfrnn.skew_expm(torch.randn(3, 4)))
        field = copy.deepcopy(self.layers["InputFieldRNN"])
        with torch.no_grad():
            for parameter in field.parameters():
                parameter.fill_(float("nan"))
        _refused(lambda: field(_input(draw)))  # the native kernel finds it

    def copies(self, draw: Draw) -> None:
        """New layers, which train, stream and end."""
        for make in LAYERS.values():
            layer = copy.deepcopy(make())
            _backward(layer, _input(draw))
            again = pickle.loads(pickle.dumps(layer))
            with torch.no_grad():
                again(_input(draw))
        with torch.no_grad():
            vfrnn.VFRNN(INPUT, HIDDEN).step(torch.randn(2, INPUT), dt=draw.random())

    def checkpoints(self, draw: Draw) -> None:
        with tempfile.TemporaryDirectory(prefix="vfrnn-soak-") as folder:
            for name, layer in self.layers.items():
                path = Path(folder, f"{name}.pt")
                torch.save({"model": layer.state_dict(), "optimizer": self.optimizers[name].state_dict()}, path)
                found = torch.load(path, weights_only=True)
                layer.load_state_dict(found["model"])
                self.optimizers[name].load_state_dict(found["optimizer"])

    def conversion(self, draw: Draw) -> None:
        for target in ("rnn", "orthogonal", "vfrnn"):
            vfrnn.convert(nn.Sequential(nn.RNN(INPUT, HIDDEN)), to=target)
        vfrnn.convert(nn.Sequential(vfrnn.VFRNN(INPUT, HIDDEN, nonlinearity="tanh")), to="torch")


def _backward(module: nn.Module, x: Tensor) -> None:
    output, _ = module(x)
    output.square().mean().backward()


def _refused(call: Callable[[], Any]) -> None:
    try:
        call()
    except (RuntimeError, TypeError, ValueError):
        return
    raise AssertionError("what must be refused was not")


class Compiled:
    """One module that torch.compile compiled, with sizes that change."""

    def __init__(self) -> None:
        self.module = vfrnn.VFRNN(INPUT, HIDDEN)
        self.optimizer = torch.optim.Adam(self.module.parameters(), 1e-4)
        self.compiled = torch.compile(self.module, dynamic=True, backend="aot_eager")

    def training(self, draw: Draw) -> None:
        x = torch.randn(draw.randint(2, MOST_STEPS), draw.randint(2, MOST_SAMPLES), INPUT)
        _train(self.compiled, self.optimizer, x)  # type: ignore[arg-type]


class Exponentials(Dataset):
    """Rotations, each computed by the worker that is asked for it."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        lower = torch.full((8, 8), float(index)).tril(-1)
        return vfrnn.skew_expm(lower - lower.mT)


def loading(draw: Draw) -> None:
    for _ in DataLoader(Exponentials(), batch_size=2, num_workers=2):
        pass


class Plain(nn.Module):
    """A module of PyTorch alone, to export."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(INPUT, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x))


def _export(layer: nn.Module) -> None:
    shapes = ({0: torch.export.Dim("steps"), 1: torch.export.Dim("samples")},)
    program = torch.export.export(layer.eval(), (torch.randn(5, 3, INPUT),), dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    torch.export.load(file).module()(torch.randn(9, 2, INPUT))


def _onnx(layer: nn.Module) -> None:
    import onnxruntime

    x = torch.randn(5, 3, INPUT)
    program = torch.onnx.export(layer.eval(), (x,), dynamo=True, verbose=False)
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    session.run(None, {session.get_inputs()[0].name: x.numpy()})


def works_of_torch() -> dict[str, Work]:
    """What PyTorch keeps something of, whoever made the module: programs that it traced, and their guards."""
    found: dict[str, Work] = {
        "torch.compile of VFRNN": Compiled().training,
        "export of VFRNN": lambda draw: _export(vfrnn.VFRNN(INPUT, HIDDEN)),
        "export of torch.nn.Linear": lambda draw: _export(Plain()),
    }
    if all(importlib.util.find_spec(name) for name in ("onnxscript", "onnxruntime")):
        found["ONNX of VFRNN"] = lambda draw: _onnx(vfrnn.VFRNN(INPUT, HIDDEN))
        found["ONNX of torch.nn.Linear"] = lambda draw: _onnx(Plain())
    return found


def works() -> dict[str, Work]:
    """Everything else."""
    trained = Trained()
    return {
        "training": trained.training,
        "cells": trained.cells_training,
        "evaluation": trained.evaluation,
        "streaming": trained.streaming,
        "packed": trained.packed,
        "irregular": trained.irregular,
        "second derivatives": trained.second_derivatives,
        "threads": trained.threads,
        "errors": trained.errors,
        "copies": trained.copies,
        "checkpoints": trained.checkpoints,
        "conversion": trained.conversion,
        "loading": loading,
    }
