"""The library ops made in Python: opaque to torch.compile, like those of csrc/ops.cpp, and called as they are.

`vfrnn_kernels::<op>_triton` and `<op>_triton_backward` run the functions `<op>` and `<op>_backward` of
`vfrnn_kernels/<op>/triton_kernels.py`, which is imported, and Triton with it, at the first call. Where an op is put
together in Python from smaller ones of csrc/ops.cpp, the module that does it has the same two functions. They are
called by keyword, with the names of the declaration; a backward gets the gradients of the results as `grad_<result>`
and the names of the inputs whose gradients are asked for as `wanted`, and returns gradients by name.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

import torch

from vfrnn_kernels.declaration import Op, Saved, Tensors

#: Where Python registers what the ops do.
library = torch.library.Library("vfrnn_kernels", "FRAGMENT")


def triton_kernels(op: str) -> Any:
    """The module of the op's Triton kernels."""
    return importlib.import_module(f"vfrnn_kernels.{op}.triton_kernels")


def define_ops(op: Op, library_name: str, saved: Saved, module: Callable[[], Any]) -> None:
    """Declares a library op and its backward: the functions `<op>` and `<op>_backward` of what `module` returns."""
    forward, backward = _functions(op, saved, module)
    schema, backward_schema = op.schemas(library_name, saved)
    results = len(op.outputs) + len(saved.tensors)
    _define(library_name, schema, results, forward, lambda *args: op.empty_results(saved, *args))
    _define(f"{library_name}_backward", backward_schema, len(op.inputs), backward, backward_fake(op))


def implement_ops(op: Op, saved: Saved, module: Callable[[], Any], key: str) -> None:
    """Makes the functions `<op>` and `<op>_backward` of what `module` returns the kernels of the library ops of these
    names, which csrc/ops.cpp declares, at a dispatch key."""
    for name, run in zip((op.name, f"{op.name}_backward"), _functions(op, saved, module), strict=True):
        library.impl(name, run, key)


def register_fakes(op: Op, saved: Saved) -> None:
    """Gives the library ops of csrc/ops.cpp their fake kernels."""
    fake = _as_schema(lambda *args: op.empty_results(saved, *args), len(op.outputs) + len(saved.tensors))
    torch.library.register_fake(f"vfrnn_kernels::{op.name}")(fake)
    torch.library.register_fake(f"vfrnn_kernels::{op.name}_backward")(_as_schema(backward_fake(op), len(op.inputs)))


def _as_schema(run: Callable[..., Tensors], results: int) -> Callable[..., Any]:
    # a schema with one result takes it without a tuple
    return (lambda *args: run(*args)[0]) if results == 1 else run


def _functions(
    op: Op, saved: Saved, module: Callable[[], Any]
) -> tuple[Callable[..., Tensors], Callable[..., Tensors]]:
    """The op and its backward as library ops run them."""
    names = [*op.input_names, *(c.name for c in op.constants)]
    results = [t.name for t in (*op.outputs, *saved.tensors)]
    grads = [f"grad_{t.name}" for t in op.outputs]
    backward_names = [*grads, *op.input_names, *results, *(c.name for c in op.constants)]

    def forward(*args: Any) -> Tensors:
        with _plain(args[0].device):
            return tuple(getattr(module(), op.name)(**dict(zip(names, args, strict=True))))

    def backward(*args: Any) -> Tensors:
        *given, needs = args
        with _plain(args[0].device):
            named = dict(zip(backward_names, given, strict=True))
            wanted = op.wanted(needs)
            found = getattr(module(), f"{op.name}_backward")(**named, wanted=wanted)
        return tuple(
            found[name] if name in wanted and named[name] is not None else args[0].new_empty(0)
            for name in op.input_names
        )

    return forward, backward


def _define(name: str, schema: str, results: int, run: Callable[..., Tensors], fake: Callable[..., Tensors]) -> None:
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(name, _as_schema(run, results), "CompositeExplicitAutograd")
    torch.library.register_fake(f"vfrnn_kernels::{name}", _as_schema(fake, results), lib=library)


@contextlib.contextmanager
def _plain(device: torch.device) -> Any:
    """Neither autograd nor autocast touch what the kernels' own products do; they launch on the tensors' device."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if torch.amp.is_autocast_available(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))
        yield


def backward_fake(op: Op) -> Callable[..., Tensors]:
    """Shapes of a backward op: those of the tensors whose gradients `needs` asks for."""
    first = len(op.outputs)

    def fake(*args: Any) -> Tensors:
        wanted = op.wanted(args[-1])
        tensors = zip(op.input_names, args[first : first + len(op.inputs)], strict=True)
        return tuple(
            tensor.new_empty(tensor.shape) if tensor is not None and name in wanted else args[0].new_empty(0)
            for name, tensor in tensors
        )

    return fake
