"""Calls of every other public function: the calculus, the ops on a mesh, meshes, conversions, parametrizations, plans.
What returns tensors is compared with itself in float64, on plain tensors, by its backend "reference" if it has one."""

from __future__ import annotations

import inspect
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import vfrnn
import vfrnn_kernels
from tests.fuzz.modules import odd
from tests.fuzz.ops import compared, tensor_changes
from tests.fuzz.oracle import leaves, refused
from tests.fuzz.values import changed
from vfrnn_kernels.activations import ACTIVATIONS
from vfrnn_kernels.declaration import OPS


def _public() -> dict[str, Callable[..., Any]]:
    """The functions by name: all but the ops of `OPS`, which are called with tensors (ops.py)."""
    ops = {id(op.function) for op in OPS.values()}
    found: dict[str, Callable[..., Any]] = {}
    for package in (vfrnn, vfrnn_kernels, vfrnn.parametrizations, vfrnn.init):
        names = getattr(package, "__all__", None) or [key for key in vars(package) if not key.startswith("_")]
        for name in names:
            value = getattr(package, name)
            own = hasattr(package, "__all__") or getattr(value, "__module__", "") == package.__name__
            if isinstance(value, types.FunctionType) and id(value) not in ops and own:
                found[f"{package.__name__}.{name}"] = value
    mesh = vfrnn.LatentMesh
    found["vfrnn.LatentMesh"] = mesh
    for name, value in vars(mesh).items():
        if isinstance(value, classmethod):
            found[f"vfrnn.LatentMesh.{name}"] = getattr(mesh, name)
        elif isinstance(value, types.FunctionType) and not name.startswith("_"):
            found[f"vfrnn.LatentMesh.{name}"] = value
    return found


FUNCTIONS = _public()
n, m, d, i, T, B = 6, 5, 2, 2, 3, 2
MESHES = tuple(f"mesh('{kind}', {n})" for kind in ("complete", "random", "edges", "grid", "dense"))
CELLS = {"complete": (15, 1), "random": (5, 2), "edges": (5, 1), "grid": (5, 1), "dense": (15, 1)}
MODULES = (
    "nn.RNN(2, 3)", "nn.RNN(2, 3, 2, bidirectional=True, dtype=torch.float64)", "nn.RNN(2, 3, bias=False)",
    "nn.LSTM(2, 3)",
    "nn.Sequential(nn.Linear(2, 2), nn.RNN(2, 3, nonlinearity='relu'))", "nn.RNN(2, 3, device='meta')",
    "nn.Linear(3, 2)",
    "vfrnn.RNN(2, 3)", "vfrnn.VFRNN(2, 4, 2)", "vfrnn.VFRNN(2, 6, mesh=mesh('random', 6))", "nn.RNNCell(2, 3)",
    "vfrnn.InputFieldRNN(2, 6, mesh=mesh('grid', 6))", "vfrnn.OrthogonalRNNCell(2, 3, dtype=torch.float64)",
    "nn.Module()",
    "nn.Sequential()", "nn.RNN(1, 1)", "filled(nn.RNN(2, 3), nan)", "filled(vfrnn.VFRNN(2, 3), inf)", "nn.GRU(2, 3)",
    "vfrnn.parametrizations.orthogonal(nn.Linear(3, 2))", "vfrnn.OrthogonalRNN(2, 1)",
    "vfrnn.VFRNN(2, 3, device='meta')",
    "nn.RNN(2, 3).half()", "nn.utils.parametrizations.orthogonal(nn.RNN(2, 3), 'weight_hh_l0')", "shared(nn.RNN(3, 3))",
    "filled(nn.RNN(2, 3), 0.0)", "filled(nn.RNN(2, 3), 1e38)", "nn.DataParallel(nn.RNN(2, 3))",
)  # fmt: skip


def filled(module: nn.Module, value: float) -> nn.Module:
    """The module with this value in every parameter."""
    for parameter in module.parameters():
        nn.init.constant_(parameter, value)
    return module


def shared(module: nn.Module) -> nn.Module:
    """The module in two places."""
    return nn.ModuleDict({"one": module, "other": module})


@st.composite
def calls(draw: Callable[..., Any], name: str) -> str:
    """Calls `function(...)`, as Python source."""
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    kind = draw(st.sampled_from(list(CELLS)))
    cells, dims = CELLS[kind]
    batch = draw(st.sampled_from(((), (), (1,), (3,), (0,), (2, 1))))
    x, f, v = f"tensor{(T, B, i)}", f"tensor{(*batch, n)}", f"tensor{(*batch, cells, dims)}"
    state, fields = f"tensor{(B, n)}", f"tensor{(cells, dims)}"
    of_states = "flow" in name or "recurrence" in name
    right: dict[str, Sequence[str]] = {
        "mesh": (f"mesh('{kind}', {n})",), "self": (f"mesh('{kind}', {n})",), "f": (f,), "h": (state,), "h0": (state,),
        "v": (fields if of_states else v,), "x": (x if of_states else f,), "y": (f,), "U": (f"tensor{(n, i)}",),
        "c": (f"tensor{(n,)}", "None"), "V": (f"tensor{(cells, dims, i)}",), "of": ("'functions'", "'fields'"),
        "activation": tuple(map(repr, ACTIVATIONS)), "beta": (f"tensor{(n,)}", "None"),
        "dt": ("0.1", "tensor()", "-1.0"),
        "divergence_scale": ("1.0", "tensor()", "tensor(1)"), "order": ("8", "3"), "substeps": ("None", "2"),
        "model": MODULES, "module": MODULES, "to": ("'rnn'", "'vfrnn'", "'orthogonal'", "'torch'"), "lr": ("1e-3",),
        "generator_lr": ("1e-4",), "name": ("'weight'", "'weight_hh_l0'"), "n": ("1", "2", "6"), "batch": ("1", "64"),
        "cells": ("1", "5"), "dim": ("1", "2"), "edges": ("[(0, 1)]", "[]", "torch.tensor([[0, 1], [1, 0]])"),
        "b": (f"mesh('{kind}', {n}).b",), "w": (f"mesh('{kind}', {n}).w",), "N": (f"mesh('{kind}', {n}).N",),
        "G": (f"mesh('{kind}', {n}).G",),
        "learn": ("('b',)", "('b', 'w', 'N', 'G')", "()", "'b'", "('x',)", "(1,)", "None"),
        "generator": ("None", "torch.Generator()"),
        "lags": ("None", "[1]", "[0]", "[10**6]", "[True]", "3", "['1']", "[]"),
        "orthogonal_map": ("None", "'matrix_exp'", "'cayley'", "'householder'", "'x'"), "dtype": ("torch.float32",),
        "angles": ("torch.ones(3)",), "S": (f"torch.zeros({n}, {n})",), "init": ("'henaff'", "'cayley'", "'zero'"),
        "weights": (f"mesh('{kind}', {n}).b",), 
    }  # fmt: skip
    if name == "vfrnn.inspect":
        right["x"] = (
            "None",
            "None",
            "tensor(3, 2, 2)",
            "tensor(3, 2)",
            "torch.nn.utils.rnn.pack_sequence([tensor(3, 2)])",
        )
    given, args = {}, []
    for key, parameter in parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            args = [
                draw(st.sampled_from(("2", "3", "1", "0", "2.0", "'2'", "None", "True", "2**40")))
                for _ in range(draw(st.integers(0, 3)))
            ]
        elif parameter.kind is not parameter.VAR_KEYWORD and (
            parameter.default is parameter.empty or draw(st.integers(0, 2)) == 0
        ):
            given[key] = draw(
                st.sampled_from(
                    right.get(
                        key,
                        ("None",)
                        if parameter.default is None
                        else ("None" if parameter.default is parameter.empty else repr(parameter.default),),
                    )
                )
            )
            if "CudaDevice" in given[key] or "torch." in str(parameter.default):
                del given[key]
    changes = []
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2)))):
        key = draw(st.sampled_from([k for k, p in parameters.items() if p.kind is not p.VAR_KEYWORD]))
        annotation = str(parameters[key].annotation)
        if "Tensor" in annotation and draw(st.integers(0, 3)):
            changes.append(f"('{key}', {draw(tensor_changes())})")
        elif key != "self" and parameters[key].kind is not inspect.Parameter.VAR_POSITIONAL:
            changes.append(f"('{key}', ('is', {draw(st.sampled_from(odd(parameters[key])))}))")
    source = ", ".join(f"{key}={value}" for key, value in given.items())
    double = draw(st.integers(0, 2)) == 0
    return (
        f"function('{name}', [{', '.join(args)}], dict({source}), changes=[{', '.join(changes)}], double={double}, "
        f"gradient={draw(st.booleans())})"
    )


def function(
    name: str,
    positional: Sequence[Any],
    given: dict[str, Any],
    *,
    changes: Sequence[tuple[str, tuple[Any, ...]]] = (),
    double: bool = False,
    gradient: bool = False,
) -> str:
    """The outcome of a call of a function.

    Args:
        name: with its package.
        positional, given: its arguments.
        changes: of them, `(argument, change)`, see `values.changed`.
        double: whether floating-point tensors and meshes are float64.
        gradient: whether the gradients of the tensors are compared too.

    Raises:
        Fault: it went wrong.
    """
    torch.manual_seed(0)
    of_function = inspect.signature(FUNCTIONS[name]).parameters
    arguments = {key: _double(value) if double else value for key, value in given.items()}
    for argument, change in changes:
        arguments[argument] = changed(arguments.get(argument), change)
    has_backend = "backend" in of_function
    self = [arguments.pop("self")] if "self" in arguments else []

    def call(dtype: torch.dtype | None, reference: bool, /, **arguments: Any) -> Any:
        if reference and has_backend:
            arguments["backend"] = "reference"
        torch.manual_seed(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return FUNCTIONS[name](*self, *positional, **arguments), []

    names = (*of_function, "module", "input", "shape", "backend", "matrix")
    tensors = any(isinstance(value, Tensor) for value in arguments.values())
    if tensors and "Tensor" in str(inspect.signature(FUNCTIONS[name]).return_annotation) and "init" not in name:
        dtype = next(t.dtype for t in arguments.values() if isinstance(t, Tensor))
        return compared(name, call, arguments, names, gradient, dtype)
    try:
        found = call(None, False, **arguments)[0]
    except Exception as error:
        return refused(error, names, name)
    str(found), repr(found)
    return f"{type(found).__name__} with {len(leaves(found))} tensors"


def _double(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return value.double()
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
