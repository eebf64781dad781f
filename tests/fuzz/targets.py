"""All that is called, by name, and how its calls are drawn: a new op, module, function or subcommand is among them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from torch import nn

import vfrnn
from tests.fuzz import command_line, functions, modules, ops, values
from vfrnn.cli import subcommands
from vfrnn_kernels.declaration import OPS

TARGETS: dict[str, Callable[[], st.SearchStrategy[str]]] = {
    **{name: lambda name=name: ops.calls(name) for name in OPS},
    **{name: lambda name=name: modules.calls(name) for name in modules.MODULES},
    **{name: lambda name=name: functions.calls(name) for name in functions.FUNCTIONS},
    **{f"vfrnn {e.name}": lambda name=e.name: command_line.calls(name) for e in subcommands()},
}
#: Of the time; the others have 1.
SHARES = {**dict.fromkeys(OPS, 6), **dict.fromkeys(modules.MODULES, 4)}
#: What a call is written in.
NAMESPACE: dict[str, Any] = values.NAMESPACE | {
    "copy": copy, "nn": nn, "vfrnn": vfrnn, "op": ops.op, "module": modules.module, "mesh": modules.mesh,
    "marks": modules.marks, "packed": modules.packed, "function": functions.function, "filled": functions.filled,
    "shared": functions.shared, "command": command_line.command,
}  # fmt: skip


def run(call: str) -> str:
    """The outcome of a call, given as Python source.

    Raises:
        Fault: it went wrong.
    """
    return eval(call, dict(NAMESPACE))
