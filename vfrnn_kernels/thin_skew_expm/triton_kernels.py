"""thin_skew_expm on a GPU through Triton: skew_expm's kernels, and the framework's products (composed.py)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from vfrnn_kernels.skew_expm.triton_kernels import skew_expm, skew_expm_backward
from vfrnn_kernels.thin_skew_expm.composed import Parts, backward, forward, framework_factor, framework_product
from vfrnn_kernels.triton_runtime import KernelSpec

PARTS = Parts(skew_expm, skew_expm_backward, framework_factor, framework_product)


def specs() -> Iterator[KernelSpec]:
    """No kernels of its own."""
    yield from ()


def thin_skew_expm(*, S: Tensor, dt: Tensor) -> tuple[Tensor, ...]:
    """The op on Triton's exponential."""
    return forward(PARTS, S, dt)


def thin_skew_expm_backward(
    *,
    grad_Y: Tensor,
    S: Tensor,
    dt: Tensor,
    Y: Tensor,
    Q: Tensor,
    R: Tensor,
    rotation: Tensor,
    matrices: Tensor,
    squarings: Tensor,
    wanted: frozenset[str],
) -> dict[str, Tensor]:
    """Its backward on Triton's exponential."""
    return backward(PARTS, grad_Y, S, dt, Q, R, rotation, matrices, squarings, wanted=wanted)
