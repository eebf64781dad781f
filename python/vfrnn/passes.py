"""What a forward pass computes once: orthogonal weights and step matrices that the modules in it read several times.

Hooks (`once_per_forward` in parametrizations.py) open and close a pass; what is open belongs to a thread. While a
program is traced in Python, by non-strict torch.export, the whole of it counts as one pass. Dynamo, which traces for
torch.compile and for strict export, follows neither threads nor ids: there a pass is an attribute of the module that
remembers, and only what is asked for explicitly opens one, since Dynamo refuses a change of an attribute within
torch.cond and under activation checkpointing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode


class Remembering(nn.Module):
    """A module that asks `remembered` for what it computes from its parameters."""

    #: While Dynamo traces: the module whose pass it is, and what was computed in it.
    _traced_pass: tuple[nn.Module, dict[Any, Any]] | None = None

    def __prepare_scriptable__(self) -> nn.Module:
        """What torch.jit.script calls before it reads the code of a model.

        Raises:
            RuntimeError: TorchScript is a language of its own.
        """
        raise RuntimeError(
            f"{type(self).__name__} cannot be compiled by torch.jit.script: use torch.export.export(model, ...), or "
            'vfrnn.convert(model, to="torch") before'
        )


def remembered(
    module: Remembering, key: tuple[Any, ...], tensors: Callable[[], Sequence[Tensor]], compute: Callable[[], Tensor]
) -> Tensor:
    """`compute()`, or what it returned earlier in this pass for the same key and for tensors that have not changed.

    A compiled pass does not see that a tensor changes in place: Dynamo knows no versions.
    """
    if torch.compiler.is_dynamo_compiling():
        if module._traced_pass is None:
            return compute()
        known, key = module._traced_pass[1], (*key, torch.is_grad_enabled())
        read = tensors()
        if key not in known or any(a is not b for a, b in zip(known[key][1], read, strict=True)):
            known[key] = compute(), read
        return known[key][0]
    opened = _passes.known(module)
    if opened is None:
        return compute()
    read = tensors()
    # What the result depends on: the tensors as they are now, and whether there is a graph to record.
    marks = tuple((id(tensor), None if tensor.is_inference() else tensor._version) for tensor in read)
    key = (id(module), *key, marks, torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    if key not in opened:
        opened[key] = compute(), read, module  # kept, so that nothing else can get their ids
    return opened[key][0]


class _Passes(threading.local):
    """The forward passes under way in this thread: of each module that remembers by its id, the modules whose passes
    these are, outermost first, and what was computed in them."""

    def __init__(self) -> None:
        self.open: dict[int, tuple[list[int], dict[Any, Any]]] = {}
        self.traces: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()

    def enter(self, module: nn.Module, inner: nn.Module) -> None:
        modules, known = self.open.get(id(inner), ([], {}))
        if id(module) in modules:  # its pass was interrupted: no hook runs after a KeyboardInterrupt
            modules, known = modules[: modules.index(id(module))], {}
        self.open[id(inner)] = [*modules, id(module)], known

    def leave(self, module: nn.Module, inner: nn.Module) -> None:
        modules, known = self.open.pop(id(inner), ([], {}))
        outer = modules[: modules.index(id(module))] if id(module) in modules else modules
        if outer:
            self.open[id(inner)] = outer, known

    def known(self, inner: nn.Module) -> dict[Any, Any] | None:
        """What the passes under way have computed; None where there is none."""
        if torch.compiler.is_exporting():
            # A graph, and each branch within it, has values of its own.
            mode = get_proxy_mode()
            return None if mode is None else self.traces.setdefault(mode.tracer, {})
        return self.open[id(inner)][1] if id(inner) in self.open else None


_passes = _Passes()


def enter_pass(module: nn.Module, args: Any) -> None:
    """Opens a pass of `module` for all that remember in it."""
    if not torch.compiler.is_compiling():
        for inner in _remembering(module):
            _passes.enter(module, inner)


def leave_pass(module: nn.Module, args: Any, output: Any) -> None:
    """Closes it."""
    if not torch.compiler.is_compiling():
        for inner in _remembering(module):
            _passes.leave(module, inner)


def enter_traced_pass(module: nn.Module, args: Any) -> None:
    """Opens a pass of `module`, which Dynamo traces."""
    if torch.compiler.is_dynamo_compiling():
        for inner in _remembering(module):
            if inner._traced_pass is None:
                inner._traced_pass = (module, {})


def leave_traced_pass(module: nn.Module, args: Any, output: Any) -> None:
    """Closes it."""
    if torch.compiler.is_dynamo_compiling():
        for inner in _remembering(module):
            if inner._traced_pass is not None and inner._traced_pass[0] is module:
                inner._traced_pass = None


#: The hooks. A module keeps them when its parametrizations are removed; they then do nothing.
PASS_HOOKS = (enter_pass, leave_pass, enter_traced_pass, leave_traced_pass)


def remember_passes(module: nn.Module, *, traced: bool) -> None:
    """Has passes of `module` opened and closed; `traced`: also those that Dynamo traces."""
    for enter, leave in ((enter_pass, leave_pass), (enter_traced_pass, leave_traced_pass))[: 1 + traced]:
        if enter not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(enter)
            module.register_forward_hook(leave, always_call=True)


def _remembering(module: nn.Module) -> list[Remembering]:
    return [inner for inner in module.modules() if isinstance(inner, Remembering)]


def forget_passes(module: nn.Module) -> None:
    """Takes the hooks away where nothing is left in `module` that remembers."""
    if _remembering(module):
        return
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        for number in [number for number, hook in hooks.items() if hook in PASS_HOOKS]:
            del hooks[number]
            module._forward_hooks_always_called.pop(number, None)
