"""Ten fixed calls, results and derivatives to 30 digits: `python -m tests.ops.exact_values` makes exact_values.json.

The formulas of the ops once more, in mpmath with 70 digits. A derivative is a central difference along a fixed
direction: with a step of 1e-25 its error is 1e-50, so that no rule of differentiation has a part in it. The inputs are
those of bits.py, numbers that float64 holds. mpmath comes with PyTorch, through sympy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import torch
from torch import Tensor

from tests.ops.bits import numbers, skew

FILE = Path(__file__).with_name("exact_values.json")
DIGITS = 30
#: Directions along which the gradient of every tensor is given.
DIRECTIONS = 3

#: Arrays of mpmath's numbers, which numpy adds and multiplies.
Array = Any
Tensors = dict[str, Tensor]


def _each(function: Callable[..., Any]) -> Callable[..., Array]:
    return np.vectorize(function, otypes=[object])


_exp, _tanh = _each(mpmath.exp), _each(mpmath.tanh)
_modrelu = _each(lambda z, beta: mpmath.sign(z) * max(abs(z) + beta, mpmath.mpf(0)))


def _expm(A: Array) -> Array:
    found = mpmath.expm(mpmath.matrix(A.tolist()), method="taylor")
    return np.array(found.tolist(), dtype=object)


def skew_expm(S: Array, dt: Array) -> Array:
    return np.stack([_expm(t * (A - A.T) / 2) for A, t in zip(S, dt, strict=True)])


def thin_skew_expm(S: Array, dt: Array) -> Array:
    K, n, k = S.shape
    whole = np.full((K, n, n), mpmath.mpf(0), dtype=object)
    whole[:, :k, :k] = (S[:, :k] - S[:, :k].transpose(0, 2, 1)) / 2
    whole[:, k:, :k], whole[:, :k, k:] = S[:, k:], -S[:, k:].transpose(0, 2, 1)
    return skew_expm(whole, dt)[..., :k]


def strang_step(S: Array, delta: Array, dt: Array, substeps: int = 1) -> Array:
    found = []
    for A, d, t in zip(S, delta, dt, strict=True):
        e = _exp(-t * d / (4 * substeps))
        one = e[:, None] * _expm(t * (A - A.T) / 2 / substeps) * e
        power = one
        for _ in range(substeps - 1):
            power = power @ one
        found.append(power)
    return np.stack(found)


def generators(b: Array, w: Array, N: Array, G: Array, v: Array) -> tuple[Array, Array]:
    root, S, delta = _each(mpmath.sqrt)(b), [], []
    for field in v:
        flux = w[:, None] * (field[:, :, None] * G).sum(1)
        H = N.T @ flux
        S.append((H - H.T) / 2 / (root[:, None] * root))
        delta.append(-flux.sum(0) / b)
    return np.stack(S), np.stack(delta)


def field_generator(**mesh: Array) -> Array:
    S, delta = generators(**mesh)
    return np.concatenate([S.ravel(), delta.ravel()])


def field_flow(
    h: Array, v: Array, b: Array, w: Array, N: Array, G: Array, dt: Array, divergence_scale: Array, substeps: int
) -> Array:
    S, delta = generators(b, w, N, G, v)
    M = strang_step(S, divergence_scale * delta, np.full(len(v), dt, dtype=object), substeps)
    return np.stack([A @ x for A, x in zip(M, h, strict=True)])


def recurrence(x: Array, U: Array, c: Array, M: Array, h0: Array) -> Array:
    hs = [h0]
    for x_t in x:
        hs.append(_tanh(hs[-1] @ M.T + x_t @ U.T + c))
    return np.stack(hs[1:])


def spectral_recurrence(
    x: Array, U: Array, c: Array, S: Array, delta: Array, dt: Array, h0: Array, beta: Array
) -> Array:
    hs = [h0]
    for x_t, dt_t in zip(x, dt, strict=True):
        count = len(dt_t)
        M = strang_step(np.stack([S] * count), np.stack([delta] * count), dt_t)
        moved = np.stack([A @ h for A, h in zip(M, hs[-1], strict=True)])
        hs.append(_modrelu(moved + x_t @ U.T + c, beta))
    return np.stack(hs[1:])


def flow_recurrence(
    x: Array, U: Array, c: Array, v: Array, V: Array, h0: Array, substeps: int, **mesh_and_times: Array
) -> Array:
    hs = [h0]
    for x_t in x:
        fields = np.stack([v + V @ row for row in x_t])
        hs.append(_tanh(field_flow(hs[-1], fields, substeps=substeps, **mesh_and_times) + x_t @ U.T + c))
    return np.stack(hs[1:])


def _times(K: int) -> Tensor:
    return 1 + numbers(K, seed=5, scale=0.5)


def _mesh(n: int, m: int, d: int) -> Tensors:
    N, G = 1 + numbers(m, n, seed=3, scale=0.5), numbers(m, d, n, seed=4)
    return {"b": 1 + numbers(n, seed=1, scale=0.5), "w": 1 + numbers(m, seed=2, scale=0.5), "N": N / 8, "G": G}


def _scalars() -> Tensors:
    return {"dt": torch.tensor(0.75, dtype=torch.float64), "divergence_scale": torch.tensor(0.5, dtype=torch.float64)}


def _layer(n: int, T: int, B: int, i: int) -> Tensors:
    x, h0 = numbers(T, B, i, seed=8), numbers(B, n, seed=11)
    return {"x": x, "U": numbers(n, i, seed=9), "c": numbers(n, seed=10, scale=0.25), "h0": h0}


@dataclass(frozen=True)
class Case:
    """A call of an op and its formula: tensors in float64, and the other arguments of each of the two."""

    op: str
    tensors: Callable[[], Tensors]
    of_op: dict[str, Any]
    of_formula: dict[str, Any]


def _exponential(n: int, K: int, scale: float) -> Case:
    return Case("skew_expm", lambda: {"S": skew(K, n, n, seed=n, scale=scale), "dt": _times(K)}, {}, {})


CASES = {
    "skew_expm, n 2, angles of 10000": _exponential(2, 2, 16384.0),
    "skew_expm, n 6": _exponential(6, 2, 0.5),
    "skew_expm, n 18": _exponential(18, 1, 0.5),
    "thin_skew_expm, n 9, k 2": Case(
        "thin_skew_expm",
        lambda: {"S": skew(2, 9, 9, seed=9, scale=0.5)[..., :2].contiguous(), "dt": _times(2)},
        {},
        {},
    ),
    "strang_step, n 5, 3 substeps": Case(
        "strang_step",
        lambda: {"S": skew(2, 5, 5, seed=5, scale=0.5), "delta": numbers(2, 5, seed=6), "dt": _times(2)},
        {"substeps": 3},
        {"substeps": 3},
    ),
    "field_generator, n 5": Case(
        "field_generator", lambda: _mesh(5, 4, 2) | {"v": numbers(2, 4, 2, seed=7)}, {}, {}
    ),
    "field_flow, n 5": Case(
        "field_flow",
        lambda: {"h": numbers(2, 5, seed=8), "v": numbers(2, 4, 2, seed=7, scale=0.25)} | _mesh(5, 4, 2) | _scalars(),
        {"substeps": 8},
        {"substeps": 8},
    ),
    "recurrence, n 5, tanh": Case(
        "recurrence", lambda: _layer(5, 6, 2, 2) | {"M": numbers(5, 5, seed=14, scale=0.5)}, {"activation": "tanh"}, {}
    ),
    "spectral_recurrence, n 5, modrelu": Case(
        "spectral_recurrence",
        lambda: _layer(5, 4, 2, 2)
        | {"S": skew(5, 5, seed=5, scale=0.5), "delta": numbers(5, seed=6), "beta": numbers(5, seed=12, scale=0.25)}
        | {"dt": 1 + numbers(4, 2, seed=13)},
        {"activation": "modrelu"},
        {},
    ),
    "flow_recurrence, n 5, tanh": Case(
        "flow_recurrence",
        lambda: _layer(5, 3, 2, 2)
        | {"v": numbers(4, 2, seed=7, scale=0.25), "V": numbers(4, 2, 2, seed=15, scale=0.125)}
        | _mesh(5, 4, 2)
        | _scalars(),
        {"activation": "tanh", "substeps": 8},
        {"substeps": 8},
    ),
}  # fmt: skip


def direction(name: str, k: int, shape: torch.Size) -> Tensor:
    """Direction number k along which the gradient of the tensor of that name is given."""
    return numbers(*shape, seed=100 + 10 * len(name) + k)


def weights(shape: torch.Size) -> Tensor:
    """What the results are multiplied by: the sum of these products is what is differentiated."""
    return numbers(*shape, seed=90)


def _exact(t: Tensor) -> Array:
    return np.array([mpmath.mpf(x) for x in t.flatten().tolist()], dtype=object).reshape(tuple(t.shape))


def exact_values(case: Case) -> dict[str, list[str]]:
    """The numbers of the result, row by row, and of every tensor the derivatives along its directions."""
    with mpmath.workdps(70):
        tensors = {name: _exact(t) for name, t in case.tensors().items()}

        def result(**changed: Array) -> Array:
            return globals()[case.op](**(tensors | changed), **case.of_formula)

        value, step = result(), mpmath.mpf(10) ** -25
        g, found = _exact(weights(torch.Size(value.shape))), {"result": [_digits(x) for x in value.ravel()]}
        for name, t in tensors.items():
            found[name] = []
            for k in range(DIRECTIONS):
                move = step * _exact(direction(name, k, torch.Size(np.shape(t))))
                there, back = result(**{name: t + move}), result(**{name: t - move})
                found[name].append(_digits((g * (there - back)).sum() / (2 * step)))
        return found


def _digits(x: Any) -> str:
    return mpmath.nstr(x, DIGITS)


def main() -> int:
    """Run; the exit code."""
    FILE.write_text(json.dumps({name: exact_values(case) for name, case in CASES.items()}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
