"""flow_recurrence: a recurrent layer whose state is moved, step by step, along a field that reads the input."""

from vfrnn_kernels.flow_recurrence.op import flow_recurrence
from vfrnn_kernels.flow_recurrence.reference import flow_recurrence_reference

__all__ = ["flow_recurrence", "flow_recurrence_reference"]
