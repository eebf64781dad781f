"""The library ops made in Python: opaque to torch.compile, like those of csrc/ops.cpp, and called as they are.

`vfrnn_kernels::<op>_triton` and `<op>_triton_backward` run the functions `<op>` and `<op>_backward` of
`vfrnn_kernels/<op>/triton_kernels.py`, which is imported, and Triton with it, at the first call. Where an op is put
together in Python from smaller ones of csrc/ops.cpp, the module that does it has the same two functions.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]

#: Every op that has Triton kernels.
OPS = (
    "skew_expm",
    "field_generator",
    "strang_step",
    "field_flow",
    "recurrence",
    "flow_recurrence",
    "spectral_recurrence",
)

#: Where Python registers what the ops do.
library = torch.library.Library("vfrnn_kernels", "FRAGMENT")


def triton_kernels(op: str) -> Any:
    """The module of the op's Triton kernels."""
    return importlib.import_module(f"vfrnn_kernels.{op}.triton_kernels")


def define_ops(
    name: str,
    op: str,
    module: Callable[[], Any],
    arguments: str,
    fake: Callable[..., Any],
    inputs: int,
    outputs: int,
    saved: int,
) -> None:
    """Declares the library op `name` and its backward, the functions `op` and `<op>_backward` of what `module` returns;
    the other parameters are those of `autograd.differentiable`."""
    parts = arguments.split(", ")
    results = [f"Tensor result_{k}" for k in range(outputs + saved)]
    backward = [*(f"Tensor grad_{k}" for k in range(outputs)), *parts[:inputs], *results, *parts[inputs:], "int needs"]

    def forward_fake(*args: Any) -> Tensors:
        found = fake(*args)
        return found if isinstance(found, tuple) else (found,)

    forward, adjoint = _functions(op, module, inputs, outputs)
    _define(name, parts, outputs + saved, forward, forward_fake)
    _define(f"{name}_backward", backward, inputs, adjoint, backward_fake(outputs, inputs))


def implement_ops(op: str, module: Callable[[], Any], inputs: int, outputs: int, key: str) -> None:
    """Makes the functions `op` and `<op>_backward` of what `module` returns the kernels of the library ops of these
    names, which csrc/ops.cpp declares, at a dispatch key."""
    for name, run in zip((op, f"{op}_backward"), _functions(op, module, inputs, outputs), strict=True):
        library.impl(name, run, key)


def _functions(
    op: str, module: Callable[[], Any], inputs: int, outputs: int
) -> tuple[Callable[..., Tensors], Callable[..., Tensors]]:
    """The op and its backward as library ops run them."""

    def forward(*args: Any) -> Tensors:
        with _plain(args[:inputs]):
            return tuple(getattr(module(), op)(*args))

    def adjoint(*args: Any) -> Tensors:
        tensors, needs = args[outputs : outputs + inputs], args[-1]
        with _plain(tensors):
            gradients = getattr(module(), f"{op}_backward")(*args)
        return tuple(
            gradient if gradient is not None and needs >> k & 1 else args[0].new_empty(0)
            for k, gradient in enumerate(gradients)
        )

    return forward, adjoint


def _define(
    name: str, arguments: list[str], results: int, run: Callable[..., Tensors], fake: Callable[..., Any]
) -> None:
    schema = f"{name}({', '.join(arguments)}) -> ({', '.join(['Tensor'] * results)})"
    one = results == 1  # a schema with one result in parentheses takes it without a tuple
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(name, (lambda *args: run(*args)[0]) if one else run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"vfrnn_kernels::{name}", (lambda *args: fake(*args)[0]) if one else fake, lib=library)


@contextlib.contextmanager
def _plain(tensors: tuple[Any, ...]) -> Any:
    """Neither autograd nor autocast touch what the kernels' own products do; they launch on the tensors' device."""
    device = next(tensor for tensor in tensors if tensor is not None).device
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if torch.amp.is_autocast_available(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))
        yield


def backward_fake(outputs: int, inputs: int) -> Callable[..., Tensors]:
    """Shapes of a backward op: those of the tensors whose gradients `needs` asks for."""

    def fake(*args: Any) -> Tensors:
        tensors, needs = args[outputs : outputs + inputs], args[-1]
        return tuple(
            tensor.new_empty(tensor.shape) if tensor is not None and needs >> k & 1 else args[0].new_empty(0)
            for k, tensor in enumerate(tensors)
        )

    return fake
