"""flow_recurrence on a GPU through Triton: field_flow's kernels, a launch for every step (launched_steps.py)."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from vfrnn_kernels.field_flow.triton_kernels import field_flow, field_flow_backward
from vfrnn_kernels.flow_recurrence import launched_steps
from vfrnn_kernels.triton_runtime import KernelSpec


def specs() -> Iterator[KernelSpec]:
    """No kernels of its own."""
    yield from ()


flow_recurrence = functools.partial(launched_steps.forward, field_flow)
flow_recurrence_backward = functools.partial(launched_steps.backward, field_flow, field_flow_backward)
