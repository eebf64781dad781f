"""recurrence: a whole sequence h_t = act(M h_{t-1} + U x_t + c) in one op."""

from vfrnn_kernels.recurrence.op import recurrence
from vfrnn_kernels.recurrence.reference import recurrence_reference

__all__ = ["recurrence", "recurrence_reference"]
