"""Hashes of what the CPU kernels give for fixed inputs, forward and backward: `python -m tests.ops.bits`.

Without arguments it compares every instruction set of this CPU with bits.csv beside this file; --write replaces those
columns of it. The inputs are made of integers by a formula, so that neither a generator of random numbers nor a
mathematical library has a part in them.

What is left out goes through PyTorch's products and LAPACK: `spectral_recurrence` and the modules.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vfrnn_kernels as vk
from vfrnn_kernels.loader import build_info

ROOT = Path(__file__).parent.parent.parent
TABLE = Path(__file__).with_name("bits.csv")
#: Every instruction set that the kernels are compiled for, on any processor: the columns of the table.
SETS = ("baseline", "avx2", "avx512", "neon")
KEY = ("op", "case", "dtype", "tensor")
#: What compiled the library whose hashes are in the table.
COMPILER = "g++ 12"

Tensors = dict[str, Tensor]


def numbers(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    """Multiples of `scale` / 2^15 in [-scale, scale), float64: exact in float32 where the scale is a power of two."""
    count = torch.Size(shape).numel()
    k = torch.arange(count, dtype=torch.int64) + 7919 * seed
    mixed = (k * k * 69069 + k * 40503 + 12345 + (k * 2654435761 >> 7)) % 65536 - 32768
    return (mixed.double() * (scale / 32768)).reshape(shape)


def skew(*shape: int, seed: int, scale: float) -> Tensor:
    """Exactly skew-symmetric matrices of such numbers."""
    A = numbers(*shape, seed=seed, scale=scale)
    return A - A.mT


def mesh(n: int, m: int, d: int) -> Tensors:
    """A mesh of positive weights; the kernels do not ask whether rows of N sum to 1, or those of G to 0."""
    return {
        "b": 1 + numbers(n, seed=1, scale=0.5),
        "w": 1 + numbers(m, seed=2, scale=0.5),
        "N": (1 + numbers(m, n, seed=3, scale=0.5)) / 64,
        "G": numbers(m, d, n, seed=4),
    }


@dataclass(frozen=True)
class Case:
    """A call: its tensors in float64, of which all are differentiated, and its other arguments.

    `sample` names the dimensions along which inputs and results have samples, which the op computes each by itself.
    """

    op: str
    name: str
    tensors: Callable[[], Tensors]
    others: dict[str, Any]
    sample: dict[str, int]

    def run(self, dtype: torch.dtype, place: Callable[[Tensor], Tensor], mode: str = "autograd") -> Tensors:
        """Results and gradients by name. `place` puts a tensor somewhere; `mode` is how autograd is asked for."""
        given = {name: place(t.to(dtype)) for name, t in self.tensors().items()}
        function = getattr(vk, self.op)
        if mode != "autograd":
            with torch.no_grad() if mode == "no_grad" else torch.inference_mode():
                return self._named(function(**given, **self.others, backend="cpu"))
        for t in given.values():
            t.requires_grad_()
        results = self._named(function(**given, **self.others, backend="cpu"))
        grads = [numbers(*r.shape, seed=90 + k).to(dtype) for k, r in enumerate(results.values())]
        found = torch.autograd.grad(list(results.values()), list(given.values()), grads)
        return {name: r.detach() for name, r in results.items()} | {
            f"grad_{name}": g for name, g in zip(given, found, strict=True)
        }

    def _named(self, results: Any) -> Tensors:
        return dict(zip(("result", "second"), results if isinstance(results, tuple) else (results,), strict=False))


def _exponential(n: int, K: int, scale: float) -> Case:
    def tensors() -> Tensors:
        return {"S": skew(K, n, n, seed=n, scale=scale), "dt": 1 + numbers(K, seed=5, scale=0.5)}

    return Case("skew_expm", f"n {n}, K {K}, scale {scale}", tensors, {}, {"S": 0, "dt": 0, "result": 0})


def _thin(n: int, k: int, K: int) -> Case:
    def tensors() -> Tensors:
        return {"S": skew(K, n, n, seed=n, scale=0.25)[..., :k].contiguous(), "dt": 1 + numbers(K, seed=5, scale=0.5)}

    return Case("thin_skew_expm", f"n {n}, k {k}, K {K}", tensors, {}, {"S": 0, "dt": 0, "result": 0})


def _strang(n: int, K: int, substeps: int) -> Case:
    def tensors() -> Tensors:
        S, delta = skew(K, n, n, seed=n, scale=0.25), numbers(K, n, seed=6, scale=0.5)
        return {"S": S, "delta": delta, "dt": 1 + numbers(K, seed=5, scale=0.5)}

    sample = {"S": 0, "delta": 0, "dt": 0, "result": 0}
    return Case("strang_step", f"n {n}, K {K}, substeps {substeps}", tensors, {"substeps": substeps}, sample)


def _generator(n: int, K: int, m: int | None) -> Case:
    def tensors() -> Tensors:
        cells = n * (n - 1) // 2 if m is None else m
        given = mesh(n, cells, 1 if m is None else 2)
        if m is None:
            del given["N"], given["G"]
        return given | {"v": numbers(K, cells, 1 if m is None else 2, seed=7)}

    others = {"N": None, "G": None} if m is None else {}
    where = "complete" if m is None else f"m {m}"
    return Case("field_generator", f"n {n}, K {K}, {where}", tensors, others, {"v": 0, "result": 0, "second": 0})


def _flow(n: int, m: int, B: int, shared: bool) -> Case:
    def tensors() -> Tensors:
        v = numbers(*(() if shared else (B,)), m, 2, seed=7, scale=0.0625)
        times = {"dt": torch.tensor(0.75), "divergence_scale": torch.tensor(0.5)}
        return {"h": numbers(B, n, seed=8), "v": v, **mesh(n, m, 2), **times}

    sample = {"h": 0, "result": 0} | ({} if shared else {"v": 0})
    return Case("field_flow", f"n {n}, m {m}, B {B}, {'one field' if shared else 'fields'}", tensors, {}, sample)


def _layer(n: int, T: int, B: int, i: int, activation: str, U_scale: float) -> Tensors:
    beta = {"beta": numbers(n, seed=12, scale=0.25)} if activation == "modrelu" else {}
    c, h0 = numbers(n, seed=10, scale=0.25), numbers(B, n, seed=11)
    return {"x": numbers(T, B, i, seed=8), "U": numbers(n, i, seed=9, scale=U_scale), "c": c, "h0": h0, **beta}


def _recurrence(n: int, T: int, B: int, i: int, activation: str, last: bool = False) -> Case:
    def tensors() -> Tensors:
        # of a norm of about 0.8
        M = numbers(n, n, seed=n, scale=2.0 ** -(n.bit_length() // 2))
        return _layer(n, T, B, i, activation, 0.5) | {"M": M}

    name = f"n {n}, T {T}, B {B}, i {i}, {activation}{', last state' if last else ''}"
    sample = {"x": 1, "h0": 0, "result": 0 if last else 1}
    return Case("recurrence", name, tensors, {"activation": activation, "return_sequence": not last}, sample)


def _flow_recurrence(n: int, m: int, T: int, B: int, i: int, activation: str) -> Case:
    def tensors() -> Tensors:
        v, V = numbers(m, 2, seed=7, scale=0.0625), numbers(m, 2, i, seed=13, scale=0.0625)
        times = {"dt": torch.tensor(0.75), "divergence_scale": torch.tensor(0.5)}
        return _layer(n, T, B, i, activation, 0.5) | {"v": v, "V": V, **mesh(n, m, 2), **times}

    name = f"n {n}, m {m}, T {T}, B {B}, i {i}, {activation}"
    return Case("flow_recurrence", name, tensors, {"activation": activation}, {"x": 1, "h0": 0, "result": 1})


#: Every route through the kernels: closed forms, lanes, one thread, several, the batch split and the state split.
CASES = (
    *(_exponential(n, K, scale) for n, K, scale in (
        (1, 3, 1.0), (2, 19, 4.0), (3, 19, 4.0), (4, 37, 0.5), (9, 21, 2.0), (16, 5, 8.0),
        (17, 9, 0.25), (61, 3, 0.125), (90, 1, 16.0), (150, 2, 0.125),
    )),
    *(_thin(n, k, K) for n, k, K in ((40, 3, 2), (600, 21, 1), (30, 15, 3))),
    *(_strang(n, K, substeps) for n, K, substeps in ((3, 5, 1), (16, 3, 2), (110, 1, 5), (70, 9, 1))),
    *(_generator(n, K, m) for n, K, m in ((13, 2, None), (130, 1, None), (130, 2, 70), (21, 3, 9))),
    *(_flow(n, m, B, shared) for n, m, B, shared in ((40, 23, 21, False), (40, 23, 21, True), (7, 5, 70, False))),
    *(_recurrence(*sizes) for sizes in (
        (70, 7, 37, 5, "modrelu"), (128, 9, 300, 1, "tanh"), (300, 40, 1, 5, "modrelu"), (401, 23, 2, 3, "tanh"),
        (257, 12, 6, 33, "relu"), (2, 50, 5, 1, "identity"), (65, 30, 64, 2, "leaky_relu"),
        (33, 100, 9, 2, "tanh", True),
    )),
    *(_flow_recurrence(*sizes) for sizes in ((20, 11, 6, 9, 3, "tanh"), (40, 23, 4, 70, 2, "modrelu"))),
)  # fmt: skip
DTYPES = (torch.float32, torch.float64)


def digest(t: Tensor) -> str:
    """The first 64 bits of SHA-256 of the numbers, row by row; -0 is not 0."""
    return hashlib.sha256(t.detach().contiguous().numpy().tobytes()).hexdigest()[:16]


def hashes(place: Callable[[Tensor], Tensor] = lambda t: t.clone(), mode: str = "autograd") -> dict[str, str]:
    """Of every case, in both dtypes, by `KEY`: the columns of a row joined by "/"."""
    found = {}
    for case in CASES:
        for dtype in DTYPES:
            for name, t in case.run(dtype, place, mode).items():
                found["/".join((case.op, case.name, str(dtype).removeprefix("torch."), name))] = digest(t)
    return found


def table() -> dict[str, dict[str, str]]:
    """The hashes of every instruction set that the table has, by the same keys."""
    with TABLE.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return {isa: {"/".join(row[k] for k in KEY): row[isa] for row in rows if row[isa]} for isa in SETS}


def why_no_table() -> str | None:
    """Why the hashes of this build need not be those of the table, or None: that is for the compiler of the wheels."""
    info = build_info()
    if re.fullmatch(rf"{re.escape(COMPILER)}[.\d]*", info["compiler"]) is None or info["build_type"] != "Release":
        built = f"{info['compiler']}, {info['build_type']}"
        return f"the table is for {COMPILER} and Release, and {built} joins other products and sums to multiply-adds"
    return None


def differences(found: dict[str, str], expected: dict[str, str]) -> Iterator[str]:
    """The keys of `found` whose hashes are others than those expected."""
    return (key for key, value in found.items() if expected.get(key) != value)


def supported_sets() -> list[str]:
    """The instruction sets of the library that this CPU has."""

    def runs(isa: str) -> bool:
        asked = "import torch, vfrnn_kernels; torch.ops.vfrnn_kernels.cpu_isa()"
        return subprocess.run([sys.executable, "-c", asked], env=_with(isa), capture_output=True).returncode == 0

    return [isa for isa in torch.ops.vfrnn_kernels.cpu_isas() if runs(isa)]


def hashes_with(isa: str) -> dict[str, str]:
    """The hashes on that instruction set, from another process."""
    command = [sys.executable, "-m", __spec__.name if __spec__ else "tests.ops.bits", "--print"]
    result = subprocess.run(command, env=_with(isa), capture_output=True, text=True, check=True, cwd=ROOT)
    found: dict[str, str] = json.loads(result.stdout)
    return found


def _with(isa: str) -> dict[str, str]:
    return {**os.environ, "VFRNN_ISA": isa, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def write(columns: dict[str, dict[str, str]]) -> None:
    """The table with these columns; the others keep what they have for the same keys."""
    known = table() if TABLE.exists() else {isa: {} for isa in SETS}
    known |= columns
    with TABLE.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow((*KEY, *SETS))
        for key in next(iter(columns.values())):
            rows.writerow((*key.split("/"), *(known[isa].get(key, "") for isa in SETS)))


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace the columns of this CPU's instruction sets")
    parser.add_argument("--print", action="store_true", help="the hashes on the chosen instruction set, as JSON")
    arguments = parser.parse_args()
    if arguments.print:
        print(json.dumps(hashes()))
        return 0
    if (reason := why_no_table()) is not None:
        print(f"bits: skipped, {reason}")
        return 0
    columns = {isa: hashes_with(isa) for isa in supported_sets()}
    if arguments.write:
        write(columns)
        return 0
    expected, wrong = table(), 0
    for isa, found in columns.items():
        other = list(differences(found, expected[isa]))
        wrong += len(other)
        print(f"{isa}: {len(found) - len(other)} of {len(found)} hashes are those of the table", *other, sep="\n  ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
