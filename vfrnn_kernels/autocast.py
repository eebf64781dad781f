"""What the ops do under torch.autocast.

The exponential, the fields and their flows are computed in float32: lower precision would cost the rotation its length.
The recurrence multiplies in the autocast dtype where Triton runs it, with a float32 state: x, U and M are converted to
that dtype, c, h0 and beta to float32, and the states come back in float32. On the CPU it computes in float32. Tensors
in float64 stay as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def autocasts(device: str) -> bool:
    """Whether autocast is on for this type of device."""
    known = device in ("cpu", "cuda") or torch.amp.is_autocast_available(device)
    return known and torch.is_autocast_enabled(device)


def autocast_dtype(value: Any) -> torch.dtype | None:
    """The dtype that autocast asks for on the device of this tensor, None where it is off."""
    if not isinstance(value, Tensor):
        return None
    kind = value.device.type
    return torch.get_autocast_dtype(kind) if autocasts(kind) else None


def converted(dtype: torch.dtype, *values: Any) -> tuple[Any, ...]:
    """The values, tensors of float32 and below in `dtype`."""
    lower = (torch.float32, torch.float16, torch.bfloat16)
    return tuple(value.to(dtype) if isinstance(value, Tensor) and value.dtype in lower else value for value in values)


def in_float32(*values: Any) -> tuple[Any, ...]:
    """The values, of which the first is a tensor, under autocast those in 16 bits as float32."""
    if autocast_dtype(values[0]) is not None:
        return converted(torch.float32, *values)
    return values
