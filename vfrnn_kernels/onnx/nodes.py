"""Nodes of an ONNX graph, one after the other, and the graphs inside Scan and Loop."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

Value = Any  # an ir.Value, whose dtype and, for arguments of an op, shape are known
_names = itertools.count()


class Nodes:
    """Appends nodes to a list: `nodes("MatMul", a, b)` is the value of a new one.

    A number or an array among the inputs becomes a constant in the dtype of the first value.
    """

    def __init__(self, nodes: list[ir.Node], version: int) -> None:
        self.nodes, self.version = nodes, version

    def __call__(
        self, op: str, *inputs: Any, outputs: int = 1, dtype: ir.DataType | None = None, **attributes: Any
    ) -> Any:
        """The value of a new node, or a tuple of values; `dtype` is that of the results where the inputs do not say."""
        given = [i for i in inputs if isinstance(i, ir.Value)]
        like: ir.DataType | None = next((i.dtype for i in given if i.dtype is not None), None)
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        values = [i if i is None or isinstance(i, ir.Value) else self.constant(i, like) for i in inputs]
        node = ir.node(op, values, attributes, num_outputs=outputs, version=self.version)
        for value in node.outputs:
            value.name = f"vfrnn_{next(_names)}"
            if (found := dtype or like) is not None:
                value.dtype = found
        self.nodes.append(node)
        return node.outputs[0] if outputs == 1 else tuple(node.outputs)

    def constant(self, value: Any, dtype: ir.DataType | None) -> Value:
        """A number or an array; integers that are arrays keep theirs, as shapes and indices."""
        array = np.asarray(value)
        if not (array.ndim and array.dtype.kind == "i") and dtype is not None:
            array = array.astype(dtype.numpy())
        tensor = ir.tensor(array)
        return self("Constant", dtype=tensor.dtype, value=tensor)

    def cast(self, value: Value, dtype: ir.DataType) -> Value:
        """The value in this dtype."""
        return value if value.dtype == dtype else self("Cast", value, to=int(dtype), dtype=dtype)

    def axes(self, op: str, value: Value, *axes: int, **attributes: Any) -> Value:
        """Squeeze, Unsqueeze or a reduction over these axes."""
        return self(op, value, np.array(axes, np.int64), **attributes)

    def transposed(self, value: Value, *order: int) -> Value:
        """The value with its dimensions in this order."""
        return self("Transpose", value, perm=list(order))

    def body(
        self, inputs: Sequence[tuple[ir.DataType, Any]], write: Callable[..., Sequence[Value]], shape: Any
    ) -> ir.Graph:
        """A graph of its own, of inputs with these dtypes and shapes: `write(nodes, *inputs)` returns its outputs, a
        state of this shape last."""
        types = [(f"vfrnn_{next(_names)}", ir.TensorType(dtype), dims) for dtype, dims in inputs]
        values = [ir.Value(name=name, type=kind, shape=_shape(dims)) for name, kind, dims in types]
        inner = Nodes([], self.version)
        # An output is the value of a node of this graph, and each once.
        results = [inner("Identity", result) for result in write(inner, *values)]
        for result in results:
            result.shape = _shape(() if result.dtype == ir.DataType.BOOL else shape)
        return ir.Graph(values, results, nodes=inner.nodes, name=f"vfrnn_{next(_names)}")

    def scan(self, step: Callable[..., Value], state: Value, *sequences: Value) -> tuple[Value, Value]:
        """The last state and all states of `state = step(nodes, state, *inputs)` over the first dimension."""

        def write(nodes: Nodes, h: Value, *inputs: Value) -> list[Value]:
            after = step(nodes, h, *inputs)
            return [after, after]

        inputs = [(state.dtype, state.shape), *((v.dtype, None if v.shape is None else v.shape[1:]) for v in sequences)]
        body = self.body(inputs, write, state.shape)
        return self("Scan", state, *sequences, outputs=2, body=body, num_scan_inputs=len(sequences))

    def repeat(self, count: Value, step: Callable[..., Value], state: Value, shape: Any) -> Value:
        """`state = step(nodes, state)` so many times; states have this shape."""
        inputs = [(ir.DataType.INT64, ()), (ir.DataType.BOOL, ()), (state.dtype, shape)]
        body = self.body(inputs, lambda nodes, _, go, h: [go, step(nodes, h)], shape)
        return self("Loop", count, None, state, body=body, dtype=state.dtype)


def _shape(dims: Any) -> ir.Shape | None:
    return None if dims is None else ir.Shape(dims)
