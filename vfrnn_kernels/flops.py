"""What torch.utils.flop_counter counts for the library ops: the multiplications and additions of their products of
matrices, and nothing else, as for every op of PyTorch.

`vfrnn_kernels/<op>/flops.py` has the formulas of an op, from the sizes in its declaration; they count what its README
derives, whatever backend computes it. (The reference consists of PyTorch's own ops, which count themselves.)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

from vfrnn_kernels.declaration import Op, Saved
from vfrnn_kernels.deferred import when_imported

_COUNTER = "torch.utils.flop_counter"
_formulas: dict[str, Callable[..., int]] = {}  # of the library ops, by name


def count(op: Op, library_name: str, saved: Saved) -> None:
    """Has a library op of this declaration and its backward counted."""
    results = [t.name for t in (*op.outputs, *saved.tensors)]
    constants = [c.name for c in op.constants]
    names = [*op.input_names, *constants]
    backward_names = [*(f"grad_{t.name}" for t in op.outputs), *op.input_names, *results, *constants]

    def forward(*args: Any, out_val: Any = None) -> int:
        found = out_val if isinstance(out_val, tuple) else (out_val,)
        named = dict(zip(names, args, strict=True)) | dict(zip(results, found, strict=True))
        return op.flops.forward(op.sizes(args), named)

    def backward(*args: Any, out_val: Any = None) -> int:
        *given, needs = args
        named = dict(zip(backward_names, given, strict=True))
        inputs = [named[name] for name in op.input_names]
        wanted = frozenset(name for name in op.wanted(needs) if named[name] is not None)
        return op.flops.backward(op.sizes(inputs), named, wanted) if wanted else 0

    _formulas[library_name], _formulas[f"{library_name}_backward"] = forward, backward
    if _COUNTER in sys.modules:
        _register(library_name, f"{library_name}_backward")


def _register(*names: str) -> None:
    register = sys.modules[_COUNTER].register_flop_formula
    for name in names:
        if hasattr(torch.ops.vfrnn_kernels, name):  # the schemas of csrc/ops.cpp may be absent
            register(getattr(torch.ops.vfrnn_kernels, name), get_raw=True)(_formulas[name])


# The counter imports Triton, for which nobody who counts nothing should wait.
when_imported(_COUNTER, lambda: _register(*_formulas))
