"""What is right: a clear exception, or the values of the reference. Everything else is a `Fault`."""

from __future__ import annotations

import linecache
import math
import re
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

import vfrnn
import vfrnn_kernels

OURS = tuple(str(Path(package.__file__).parent) for package in (vfrnn, vfrnn_kernels))  # type: ignore[arg-type]
#: What memory that is not there sounds like, in torch's words and the system's.
NO_MEMORY = re.compile(
    r"can't allocate memory|out of memory|not enough memory|bad_alloc|Storage size calculation overflowed"
)
#: What torch says itself, of any op that is differentiated and of devices that are not there, and says clearly.
OF_TORCH = re.compile(
    r"Inference tensors cannot be saved for backward|Torch not compiled with CUDA|Found no NVIDIA driver|"
    r"Cannot access accelerator device|[Ii]nvalid device|device type at start of device string|"
    r"Device string must not be empty|argument '(device|generator)'|"
    r"more than one element of the written-to tensor refers to a single memory location"
)


class Fault(Exception):
    """A call that went wrong. `key` is the same for every call that goes wrong in this way."""

    def __init__(self, key: str, told: str) -> None:
        super().__init__(told)
        self.key = key


def template(message: str) -> str:
    """The message without what differs from call to call: one outcome."""
    line = message.strip().splitlines()[0] if message.strip() else ""
    line = re.sub(r"'[^']*'|\"[^\"]*\"", "'_'", line)
    line = re.sub(r"\([^()]*\)|\[[^][]*\]", "(_)", line)
    return re.sub(r"[-+]?\b(\d[\w.+-]*|nan|inf)\b", "#", line)[:160]


def is_clear(error: BaseException, names: Iterable[str]) -> bool:
    """Whether the exception is one of Python's for wrong arguments, raised by our code (or by our native code, which
    Python meets in torch/_ops.py), and names an argument; or Python's own words about a call that fits no signature;
    or memory that is not there."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or NO_MEMORY.search(str(error)):
        return True
    if OF_TORCH.search(str(error)):
        return True
    if type(error) not in (TypeError, ValueError, RuntimeError, NotImplementedError):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    if last.filename.startswith(OURS):  # what torch raises from its C++ inside of a line of ours is not ours
        by_us = re.search(r"\braise\b|\bhost\.", _statement(last)) is not None
    else:
        by_us = last.filename.endswith("torch/_ops.py") and any(f.filename.startswith(OURS) for f in frames)
    return by_us and any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", str(error)) for name in names)


def _statement(frame: traceback.FrameSummary) -> str:
    """The lines of the statement at which a frame stands."""
    first, last = frame.lineno or 1, getattr(frame, "end_lineno", None) or frame.lineno or 1
    return "\n".join(linecache.getlines(frame.filename)[first - 1 : last])


def told(error: BaseException) -> str:
    """The exception, and where it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {str(error)[:600]} [{frame.filename}:{frame.lineno}]"


def refused(error: Exception, names: Iterable[str], target: str) -> str:
    """The outcome of a call that raised.

    Raises:
        Fault: the exception is not clear.
    """
    outcome = f"{type(error).__name__}: {template(str(error))}"
    if not is_clear(error, names):
        raise Fault(f"{target} unclear {outcome}", told(error)) from error
    return outcome


def leaves(found: Any) -> list[Tensor]:
    """The tensors of a result."""
    if isinstance(found, PackedSequence):
        return [found.data]
    if isinstance(found, Tensor):
        return [found]
    if isinstance(found, dict):
        found = tuple(found.values())
    return [t for part in found for t in leaves(part)] if isinstance(found, (tuple, list)) else []


def compare(
    what: str,
    actual: Sequence[Tensor | None],
    same: Sequence[Tensor | None],
    exact: Sequence[Tensor | None],
    given: Sequence[Tensor] = (),
) -> None:
    """`actual` is `exact`, the reference in float64, up to a few times the error of `same`, the reference in the dtype
    of the call (in float32 for a call in float64, whose error is that times the ratio of their precisions): of a badly
    conditioned call nobody knows more. NaN is where the reference has it, and nowhere else.

    Where the sum of the magnitudes of the arguments `given`, or of the result, is no number of the dtype, an
    intermediate result may overflow: what is not finite may then be anywhere.

    Raises:
        Fault: it is not.
    """
    most = max((float(t.abs().double().sum().nan_to_num(math.inf)) for t in given if t.numel()), default=0.0)
    sizes = [float(t.detach().abs().max()) for t in exact if t is not None and t.numel() and t.device.type != "meta"]
    floor = max((size for size in sizes if math.isfinite(size)), default=0.0)  # a gradient may be 0 by cancellation
    if len(actual) != len(exact):
        raise Fault(f"{what} count", f"{len(actual)} results where the reference has {len(exact)}")
    for k, (ours, in_dtype, true) in enumerate(zip(actual, same, exact, strict=True)):
        if ours is None or true is None or in_dtype is None:
            if (ours is None) != (in_dtype is None):
                raise Fault(f"{what} {k} missing", f"{what} {k} is {ours}, the reference has {in_dtype}")
            continue
        if ours.shape != true.shape:
            raise Fault(f"{what} {k} shape", f"{what} {k}: {tuple(ours.shape)}, not {tuple(true.shape)}")
        if ours.device.type == "meta" or ours.numel() == 0:
            continue
        _compare_values(f"{what} {k}", ours.detach(), in_dtype.detach(), true.detach(), most, floor)


def _compare_values(what: str, ours: Tensor, same: Tensor, exact: Tensor, most: float, floor: float) -> None:
    eps, largest = torch.finfo(ours.dtype).eps, torch.finfo(ours.dtype).max
    share = 1.0 if same.dtype == ours.dtype else eps / torch.finfo(same.dtype).eps
    ours, same, exact = ours.double(), same.double(), exact.double()
    known = same.isfinite() & exact.isfinite()
    wide = max(0 if most == math.inf else most, float(exact.abs().nan_to_num(0, 0, 0).sum())) > largest / 4
    if (ours.isnan() & known).any() and not wide:
        raise Fault(f"{what} NaN", f"{what}: NaN where the reference has {exact[ours.isnan() & known][0].item()}")
    lost = ours.isfinite() & same.isnan() & exact.isnan()
    if lost.any() and most == math.inf:  # of an overflow on the way NaN is one answer among others
        raise Fault(f"{what} lost NaN", f"{what}: {ours[lost][0].item()} where the reference has NaN")
    wild = ours.isinf() & known & (exact.abs() < largest * 1e-6)
    if wild.any() and not wide:
        raise Fault(f"{what} infinite", f"{what}: infinite where the reference has {exact[wild][0].item()}")
    known &= ours.isfinite()
    if not known.any() or not (same.isfinite().all() and exact.isfinite().all()):
        return  # beside an overflow nothing is known of the sizes of the terms that cancel
    size = exact.abs().max().item()
    allowed = (
        16 * share * (same - exact).abs().max().item()
        + 1000 * eps * size
        + 16 * eps * floor
        + largest_subnormal(ours, eps)
    )
    error = (ours - exact)[known].abs().max().item()
    if error > allowed and math.isfinite(allowed):
        raise Fault(f"{what} values", f"{what}: off by {error:.3g}, allowed {allowed:.3g}, size {size:.3g}")


def largest_subnormal(t: Tensor, eps: float) -> float:
    """What may be flushed to zero, summed over some terms."""
    return 1e3 * (1.2e-38 if eps > 1e-10 else 2.3e-308)
