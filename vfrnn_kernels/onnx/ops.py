"""The ops in ONNX's operators: recurrences with tanh and relu as RNN, all others as Scan.

Step matrices are ordinary operators: exponentials in float64 by a series and squarings, as often as the norm asks for,
which a runtime may fold where they depend on weights alone. What is planned from values, the substeps of fields that
read the input, must be given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import evaluator

from vfrnn_kernels.onnx.nodes import Nodes, Value

DOUBLE, FLOAT, HALF, INT64 = ir.DataType.DOUBLE, ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.INT64
#: Terms of the exponential's series; its rest is 8e-18 at the largest argument, 1.
TERMS = 18
ORDER = 8  # of the series of a flow, where none is given


def translations() -> dict[Any, Callable[..., Any]]:
    """By library op."""
    found: dict[Any, Callable[..., Any]] = {}
    for name, write in _WRITE.items():
        for library_name in (name, f"{name}_triton"):
            if hasattr(torch.ops.vfrnn_kernels, library_name):
                target = getattr(torch.ops.vfrnn_kernels, library_name).default
                found[target] = _translation(write, len(target._schema.returns))
    return found


def _translation(write: Callable[..., Any], results: int) -> Callable[..., Any]:
    def translate(*args: Any) -> Any:
        tracer: Any = evaluator.default()
        nodes = Nodes(tracer.nodes, tracer.opset.version)
        found = write(nodes, *args)
        found = list(found) if isinstance(found, Sequence) else [found]
        # What is kept for a backward is no part of an inference.
        found += [nodes("Identity", found[0]) for _ in range(results - len(found))]
        return found[0] if results == 1 else found

    return translate


def _activate(g: Nodes, z: Value, activation: str, beta: Value | None) -> Value:
    match activation:
        case "tanh":
            return g("Tanh", z)
        case "relu":
            return g("Relu", z)
        case "leaky_relu":
            return g("LeakyRelu", z, alpha=0.01)
        case "modrelu":
            return g("Mul", g("Sign", z), g("Relu", g("Add", g("Abs", z), beta)))
        case "identity":
            return z
    raise NotImplementedError(f"activation {activation!r} has no translation to ONNX")


def _inputs(g: Nodes, x: Value, U: Value, c: Value | None) -> Value:
    """U x_t + c of all steps."""
    u = g("MatMul", x, g.transposed(U, 1, 0))
    return u if c is None else g("Add", u, c)


def _states(
    g: Nodes, x: Value, U: Value, c: Value | None, M: Value, h0: Value, beta: Value | None, activation: str
) -> tuple[Value, Value]:
    """The last state and all states."""
    dtype, n = h0.dtype, int(M.shape[0])
    x, U, M = (g.cast(value, dtype) for value in (x, U, M))
    if activation in ("tanh", "relu") and dtype in (FLOAT, HALF):  # what runtimes have kernels for
        bias = None if c is None else g.axes("Unsqueeze", g("Concat", c, np.zeros(n), axis=0), 0)
        weights = (g.axes("Unsqueeze", value, 0) for value in (U, M))
        first = g.axes("Unsqueeze", h0, 0)
        names = [activation.capitalize()]
        hs, last = g("RNN", x, *weights, bias, None, first, outputs=2, activations=names, hidden_size=n)
        return g.axes("Squeeze", last, 0), g.axes("Squeeze", hs, 1)
    back = g.transposed(M, 1, 0)

    def step(g: Nodes, h: Value, u: Value) -> Value:
        return _activate(g, g("Add", g("MatMul", h, back), u), activation, beta)

    return g.scan(step, h0, _inputs(g, x, U, c))


def recurrence(g: Nodes, *args: Any) -> Value:
    return _states(g, *args)[1]


def recurrence_final(g: Nodes, *args: Any) -> Value:
    return _states(g, *args[:7])[0]


def _exponential(g: Nodes, S: Value, dt: Value, K: Any, n: int) -> Value:
    """exp(dt S) (K, n, n) in float64 of S (K, n, n) and dt (K,): a series where dt S is small, and squarings."""
    wide = g.cast(S, DOUBLE)
    skew = g("Mul", g("Sub", wide, g.transposed(wide, 0, 2, 1)), 0.5)
    A = g("Mul", skew, g.axes("Unsqueeze", g.cast(dt, DOUBLE), 1, 2))
    halvings = _halvings(g, g.axes("ReduceSum", g("Abs", A), 2, keepdims=0))
    small = g("Div", A, g("Pow", g.constant(2.0, DOUBLE), halvings))
    eye = g.constant(np.eye(n), DOUBLE)
    Q = g("Add", small, eye)
    for k in range(TERMS - 1, 0, -1):
        Q = g("Add", g("Div", g("MatMul", small, Q), float(k)), eye) if k > 1 else g("Add", g("MatMul", small, Q), eye)
    return g.repeat(g.cast(halvings, INT64), lambda g, Q: g("MatMul", Q, Q), Q, (K, n, n))


def _halvings(g: Nodes, sizes: Value) -> Value:
    """How often what has these sizes is to be halved until none is above 1, ()."""
    largest = g("Max", g("ReduceMax", sizes, keepdims=0), 1.0)
    return g("Ceil", g("Div", g("Log", largest), float(np.log(2.0))))


def skew_expm(g: Nodes, S: Value, dt: Value) -> Value:
    return g.cast(_exponential(g, S, dt, S.shape[0], int(S.shape[2])), S.dtype)


def strang_step(g: Nodes, S: Value, delta: Value, dt: Value, substeps: int) -> Value:
    time = g("Div", g.cast(dt, DOUBLE), float(substeps))
    Q = _exponential(g, S, time, S.shape[0], int(S.shape[2]))
    exponent = g("Mul", g.axes("Unsqueeze", time, 1), g.cast(delta, DOUBLE))
    e = g("Exp", g("Div", exponent, -4.0))
    first = M = g("Mul", g("Mul", g.axes("Unsqueeze", e, 2), Q), g.axes("Unsqueeze", e, 1))
    for digit in bin(substeps)[3:]:
        M = g("MatMul", M, M)
        M = g("MatMul", M, first) if digit == "1" else M
    return g.cast(M, S.dtype)


def thin_skew_expm(g: Nodes, S: Value, dt: Value) -> Value:
    K, n, k = (int(size) for size in S.shape)
    left = g("Concat", S, np.zeros((K, n, n - k)), axis=2) if k < n else S
    below = g("Mul", left, (np.arange(n) >= k)[:, None].astype(float))  # whose transpose is on the right
    Q = _exponential(g, g("Sub", left, g.transposed(below, 0, 2, 1)), dt, K, n)
    return g.cast(_slice(g, Q, 0, k, axis=2), S.dtype)


def _slice(g: Nodes, value: Value, first: int, last: int, axis: int) -> Value:
    return g("Slice", value, *(np.array([number], np.int64) for number in (first, last, axis)))


def field_generator(g: Nodes, b: Value, w: Value, N: Value | None, G: Value | None, v: Value) -> tuple[Value, Value]:
    n, root = int(b.shape[0]), g("Sqrt", b)
    if N is None or G is None:
        i, j = np.triu_indices(n, 1)
        places = np.zeros((n, n), np.int64)
        places[i, j] = np.arange(1, len(i) + 1)
        flux = g("Mul", w, g.axes("Squeeze", v, 2))  # (K, m)
        nothing = g.axes("ReduceSum", g("Mul", flux, 0.0), 1)  # (K, 1), also of no cells
        padded = g("Concat", nothing, flux, axis=1)
        upper = g("Gather", padded, places, axis=1)
        H = g("Sub", upper, g.transposed(upper, 0, 2, 1))
        delta = g.axes("ReduceSum", H, 2, keepdims=0)
    else:
        weighted = g("Mul", N, g.axes("Unsqueeze", w, 1))
        vG = g("Einsum", v, G, equation="kcd,cdj->kcj")
        H = g("Einsum", weighted, vG, equation="ci,kcj->kij")
        H = g("Sub", H, g.transposed(H, 0, 2, 1))
        delta = g("Neg", g("Einsum", vG, w, equation="kcj,c->kj"))
    scaled = g("Div", g("Div", H, g.axes("Unsqueeze", root, 1)), root)
    return g("Mul", scaled, 0.5), g("Div", delta, b)


def _series(g: Nodes, apply: Callable[[Nodes, Value], Value], u: Value, time: Value, order: int) -> Value:
    """exp(time S) u to this order, `apply(g, y)` being S y."""
    y = u
    for k in range(order, 0, -1):
        y = g("Add", u, g("Mul", g("Div", time, float(k)), apply(g, y)))
    return y


class _Mesh:
    """A mesh and what a flow along its fields needs, flattened to matrices."""

    def __init__(self, g: Nodes, b: Value, w: Value, N: Value, G: Value) -> None:
        self.m, self.d, self.n = (int(size) for size in G.shape)
        root = g("Sqrt", b)
        self.b, self.w, self.flat = b, w, g("Reshape", G, np.array([self.m * self.d, self.n]))
        self.N, self.G = g("Div", N, root), g("Div", self.flat, root)
        self.Nt, self.Gt = g.transposed(self.N, 1, 0), g.transposed(self.G, 1, 0)
        self.column = g.axes("Unsqueeze", w, 1)

    def apply(self, g: Nodes, fields: Value, y: Value) -> Value:
        """S y (B, n) of the fields (1 or B, m, d)."""
        averages = g("Mul", self.w, g("MatMul", y, self.Nt))
        gradients = g("Reshape", g("MatMul", y, self.Gt), np.array([-1, self.m, self.d]))
        p = g("Mul", self.w, g.axes("ReduceSum", g("Mul", fields, gradients), 2, keepdims=0))
        q = g("Reshape", g("Mul", g.axes("Unsqueeze", averages, 2), fields), np.array([-1, self.m * self.d]))
        return g("Mul", g("Sub", g("MatMul", p, self.N), g("MatMul", q, self.G)), 0.5)

    def divergence(self, g: Nodes, fields: Value, volume_preserving: bool) -> Value:
        """(1 or B, n)."""
        weighted = g("Reshape", g("Mul", self.column, fields), np.array([-1, self.m * self.d]))
        found = g("Neg", g("Div", g("MatMul", weighted, self.flat), self.b))
        return g("Sub", found, g.axes("ReduceMean", found, 1)) if volume_preserving else found

    def moved(
        self, g: Nodes, h: Value, fields: Value, dt: Value, scale: Value, volume_preserving: bool, order: int, k: int
    ) -> Value:
        """h (B, n) after k substeps."""
        if k == 0:
            raise NotImplementedError(
                "substeps must be given for ONNX, as in InputFieldRNN(..., substeps=4) or model.substeps = 4: planning "
                "them reads values, which a graph does not have"
            )
        time = g("Div", dt, float(k))
        delta = g("Mul", scale, self.divergence(g, fields, volume_preserving))
        e = g("Exp", g("Mul", g("Div", time, -4.0), delta))

        def substep(g: Nodes, h: Value) -> Value:
            return g("Mul", e, _series(g, lambda g, y: self.apply(g, fields, y), g("Mul", e, h), time, order or ORDER))

        return substep(g, h) if k == 1 else g.repeat(g.constant(k, INT64), substep, h, (None, self.n))


def field_flow(
    g: Nodes, h: Value, v: Value, b: Value, w: Value, N: Value, G: Value, dt: Value, scale: Value,
    volume_preserving: bool, order: int, substeps: int,
) -> Value:  # fmt: skip
    return _Mesh(g, b, w, N, G).moved(g, h, v, dt, scale, volume_preserving, order, substeps)


def _flow_states(
    g: Nodes, x: Value, U: Value, c: Value | None, v: Value, V: Value, b: Value, w: Value, N: Value, G: Value,
    h0: Value, beta: Value | None, dt: Value, scale: Value, activation: str, volume_preserving: bool, order: int,
    substeps: int,
) -> tuple[Value, Value]:  # fmt: skip
    mesh = _Mesh(g, b, w, N, G)
    flat, i = mesh.m * mesh.d, int(V.shape[2])
    read = g("MatMul", x, g.transposed(g("Reshape", V, np.array([flat, i])), 1, 0))
    fields = g("Add", read, g("Reshape", v, np.array([flat])))  # (T, B, m d)

    def step(g: Nodes, h: Value, u: Value, field: Value) -> Value:
        field = g("Reshape", field, np.array([-1, mesh.m, mesh.d]))
        moved = mesh.moved(g, h, field, dt, scale, volume_preserving, order, substeps)
        return _activate(g, g("Add", moved, u), activation, beta)

    return g.scan(step, h0, _inputs(g, x, U, c), fields)


def flow_recurrence(g: Nodes, *args: Any) -> Value:
    return _flow_states(g, *args)[1]


def flow_recurrence_final(g: Nodes, *args: Any) -> Value:
    return _flow_states(g, *args[:17])[0]


def _spectral_states(
    g: Nodes, x: Value, U: Value, c: Value | None, S: Value, delta: Value | None, dt: Value, h0: Value,
    beta: Value | None, activation: str, substeps: int,
) -> tuple[Value, Value]:  # fmt: skip
    """The exponential acts on the states, in as many parts as the longest time of a step needs."""
    dtype, wide = h0.dtype, g.cast(S, DOUBLE)
    skew = g("Mul", g("Sub", wide, g.transposed(wide, 1, 0)), 0.5)
    back = g.transposed(skew, 1, 0)
    norm = g("ReduceMax", g.axes("ReduceSum", g("Abs", skew), 1, keepdims=0), keepdims=0)
    rates = None if delta is None else g.cast(delta, DOUBLE)

    def step(g: Nodes, h: Value, u: Value, times: Value) -> Value:
        time = g("Div", g.axes("Unsqueeze", g.cast(times, DOUBLE), 1), float(substeps))  # (B, 1)
        parts = g("Max", g("Ceil", g("Mul", g("ReduceMax", g("Abs", time), keepdims=0), norm)), 1.0)
        count, part = g.cast(parts, INT64), g("Div", time, parts)
        e = None if rates is None else g("Exp", g("Mul", g("Div", time, -4.0), rates))
        y = g.cast(h, DOUBLE)
        for _ in range(substeps):
            y = y if e is None else g("Mul", e, y)
            y = g.repeat(count, lambda g, y: _series(g, lambda g, y: g("MatMul", y, back), y, part, TERMS), y, h0.shape)
            y = y if e is None else g("Mul", e, y)
        return _activate(g, g("Add", g.cast(y, dtype), u), activation, beta)

    return g.scan(step, h0, _inputs(g, x, U, c), dt)


def spectral_recurrence(g: Nodes, *args: Any) -> Value:
    return _spectral_states(g, *args)[1]


def spectral_recurrence_final(g: Nodes, *args: Any) -> Value:
    return _spectral_states(g, *args[:10])[0]


_WRITE: dict[str, Callable[..., Any]] = {
    "field_flow": field_flow,
    "field_generator": field_generator,
    "flow_recurrence": flow_recurrence,
    "flow_recurrence_final": flow_recurrence_final,
    "recurrence": recurrence,
    "recurrence_final": recurrence_final,
    "skew_expm": skew_expm,
    "spectral_recurrence": spectral_recurrence,
    "spectral_recurrence_final": spectral_recurrence_final,
    "strang_step": strang_step,
    "thin_skew_expm": thin_skew_expm,
}
