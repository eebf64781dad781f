"""When a reference may look at the values of its arguments, and what it asks of them.

The compiled kernels have checks of their own: a reference shares nothing with what it judges.
"""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor


def values_wanted(device: torch.device) -> bool:
    """Whether values on this device are checked: on the CPU always; elsewhere, where reading them costs a
    synchronisation, only if VFRNN_CHECK_VALUES=1 asks for it."""
    return device.type == "cpu" or (device.type != "meta" and os.environ.get("VFRNN_CHECK_VALUES") == "1")


def values_readable(tensor: Tensor) -> bool:
    """Whether Python may look at the values: they are wanted, and neither traced by a compiler nor mapped over."""
    if torch.compiler.is_compiling() or not values_wanted(tensor.device):
        return False
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            return False
        tensor = functorch.get_unwrapped(tensor)
    return type(tensor) in (Tensor, torch.nn.Parameter)


def check_mesh_values(b: Tensor, w: Tensor, v: Tensor) -> None:
    """b and w are positive and no subnormal numbers, and v is finite, where the values may be read.

    Raises:
        RuntimeError: they are not.
    """
    if not values_readable(v):
        return
    for name, weights in (("b", b), ("w", w)):
        normal = weights.detach() >= torch.finfo(weights.dtype).tiny
        if not bool(normal.all() and torch.isfinite(weights.detach()).all()):
            raise RuntimeError(f"{name} must be positive and finite, and no subnormal number")
    if not bool(torch.isfinite(v.detach()).all()):
        raise RuntimeError("v must be finite, got NaN or infinity")


def check_scales(e: Tensor, delta: Tensor) -> None:
    """delta and e = exp(-dt delta / (4 substeps)) are numbers, where they may be read.

    Raises:
        RuntimeError: they are not.
    """
    if values_readable(e) and not bool(torch.isfinite(delta.detach()).all() and torch.isfinite(e.detach()).all()):
        raise RuntimeError("-dt * delta / (4 * substeps) must not be so large that its exponential overflows")


def check_skew(S: Tensor) -> None:
    """S is finite and skew-symmetric up to the square root of its precision.

    Raises:
        RuntimeError: it is not.
    """
    S = S.detach()
    if S.numel() == 0:
        return
    if not bool(torch.isfinite(S).all()):
        raise RuntimeError("S must be finite, but it holds NaN or infinity")
    largest, most = float(S.abs().max()), torch.finfo(S.dtype).max / 2
    if largest > most:
        raise RuntimeError(f"the entries of S must be at most {most:.3g}, got {largest:.3g}")
    defect = (S + S.mT).abs().amax((-2, -1))
    wrong = defect > math.sqrt(torch.finfo(S.dtype).eps) * S.abs().amax((-2, -1))
    if bool(wrong.any()):
        raise RuntimeError(f"S must be skew-symmetric, S = -S^T, but max |S + S^T| = {float(defect[wrong].max()):.3g}")
