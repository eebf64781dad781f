"""What a reader calls the providers and workloads, whose names in the JSON of a run are short, and how numbers are
written in a sentence."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from vfrnn_bench.workloads import INPUT_FIELDS, IRREGULAR, MESHES, SEQUENCES, SMALL_STATE, SYMBOLS

#: By the name in the JSON; a provider that is not here is called by its full name there.
PROVIDERS = {
    "loop": "a Python loop over torch.addmm and torch.tanh",
    "loop, compiled step": "that Python loop with its step under torch.compile",
    "orthogonal loop": "torch.nn.utils.parametrizations.orthogonal in a Python loop",
    "orthogonal(torch.nn.RNN)": "torch.nn.RNN under torch.nn.utils.parametrizations.orthogonal",
    "geotorch, cached": "geotorch.orthogonal in a Python loop",
    "torch orthogonal, matrix_exp": "torch.nn.utils.parametrizations.orthogonal with matrix_exp",
    "torch orthogonal, householder": "torch.nn.utils.parametrizations.orthogonal with householder",
    "eager": "the same formulas in eager PyTorch",
    "compiled": "the same formulas under torch.compile",
    "eager loop": "the same formulas in a Python loop",
    "vfrnn modrelu": "vfrnn.OrthogonalRNN with modReLU",
    "vfrnn tanh": "vfrnn.OrthogonalRNN with tanh",
    "vfrnn.skew_expm, vmap": "torch.vmap of vfrnn.skew_expm",
    "vfrnn.VFRNN, mesh": "vfrnn.VFRNN on a mesh of half as many cells",
    "vfrnn.VFRNN, all states": "vfrnn.VFRNN with all states",
    "vfrnn.VFRNN, return_sequence=False": "vfrnn.VFRNN with return_sequence=False",
    "vfrnn.OrthogonalRNN, identity, return_sequence=False": (
        "vfrnn.OrthogonalRNN without activation, with return_sequence=False"
    ),
}
#: What "eager loop" is, by workload.
LOOPS = {"I2": "torch.matrix_exp in a Python loop"}

_WHAT = {w.name: w.what for w in (*SEQUENCES, SMALL_STATE, SYMBOLS)}
_FIELDS = {
    "F1": "generator of a field",
    "F2": "flow along fields",
    "I1": "a field that reads the input",
    "I2": "irregular times",
}
_KNOWN = {w.name.split()[0] for w in (*MESHES, *INPUT_FIELDS, *IRREGULAR)}
_EXPONENTIAL = re.compile(r"E\((\d+)\)(?: x (\d+))? norm (\S+)(.*)")


def provider(name: str, workload: str = "") -> str:
    """The full name of a provider, of one workload where it depends on that."""
    if name == "eager loop" and workload in LOOPS:
        return LOOPS[workload]
    return PROVIDERS.get(name, name)


def workload(name: str) -> str:
    """A workload's name and what it is."""
    if found := _EXPONENTIAL.fullmatch(name):
        n, batch, norm, rest = found.groups()
        text = f"n {n} and norm {norm}" if batch is None else f"{int(batch):,} matrices of n {n} and norm {norm}"
        if rest == " forward":
            return f"{text} (forward)"
        return text + rest.replace(" vmap", ", under torch.vmap")
    first, _, rest = name.partition(" ")
    if first in _KNOWN:
        return f"{first} {_FIELDS[first]}" + (f", {rest}" if rest else "")
    what = _WHAT.get(first.replace("S", "R"))
    if what is None:
        return name
    return f"{first} {what}" + (f", {rest}" if rest == "inference" else "")


def speed(ratio: float) -> str:
    """How many times as fast, of our time over the peer's: two digits, rounded down, so that it is never too much."""
    times = 1 / ratio
    step = 10.0 ** (math.floor(math.log10(times)) - 1)
    return f"{math.floor(times / step + 1e-9) * step:.{max(0, -math.floor(math.log10(step) + 0.5))}f}"


def power(value: float) -> str:
    """A small number as 1.2·10⁻⁶; one from 0.01 on as it is."""
    if value == 0 or value >= 0.01:
        return f"{value:.2g}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits}·10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def listed(parts: Sequence[str]) -> str:
    """a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def counted(count: int, what: str, plural: str = "s") -> str:
    """With its number: 1 workload, 2 workloads."""
    return f"{count:,} {what}{'' if count == 1 else plural}"
